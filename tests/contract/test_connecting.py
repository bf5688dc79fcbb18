"""How python-socketio takes a client in, and how it sees one off: the order of its calls, and what it leaves open.

``aio/connecting.py`` and ``aio/leaving.py`` are called back in these orders.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from socketio.packet import CONNECT, CONNECT_ERROR, DISCONNECT

from .upstream import ASKED, CallJournal, environ, journal_of, relies_on, server

TRANSPORT = "transport"


def made(asked: tuple[str, ...] | None = None, **options: Any) -> tuple[Any, CallJournal]:
    """A server whose transport ``TRANSPORT`` is open, and the journal of what it calls."""
    sio = server(**options)
    sio.on("connect", lambda sid, environ, auth: None)
    sio.on("disconnect", lambda sid, reason: None)
    sio.environ[TRANSPORT] = environ("")
    return sio, journal_of(sio, asked) if asked else journal_of(sio)


async def connected(sio: Any, journal: CallJournal, namespace: str = "/") -> str:
    """Connects a client; the journal begins after that."""
    await sio._handle_connect(TRANSPORT, namespace, None)
    sid: str = sio.manager.sid_from_eio_sid(TRANSPORT, namespace)
    journal.calls.clear()
    return sid


class Failure(Exception):
    """Of the application, or of the manager."""


def fails(*args: Any, **kwargs: Any) -> Any:
    raise Failure


# -- connecting -----------------------------------------------------------------------------------------


@relies_on(
    "socketio.AsyncServer._handle_connect", "socketio.AsyncServer._send_packet", "socketio.AsyncServer._trigger_event"
)
async def test_a_client_is_pre_connected_then_the_handler_runs_then_connect_is_sent() -> None:
    """``pre_connect`` claims the session; after CONNECT, ``connect`` sends what the client missed."""
    sio, journal = made()
    await sio._handle_connect(TRANSPORT, "/", {"name": "Ann"})
    assert journal.steps == ["manager.pre_connect", "connect handler", "CONNECT", "manager.connect"]
    assert journal.of("pre_connect") == [(TRANSPORT, "/")]
    sid = journal.of("connect")[0][0]
    assert journal.of("connect") == [(sid, "/")]
    assert journal.of("_trigger_event") == [("connect", "/", sid, sio.environ[TRANSPORT], {"name": "Ann"})]


@relies_on("socketio.AsyncServer._handle_connect")
async def test_with_always_connect_connect_is_sent_first() -> None:
    sio, journal = made(always_connect=True)
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.steps == ["manager.pre_connect", "CONNECT", "manager.connect", "connect handler"]


async def test_what_pre_connect_returns_is_the_sid() -> None:
    """So a recovered session keeps its own, in the handler, in CONNECT and in ``connect``."""
    sio, journal = made()

    async def pre_connect(transport: str, namespace: str) -> str:
        return "the sid it had"

    async def connect(sid: str, namespace: str) -> str:
        return sid

    sio.manager.pre_connect, sio.manager.connect = pre_connect, connect
    journal.watch(sio.manager, "pre_connect", "connect")
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.of("_trigger_event")[0][2] == "the sid it had"
    assert journal.of("_send_packet")[0][1].data == {"sid": "the sid it had"}
    assert journal.of("connect") == [("the sid it had", "/")]


@relies_on("socketio.AsyncServer._send_packet", "socketio.AsyncServer().packet_class")
async def test_the_connect_packet_holds_the_sid_and_its_data_can_be_replaced() -> None:
    """The hook puts the ``pid`` into it, and encodes it: one message, text or bytes."""
    sio, journal = made(namespaces=["/", "/chat"])
    await sio._handle_connect(TRANSPORT, "/chat", None)
    [(transport, sent)] = journal.of("_send_packet")
    sid = journal.of("connect")[0][0]
    assert transport == TRANSPORT
    assert isinstance(sent, sio.packet_class)
    assert (sent.packet_type, sent.namespace, sent.data) == (CONNECT, "/chat", {"sid": sid})
    sent.data = {**sent.data, "pid": "secret"}
    assert sent.encode() == f'0/chat,{{"sid":"{sid}","pid":"secret"}}'


@pytest.mark.parametrize("namespace", [None, "/"])
async def test_no_namespace_is_the_main_namespace(namespace: str | None) -> None:
    sio, journal = made()
    await sio._handle_connect(TRANSPORT, namespace, None)
    assert journal.of("pre_connect") == [(TRANSPORT, "/")]


@pytest.mark.parametrize("auth", [None, {}, ""])
async def test_a_client_without_auth_gives_the_handler_none(auth: Any) -> None:
    """So a client that sends a ``pid`` only, which the hook takes out, is one without ``auth``."""
    sio, journal = made()
    await sio._handle_connect(TRANSPORT, "/", auth)
    assert journal.of("_trigger_event")[0][4:] == (None,)


async def test_a_handler_without_auth_is_called_a_second_time_with_two_arguments() -> None:
    """The ``skip_connect_handler`` hook sees both calls."""
    sio, journal = made()
    calls = []
    sio.on("connect", lambda sid, environ: calls.append(sid))
    await sio._handle_connect(TRANSPORT, "/", None)
    assert [len(call) for call in journal.of("_trigger_event")] == [5, 4]
    assert len(calls) == 1
    assert journal.steps[-2:] == ["CONNECT", "manager.connect"]


async def test_who_is_not_pre_connected_is_told_unable_to_connect() -> None:
    """``pre_connect`` returns ``None`` for a second CONNECT on the same transport: nothing else is called."""
    sio, journal = made()

    async def nobody(transport: str, namespace: str) -> None:
        return None

    sio.manager.pre_connect = nobody
    journal.watch(sio.manager, "pre_connect")
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.steps == ["manager.pre_connect", "CONNECT_ERROR"]
    [(_, sent)] = journal.of("_send_packet")
    assert (sent.packet_type, sent.data) == (CONNECT_ERROR, "Unable to connect")


async def test_the_manager_is_not_asked_for_a_namespace_that_the_server_does_not_have() -> None:
    sio, journal = made()
    await sio._handle_connect(TRANSPORT, "/unknown", None)
    assert journal.steps == ["CONNECT_ERROR"]


def refuse(sid: str, environ: Any, auth: Any) -> bool:
    return False


def refuse_with(sid: str, environ: Any, auth: Any) -> None:
    raise socketio.exceptions.ConnectionRefusedError("no", {"why": "full"})


@relies_on("socketio.AsyncServer._handle_connect")
async def test_a_refused_client_gets_connect_error_and_is_then_disconnected_on_this_node() -> None:
    """There is no ``pre_disconnect``: the connection is never marked as leaving."""
    sio, journal = made()
    sio.on("connect", refuse_with)
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.steps == ["manager.pre_connect", "connect handler", "CONNECT_ERROR", "manager.disconnect"]
    assert journal.calls[-1][1][1:] == ("/",)
    assert journal.calls[-1][2] == {"ignore_queue": True}
    assert journal.of("_send_packet")[0][1].data == {"message": "no", "data": {"why": "full"}}


@relies_on("socketio.AsyncServer._handle_connect")
@pytest.mark.parametrize("handler", [refuse, refuse_with])
async def test_with_always_connect_a_refused_client_gets_disconnect(handler: Any) -> None:
    sio, journal = made(always_connect=True)
    sio.on("connect", handler)
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.steps[3:] == ["connect handler", "manager.pre_disconnect", "DISCONNECT", "manager.disconnect"]
    assert journal.calls[-1][2] == {"ignore_queue": True}


@relies_on("socketio.AsyncServer._handle_connect")
@pytest.mark.parametrize("always_connect", [False, True])
@pytest.mark.parametrize("what", ["the handler", "pre_connect", "connect"])
async def test_an_exception_while_a_client_connects_comes_out_and_nothing_is_undone(
    what: str, always_connect: bool
) -> None:
    """``Connecting.handle`` catches it, gives the session back and closes the transport."""
    sio, journal = made(always_connect=always_connect)
    if what == "the handler":
        sio.on("connect", fails)
    else:
        setattr(sio.manager, what, fails)
    with pytest.raises(Failure):
        await sio._handle_connect(TRANSPORT, "/", None)
    assert not {"CONNECT_ERROR", "DISCONNECT", "manager.disconnect"} & set(journal.steps)


@relies_on("socketio.AsyncServer().environ")
async def test_the_environ_of_a_transport_is_kept_under_its_engineio_session_id() -> None:
    """``can_recover`` is asked with it, before the handler gets it."""
    sio, _ = made()
    found = environ("a=b")
    await sio._handle_eio_connect("another", found)
    assert sio.environ["another"] is found


# -- leaving --------------------------------------------------------------------------------------------


@relies_on("socketio.AsyncServer._handle_disconnect", "socketio.AsyncServer().reason")
async def test_a_client_that_leaves_is_looked_up_marked_handled_and_then_removed() -> None:
    sio, journal = made(ASKED)
    sid = await connected(sio, journal)
    await sio._handle_disconnect(TRANSPORT, "/")
    assert journal.steps == [
        "manager.sid_from_eio_sid",
        "manager.is_connected",
        "manager.pre_disconnect",
        "disconnect handler",
        "manager.disconnect",
    ]
    assert journal.of("_trigger_event") == [("disconnect", "/", sid, sio.reason.CLIENT_DISCONNECT)]
    assert journal.calls[-1] == ("disconnect", (sid, "/"), {"ignore_queue": True})


@relies_on("socketio.AsyncServer._handle_disconnect")
async def test_the_reason_reaches_the_handler() -> None:
    sio, journal = made()
    await connected(sio, journal)
    await sio._handle_disconnect(TRANSPORT, "/", "ping timeout")
    assert journal.of("_trigger_event")[0][3] == "ping timeout"


@relies_on("socketio.AsyncServer._handle_disconnect")
async def test_the_handler_of_a_client_that_is_not_connected_does_not_run() -> None:
    """``is_connected`` is false for a connection that leaves already, or still connects: it runs once."""
    sio, journal = made(ASKED)
    await connected(sio, journal)
    sio.manager.is_connected = lambda sid, namespace: False
    await sio._handle_disconnect(TRANSPORT, "/")
    assert journal.steps == ["manager.sid_from_eio_sid"]


@relies_on("socketio.AsyncServer._handle_disconnect")
async def test_an_exception_of_a_disconnect_handler_comes_out_and_the_client_stays() -> None:
    """``Leaving`` then removes the connection itself."""
    sio, journal = made()
    await connected(sio, journal)
    sio.on("disconnect", fails)
    with pytest.raises(Failure):
        await sio._handle_disconnect(TRANSPORT, "/")
    assert journal.steps == ["manager.pre_disconnect", "disconnect handler"]


@relies_on("socketio.AsyncServer.disconnect")
@pytest.mark.parametrize(("ignore_queue", "question"), [(False, "can_disconnect"), (True, "is_connected")])
async def test_disconnect_asks_marks_sends_disconnect_runs_the_handler_and_removes(
    ignore_queue: bool, question: str
) -> None:
    sio, journal = made(("can_disconnect", "is_connected") if ignore_queue else ("can_disconnect",))
    journal.watch(sio.manager, "pre_disconnect", "disconnect")
    sid = await connected(sio, journal)
    await sio.disconnect(sid, ignore_queue=ignore_queue)
    assert journal.steps == [
        f"manager.{question}",
        "manager.pre_disconnect",
        "DISCONNECT",
        "disconnect handler",
        "manager.disconnect",
    ]
    assert journal.of("_trigger_event") == [("disconnect", "/", sid, sio.reason.SERVER_DISCONNECT)]
    assert journal.calls[-1] == ("disconnect", (sid,), {"namespace": "/", "ignore_queue": True})


@relies_on("socketio.AsyncServer.disconnect")
@pytest.mark.parametrize("ignore_queue", [False, True])
async def test_a_client_that_is_not_here_is_not_disconnected_here(ignore_queue: bool) -> None:
    """``can_disconnect`` writes to the log instead, and returns false."""
    sio, journal = made()
    await connected(sio, journal)
    await sio.disconnect("of another node", ignore_queue=ignore_queue)
    assert journal.steps == []


async def test_disconnect_is_sent_to_the_transport_that_pre_disconnect_names() -> None:
    """Two connections may have the same ``sid`` for a moment. The manager says which is meant."""
    sio, journal = made()
    sid = await connected(sio, journal)
    sio.manager.pre_disconnect = lambda sid, namespace: "the old transport"
    await sio.disconnect(sid)
    [(transport, sent)] = journal.of("_send_packet")
    assert (transport, sent.packet_type, sent.namespace) == ("the old transport", DISCONNECT, "/")


@relies_on("socketio.AsyncServer._trigger_event")
async def test_what_the_hook_returns_instead_of_a_handler_is_taken_for_its_result() -> None:
    """The hook returns ``None`` for a ``connect`` handler that is left out: the client is let in."""
    sio, journal = made()

    async def nothing(event: str, namespace: str, *args: Any) -> None:
        return None

    sio.on("connect", refuse)
    sio._trigger_event = nothing
    await sio._handle_connect(TRANSPORT, "/", None)
    assert journal.steps == ["manager.pre_connect", "CONNECT", "manager.connect"]


async def test_a_cancelled_handler_is_one_that_returned_none() -> None:
    """python-socketio hides the cancellation: ``Leaving.run_orphan`` asks its task."""
    sio, _ = made()

    async def cancelled(sid: str, reason: str) -> None:
        raise asyncio.CancelledError

    sio.on("disconnect", cancelled)
    assert await sio._trigger_event("disconnect", "/", "sid", "reason") is None
