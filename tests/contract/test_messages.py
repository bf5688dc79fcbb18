"""What python-socketio does with what Engine.IO tells it: transports that open, messages, transports that close."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from socketio import packet

from tests.support.waiting import until

from .upstream import CallJournal, environ, journal_of, open_websocket, relies_on, server

TRANSPORT = "transport"


def made(**options: Any) -> tuple[Any, CallJournal]:
    """A server with a transport, and the journal of the handlers that it calls on itself."""
    sio = server(**options)
    sio.environ[TRANSPORT] = environ("")
    journal = CallJournal()
    journal.watch(sio, "_handle_connect", "_handle_disconnect", "_handle_event")
    return sio, journal


async def connected(sio: Any, namespace: str = "/") -> str:
    """Connects a client, and returns its ``sid``."""
    sio.on("connect", lambda sid, environ, auth: None, namespace=namespace)
    await sio._handle_connect(TRANSPORT, namespace, None)
    sid: str = sio.manager.sid_from_eio_sid(TRANSPORT, namespace)
    return sid


# -- the server while it is made -----------------------------------------------------------------------


@relies_on(
    "socketio.AsyncServer().eio",
    "socketio.AsyncServer().environ",
    "socketio.AsyncServer()._binary_packet",
    "socketio.AsyncServer().packet_class",
    "socketio.AsyncServer().reason",
    "socketio.AsyncServer().reserved_events",
)
def test_a_server_has_all_that_is_used_when_it_calls_set_server() -> None:
    """``set_server`` sets the hooks. Nothing sets them back after that, and the loggers are there."""
    seen: dict[str, Any] = {}

    class Manager(socketio.AsyncManager):  # type: ignore[misc]
        def set_server(self, server: Any) -> None:
            super().set_server(server)
            seen.update(vars(server))
            for name in ("connect", "message", "disconnect"):
                server.eio.on(name, seen)
            server._handle_connect = seen

    sio = server(client_manager=Manager())
    assert {"eio", "environ", "handlers", "_binary_packet", "packet_class", "logger", "manager"} <= seen.keys()
    assert (sio.handlers, sio.environ, sio._binary_packet) == ({}, {}, {})
    assert all(handler is seen for handler in sio.eio.handlers.values())
    assert sio._handle_connect is seen
    assert sio.reason is sio.eio.reason


@relies_on("engineio.AsyncServer.on", "engineio.AsyncServer().handlers")
def test_the_engineio_handlers_are_the_servers_methods_and_on_replaces_them() -> None:
    """There is one handler for each event: the hook takes the place of the server's."""
    sio = server()
    assert sio.eio.handlers == {
        "connect": sio._handle_eio_connect,
        "message": sio._handle_eio_message,
        "disconnect": sio._handle_eio_disconnect,
    }

    async def hook(transport: str, reason: str) -> None: ...

    sio.eio.on("disconnect", hook)
    assert sio.eio.handlers["disconnect"] is hook


@relies_on("socketio.AsyncServer().reserved_events")
def test_connect_and_disconnect_are_the_only_events_that_a_client_must_not_cause() -> None:
    """``handle_event`` leaves them out. A new one would be left out, too; but what would it mean?"""
    assert set(server().reserved_events) == {"connect", "disconnect"}


async def test_events_are_dispatched_by_namespace_and_name() -> None:
    sio, _ = made()
    calls = []
    sio.on("news", lambda sid, data: calls.append((sid, data)), namespace="/chat")
    assert "news" in sio.handlers["/chat"]
    await sio._trigger_event("news", "/chat", "sid", 1)
    assert calls == [("sid", 1)]


# -- transports ----------------------------------------------------------------------------------------


@relies_on("socketio.AsyncServer._handle_eio_connect")
async def test_the_first_transport_initializes_the_manager_once_and_its_environ_is_kept() -> None:
    """``initialize`` starts the background tasks: there is an event loop then."""
    sio, _ = made()
    started = []
    sio.manager.initialize = lambda: started.append(asyncio.get_running_loop())
    for transport in ("first", "second"):
        assert await sio._handle_eio_connect(transport, environ("")) is None
    assert len(started) == 1
    assert {"first", "second"} <= sio.environ.keys()


@relies_on("socketio.AsyncServer._handle_eio_disconnect")
async def test_a_transport_that_closes_leaves_each_namespace_and_then_its_environ_is_forgotten() -> None:
    """It asks the manager for the namespaces, and calls its own ``_handle_disconnect`` with the reason."""
    sio, journal = made()
    sio.manager.get_namespaces = lambda: ["/", "/chat"]
    kept = []
    sio.manager.sid_from_eio_sid = lambda transport, namespace: kept.append(transport in sio.environ)
    await sio._handle_eio_disconnect(TRANSPORT, "ping timeout")
    assert journal.of("_handle_disconnect") == [(TRANSPORT, "/", "ping timeout"), (TRANSPORT, "/chat", "ping timeout")]
    assert kept == [True, True]
    assert TRANSPORT not in sio.environ


async def test_a_handler_that_raises_keeps_the_other_namespaces_connected() -> None:
    """So ``Leaving.transport_lost`` ends each connection on its own before it calls this."""
    sio, journal = made()
    sio.manager.get_namespaces = lambda: ["/", "/chat"]

    async def fails(transport: str, namespace: str, reason: str) -> None:
        raise ValueError

    sio._handle_disconnect = fails
    journal.watch(sio, "_handle_disconnect")
    with pytest.raises(ValueError):
        await sio._handle_eio_disconnect(TRANSPORT, "transport close")
    assert len(journal.of("_handle_disconnect")) == 1
    assert TRANSPORT in sio.environ


# -- messages ------------------------------------------------------------------------------------------


@relies_on("socketio.AsyncServer._handle_eio_message")
async def test_connect_and_disconnect_packets_are_passed_to_the_hooks() -> None:
    sio, journal = made()
    await sio._handle_eio_message(TRANSPORT, '0/chat,{"pid":"a.b","offset":"1-2"}')
    await sio._handle_eio_message(TRANSPORT, "0")
    assert journal.of("_handle_connect") == [
        (TRANSPORT, "/chat", {"pid": "a.b", "offset": "1-2"}),
        (TRANSPORT, None, None),
    ]
    await sio._handle_eio_message(TRANSPORT, "1/chat,")
    assert journal.of("_handle_disconnect") == [(TRANSPORT, "/chat", sio.reason.CLIENT_DISCONNECT)]


@relies_on("socketio.AsyncServer._handle_eio_message", "socketio.AsyncServer._handle_event")
@pytest.mark.parametrize(
    ("message", "data"),
    [('2["news",1]', ["news", 1]), ('27["news"]', ["news"]), ('2{"a":1}', {"a": 1}), ("2", None), ("2[]", [])],
)
async def test_events_are_passed_to_the_hook_whatever_they_hold(message: str, data: Any) -> None:
    """It has to refuse what is no list that begins with a name."""
    sio, journal = made()

    async def nothing(transport: str, namespace: str | None, id: int | None, data: Any) -> None: ...

    sio._handle_event = nothing
    journal.watch(sio, "_handle_event")
    await sio._handle_eio_message(TRANSPORT, message)
    assert journal.of("_handle_event") == [(TRANSPORT, None, 7 if "7" in message else None, data)]


async def test_acknowledgements_are_passed_to_the_manager() -> None:
    sio, _ = made()
    sid = await connected(sio)
    answers = []

    async def trigger_callback(sid: str, id: int, data: Any) -> None:
        answers.append((sid, id, data))

    sio.manager.trigger_callback = trigger_callback
    await sio._handle_eio_message(TRANSPORT, '37["yes"]')
    assert answers == [(sid, 7, ["yes"])]


@relies_on("socketio.AsyncServer._handle_event", "socketio.AsyncServer._send_packet")
async def test_an_event_runs_its_handler_and_what_that_returns_is_sent_as_an_acknowledgement() -> None:
    """Both go through the hooks of the instance. The hook keeps ACK back until a replay is over."""
    sio, _ = made(async_handlers=False)
    sid = await connected(sio)
    sio.on("news", lambda sid, *data: "yes")
    journal = journal_of(sio, ("is_connected",))
    await sio._handle_eio_message(TRANSPORT, '27["news",1]')
    assert journal.steps == ["manager.is_connected", "news handler", "ACK"]
    assert journal.of("_trigger_event") == [("news", "/", sid, 1)]
    [(transport, sent)] = journal.of("_send_packet")
    assert (transport, sent.packet_type, sent.namespace, sent.id, sent.data) == (TRANSPORT, 3, "/", 7, ["yes"])
    await sio._handle_eio_message(TRANSPORT, '27["nobody\'s",1]')
    assert len(journal.of("_send_packet")) == 1


async def test_an_acknowledgement_with_binary_data_is_a_packet_of_its_own_kind() -> None:
    sio, _ = made(async_handlers=False)
    await connected(sio)
    sio.on("news", lambda sid: b"\x00")
    journal = journal_of(sio, ())
    await sio._handle_eio_message(TRANSPORT, '27["news"]')
    assert journal.steps == ["news handler", "BINARY_ACK"]


@relies_on("socketio.AsyncServer._handle_event")
async def test_no_handler_runs_for_a_client_that_is_not_connected() -> None:
    sio, _ = made(async_handlers=False)
    journal = journal_of(sio, ("is_connected",))
    await sio._handle_eio_message(TRANSPORT, '2["news"]')
    assert journal.steps == ["manager.is_connected"]


@relies_on("socketio.AsyncServer._handle_event")
async def test_an_event_named_connect_would_run_the_connect_handler() -> None:
    """That is why there is a hook. Once upstream refuses such events, it is not needed any more."""
    sio, _ = made(async_handlers=False)
    sid = await connected(sio)
    journal = journal_of(sio, ())
    await sio._handle_event(TRANSPORT, "/", None, ["connect", {"REMOTE_ADDR": "forged"}, None])
    assert journal.of("_trigger_event") == [("connect", "/", sid, {"REMOTE_ADDR": "forged"}, None)]


@relies_on("socketio.AsyncServer()._binary_packet", "socketio.AsyncServer._handle_eio_message")
async def test_an_incomplete_binary_packet_waits_with_its_attachments() -> None:
    """Nothing bounds how many: the hook counts them, clears the list, and notes a size on the packet."""
    sio, journal = made(async_handlers=False)
    await connected(sio)
    await sio._handle_eio_message(TRANSPORT, '52-["file",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    waits = sio._binary_packet[TRANSPORT]
    assert waits.attachments == []
    waits.size = 1
    await sio._handle_eio_message(TRANSPORT, b"one")
    assert waits.attachments == [b"one"]
    assert sio._binary_packet[TRANSPORT] is waits
    assert journal.of("_handle_event") == []
    await sio._handle_eio_message(TRANSPORT, b"two")
    assert journal.of("_handle_event") == [(TRANSPORT, None, None, ["file", b"one", b"two"])]
    assert TRANSPORT not in sio._binary_packet


@relies_on("socketio.AsyncServer()._binary_packet")
async def test_a_binary_packet_whose_attachments_were_cleared_goes_on_waiting() -> None:
    sio, _ = made()
    await connected(sio)
    await sio._handle_eio_message(TRANSPORT, '51-["file",{"_placeholder":true,"num":0}]')
    sio._binary_packet[TRANSPORT].attachment_count = 3
    await sio._handle_eio_message(TRANSPORT, b"one")
    sio._binary_packet[TRANSPORT].attachments.clear()
    await sio._handle_eio_message(TRANSPORT, b"two")
    assert sio._binary_packet[TRANSPORT].attachments == [b"two"]


async def test_a_transport_that_closes_may_leave_its_binary_packet_behind() -> None:
    """If its client is not connected any more, upstream keeps the packet: the hook removes it."""
    sio, _ = made()
    await connected(sio)
    await sio._handle_eio_message(TRANSPORT, '51-["file",{"_placeholder":true,"num":0}]')
    sio.manager.is_connected = lambda sid, namespace: False
    await sio._handle_eio_disconnect(TRANSPORT, "transport close")
    assert TRANSPORT in sio._binary_packet


async def test_messages_are_handled_one_after_the_other_while_a_client_connects() -> None:
    """python-engineio awaits the handler of a message, and reads nothing meanwhile, not even pongs.

    ``CatchUp.start`` sends a long replay in a task of its own for that, and an event that a client sends behind its
    CONNECT waits until the client is connected.
    """
    sio = server()
    gate = asyncio.Event()
    order: list[str] = []

    async def connect(sid: str, environ: Any, auth: Any) -> None:
        order.append("connect begins")
        await gate.wait()
        order.append("connect ends")

    sio.on("connect", connect)
    sio.on("news", lambda sid: order.append("news"))
    client = await open_websocket(sio)
    client.socket.schedule_ping = lambda: order.append("pong")
    reads = client.websocket.reads
    client.websocket.client_sends("40", "3", '42["news"]')
    await until(lambda: order, "the connect handler")
    for _ in range(10):
        await asyncio.sleep(0)
    assert (order, client.websocket.reads) == (["connect begins"], reads)
    gate.set()
    await until(lambda: "news" in order, lambda: str(order))
    assert order == ["connect begins", "connect ends", "pong", "news"]
    await client.leave()


@relies_on("socketio.AsyncServer._handle_connect")
async def test_what_a_message_handler_raises_is_logged_and_the_transport_stays_open() -> None:
    """A client whose handshake failed would wait for ever: ``Connecting.handle`` closes its transport."""
    sio = server()

    async def fails(transport: str, namespace: str, data: Any) -> None:
        raise ValueError

    sio._handle_connect = fails
    errors: list[str] = []
    sio.eio.logger = Logger(errors)
    client = await open_websocket(sio)
    client.websocket.client_sends("40", "3")
    reads = client.websocket.reads
    await until(lambda: client.websocket.reads == reads + 2, "both messages")
    assert (client.socket.closing, client.socket.closed) == (False, False)
    assert errors == ["message async handler error"]
    await client.leave()


class Logger:
    """Keeps what is logged of errors."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors

    def info(self, *args: Any) -> None: ...

    warning = error = info

    def exception(self, text: str, *args: Any) -> None:
        self.errors.append(text)


# -- the rest ------------------------------------------------------------------------------------------


@relies_on("socketio.AsyncServer.get_session", "socketio.AsyncServer.save_session")
async def test_the_data_of_a_session_is_in_its_engineio_socket_by_namespace() -> None:
    """``Connecting`` puts recovered data there."""
    sio = server()
    sio.on("connect", lambda sid, environ, auth: None)
    client = await open_websocket(sio)
    client.websocket.client_sends("40")
    await until(lambda: sio.manager.sid_from_eio_sid(client.socket.sid, "/"), "a connection")
    sid = sio.manager.sid_from_eio_sid(client.socket.sid, "/")
    assert await sio.get_session(sid) == {}
    await sio.save_session(sid, {"name": "Ann"})
    assert client.socket.session == {"/": {"name": "Ann"}}
    client.socket.session["/"] = {"name": "Bob"}
    assert await sio.get_session(sid, namespace="/") == {"name": "Bob"}
    await client.leave()


@relies_on("socketio.AsyncServer.get_session")
async def test_the_data_is_gone_with_the_transport() -> None:
    """In a ``disconnect`` handler it may be: that is why ``get_session`` is wrapped."""
    sio, _ = made()
    sid = await connected(sio)
    with pytest.raises(KeyError):
        await sio.get_session(sid)


@relies_on("socketio.AsyncServer.get_session", "socketio.AsyncServer.save_session")
async def test_the_session_context_manager_goes_through_the_hooks() -> None:
    sio, _ = made()
    calls: list[Any] = []

    async def get_session(sid: str, namespace: str | None = None) -> dict[str, Any]:
        calls.append((sid, namespace))
        return {"name": "Ann"}

    async def save_session(sid: str, session: Any, namespace: str | None = None) -> None:
        calls.append((sid, session, namespace))

    sio.get_session, sio.save_session = get_session, save_session
    async with sio.session("sid", namespace="/chat") as session:
        session["age"] = 7
    assert calls == [("sid", "/chat"), ("sid", {"name": "Ann", "age": 7}, "/chat")]


@relies_on("socketio.AsyncServer.emit")
async def test_emit_hands_everything_to_the_manager() -> None:
    """The hook passes its arguments on by position, ``callback`` and ``ignore_queue`` last."""
    sio, _ = made()
    calls = []

    async def emit(*args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))

    def callback() -> None: ...

    sio.manager.emit = emit
    await sio.emit("news", {"a": 1}, "to", None, ["skipped"], "/chat", callback, True)
    await sio.emit("news", 1, None, "room")
    assert calls == [
        (
            ("news", {"a": 1}, "/chat"),
            {"room": "to", "skip_sid": ["skipped"], "callback": callback, "ignore_queue": True},
        ),
        (("news", 1, "/"), {"room": "room", "skip_sid": None, "callback": None, "ignore_queue": False}),
    ]


@relies_on("socketio.AsyncServer.emit")
async def test_send_and_call_emit_through_the_hook() -> None:
    sio, _ = made()
    calls = []

    async def emit(event: str, **kwargs: Any) -> None:
        calls.append((event, kwargs["data"]))
        if kwargs.get("callback"):
            kwargs["callback"]("answer")

    sio.emit = emit
    await sio.send("text", to="room")
    assert await sio.call("question", 1, to="sid") == "answer"
    assert calls == [("message", "text"), ("question", 1)]


@relies_on("socketio.AsyncServer._send_packet")
async def test_a_packet_is_encoded_and_each_part_is_sent_by_engineio() -> None:
    sio, _ = made()
    sent = []

    async def send(transport: str, data: Any) -> None:
        sent.append((transport, data))

    sio.eio.send = send
    await sio._send_packet(TRANSPORT, packet.Packet(packet.EVENT, ["news", b"\x00"], "/chat"))
    assert sent == [(TRANSPORT, '51-/chat,["news",{"_placeholder":true,"num":0}]'), (TRANSPORT, b"\x00")]
