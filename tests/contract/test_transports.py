"""How python-engineio runs a transport: its queue, its pings, its WebSocket, and how it is closed.

``aio/upstream/engineio_transport.py`` and ``aio/send_queue.py`` are built on this. What pings confirm is tested in
``tests/unit/test_pings.py``.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import engineio
import pytest
from engineio import async_server
from engineio.async_socket import AsyncSocket
from engineio.packet import CLOSE, MESSAGE, NOOP, PING, PONG, Packet

from tests.support.waiting import until

from .upstream import DRIVER, Client, WebSocket, environ, open_polling, open_websocket, poll, relies_on, server, upgrade


def made(**options: Any) -> Any:
    """An Engine.IO server, whose ``disconnect`` handler notes what it is told in ``server.ended``."""
    eio = engineio.AsyncServer(async_mode="asgi", **{"monitor_clients": False, "async_handlers": False, **options})
    eio._async = {**eio._async, **DRIVER}
    eio.ended = []
    return eio


def socket_of(eio: Any) -> Any:
    return AsyncSocket(eio, "transport")


def message(text: str) -> Any:
    return Packet(MESSAGE, text)


async def turns(count: int = 10) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- the server ----------------------------------------------------------------------------------------


@relies_on(
    "engineio.AsyncServer().ping_interval",
    "engineio.AsyncServer().ping_interval_grace_period",
    "engineio.AsyncServer().ping_timeout",
    "engineio.AsyncServer().max_http_buffer_size",
    "engineio.AsyncServer().logger",
)
async def test_the_options_of_a_server_are_its_attributes() -> None:
    """The deadlines of sessions follow from the first three. The interval the client is told is their sum."""
    log = Log()
    eio = made(ping_interval=(25, 5), ping_timeout=20, max_http_buffer_size=1000, logger=log)
    assert (eio.ping_interval, eio.ping_interval_grace_period, eio.ping_timeout) == (25, 5, 20)
    assert (eio.max_http_buffer_size, eio.logger) == (1000, log)
    assert made(ping_interval=25).ping_interval_grace_period == 0
    client = await open_websocket(eio)
    await until(lambda: client.websocket.sent, "OPEN")
    assert '"pingTimeout":20000,"pingInterval":30000' in str(client.websocket.sent[0])
    await client.leave()


class Log:
    """A logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *args: Any) -> None:
        self.lines.append(text % args)

    warning = error = exception = info


@relies_on("engineio.AsyncServer().logger")
async def test_received_data_reaches_the_log_as_an_argument() -> None:
    """``redaction.py`` keeps the ``pid`` out of the arguments, also where they are parsed data."""
    arguments: list[Any] = []
    eio = made(logger=SimpleNamespace(info=lambda text, *args: arguments.extend(args)))
    await socket_of(eio).receive(message('0{"pid":"sid.secret"}'))
    assert '0{"pid":"sid.secret"}' in arguments


@relies_on("engineio.AsyncServer().logger")
async def test_sent_packets_are_logged_by_the_socket_and_not_by_its_queue() -> None:
    """So the CONNECT packet, which holds the ``pid``, is put into the queue and not given to ``send``."""
    log = Log()
    socket = socket_of(made(logger=log))
    log.lines.clear()
    socket.queue.put_nowait(message("secret"))
    assert log.lines == []
    await socket.send(message("public"))
    assert any("public" in line for line in log.lines)


@relies_on("engineio.AsyncServer().sockets")
async def test_an_open_transport_is_listed_before_its_connect_handler_runs_and_not_after_its_end() -> None:
    eio = made()
    listed = []
    eio.on("connect", lambda transport, environ: listed.append(eio.sockets[transport]))
    client = await open_websocket(eio)
    assert listed == [client.socket]
    assert client.socket.sid in eio.sockets
    await client.leave()
    assert eio.sockets == {}


@relies_on("engineio.AsyncServer.generate_id")
def test_ids_are_unique_text_of_letters_digits_hyphens_and_underscores() -> None:
    """A ``pid`` is a ``sid``, a full stop and the secret: a ``sid`` has no full stop."""
    eio = made()
    ids = {eio.generate_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(id.replace("-", "").replace("_", "").isalnum() and id.isascii() for id in ids)
    assert {len(id) for id in ids} == {20}


@relies_on("engineio.AsyncServer().reason")
def test_the_reasons_for_which_transports_end() -> None:
    reason = made().reason
    assert (reason.TRANSPORT_CLOSE, reason.PING_TIMEOUT) == ("transport close", "ping timeout")
    assert (reason.CLIENT_DISCONNECT, reason.SERVER_DISCONNECT) == ("client disconnect", "server disconnect")


def test_socketio_has_engineio_handle_messages_in_order() -> None:
    assert server().eio.async_handlers is False


# -- the queue -----------------------------------------------------------------------------------------


@relies_on("engineio.AsyncServer.create_queue")
async def test_each_socket_gets_its_queue_from_create_queue_of_the_server() -> None:
    """It is replaced on the instance, by a class that is an :class:`asyncio.Queue`."""
    eio = made()
    assert type(eio.create_queue()) is asyncio.Queue
    assert socket_of(eio).queue is not socket_of(eio).queue

    class Queue(asyncio.Queue[Any]): ...

    eio.create_queue = Queue
    assert isinstance(socket_of(eio).queue, Queue)
    client = await open_websocket(eio)
    assert isinstance(client.socket.queue, Queue)
    await client.leave()


@relies_on("engineio.AsyncSocket.poll")
async def test_poll_waits_for_one_packet_and_takes_all_that_wait_with_it() -> None:
    socket = socket_of(made())
    polls = asyncio.create_task(socket.poll())
    await turns()
    assert not polls.done()
    packets = [message("1"), message("2"), message("3")]
    for packet in packets:
        socket.queue.put_nowait(packet)
    assert await polls == packets
    assert socket.queue.empty()


@relies_on("engineio.AsyncSocket.poll")
async def test_poll_uses_only_get_and_get_nowait_of_the_queue() -> None:
    """The send queue overrides ``get``, and ``_get``, which both call."""
    calls: list[str] = []

    class Queue(asyncio.Queue[Any]):
        async def get(self) -> Any:
            calls.append("get")
            return await super().get()

        def get_nowait(self) -> Any:
            calls.append("get_nowait")
            return super().get_nowait()

    eio = made()
    eio.create_queue = Queue
    socket = socket_of(eio)
    socket.queue.put_nowait(message("1"))
    await socket.poll()
    assert calls[0] == "get"
    assert set(calls[1:]) == {"get_nowait"}  # asyncio.Queue.get calls it, too


@relies_on("engineio.AsyncSocket.poll")
async def test_none_ends_a_poll_and_what_was_before_it_is_taken_first() -> None:
    socket = socket_of(made())
    first = message("1")
    socket.queue.put_nowait(first)
    socket.queue.put_nowait(None)
    assert await socket.poll() == [first]
    assert await socket.poll() == []


@relies_on("engineio.AsyncSocket.poll")
async def test_a_poll_that_waits_too_long_is_an_error() -> None:
    """After interval and timeout of the pings. A ping comes sooner, also when the fast path leaves the queue empty."""
    socket = socket_of(made(ping_interval=0.001, ping_timeout=0.001))
    with pytest.raises(engineio.exceptions.QueueEmpty):
        await socket.poll()


async def test_none_ends_the_writer_of_a_websocket_which_then_closes_it() -> None:
    """``Transports.close`` puts ``None``: the client need not wait for handlers."""
    client = await open_websocket(made())
    client.socket.queue.put_nowait(message("last"))
    client.socket.queue.put_nowait(None)
    await client.task
    assert client.websocket.sent[-1] == "4last"
    assert client.websocket.closed


async def test_the_writer_waits_for_the_queue_only_when_all_it_took_is_sent() -> None:
    """The fast path: where somebody waits in ``get`` and the queue is empty, nothing is before a new message."""
    waiting = 0

    class Queue(asyncio.Queue[Any]):
        async def get(self) -> Any:
            nonlocal waiting
            waiting += 1
            try:
                return await super().get()
            finally:
                waiting -= 1

    eio = made()
    eio.create_queue = Queue
    client = await open_websocket(eio)
    await until(lambda: waiting == 1, "a writer that waits")
    client.websocket.free.clear()
    for text in "12":
        client.socket.queue.put_nowait(message(text))
    await until(lambda: client.socket.queue.empty(), "the writer")
    await turns()
    assert waiting == 0
    client.websocket.free.set()
    await client.websocket.received("42")
    await until(lambda: waiting == 1, "a writer that waits")
    await client.leave()


@relies_on("engineio.Packet.encode")
async def test_a_websocket_gets_what_encode_returns_one_message_after_the_other() -> None:
    client = await open_websocket(made())
    for packet in (message("text"), Packet(MESSAGE, b"\x00\x01"), message("more")):
        client.socket.queue.put_nowait(packet)
    await client.websocket.received("4more")
    assert client.websocket.sent[1:] == ["4text", b"\x00\x01", "4more"]
    await client.leave()


@relies_on("engineio.Packet.encode")
async def test_a_poll_asks_for_base64() -> None:
    eio = made()
    socket = await open_polling(eio)
    for packet in (message("text"), Packet(MESSAGE, b"\x00\x01")):
        socket.queue.put_nowait(packet)
    assert await poll(eio, socket.sid) == "4text\x1ebAAE="


# -- pings ---------------------------------------------------------------------------------------------


@relies_on("engineio.AsyncSocket.schedule_ping")
async def test_a_pong_calls_schedule_ping_of_the_socket() -> None:
    """It is replaced on the instance. Nothing else tells of a pong."""
    socket = socket_of(made())
    calls = []
    socket.schedule_ping = lambda: calls.append(socket.last_ping)
    await socket.receive(message("no pong"))
    assert calls == []
    socket.last_ping = 1.0
    await socket.receive(Packet(PONG))
    assert calls == [1.0]  # it is set: the ping was not answered before


@relies_on("engineio.AsyncSocket.send", "engineio.AsyncSocket.schedule_ping")
async def test_last_ping_is_set_from_a_ping_to_its_pong() -> None:
    """A pong that nobody asked for confirms nothing: ``last_ping`` is ``None`` then. A ping goes through ``send``."""
    socket = socket_of(made(ping_interval=0))
    sent: list[tuple[int, bool]] = []

    async def send(packet: Any) -> None:
        sent.append((packet.packet_type, socket.last_ping is not None))

    socket.send = send
    socket.schedule_ping()
    assert socket.last_ping is None
    await until(lambda: sent, "a ping")
    assert sent == [(PING, True)]
    assert socket.last_ping is not None
    await socket.receive(Packet(PONG))
    assert socket.last_ping is None
    await until(lambda: len(sent) == 2, "the next ping")
    await socket.receive(Packet(PONG))
    await socket.receive(Packet(PONG))  # a second one starts nothing
    await until(lambda: len(sent) == 3, "one more ping")
    await turns()
    assert len(sent) == 3


@relies_on("engineio.AsyncSocket.schedule_ping")
async def test_the_first_ping_is_scheduled_when_the_connect_handler_is_done() -> None:
    """So the socket is watched by then."""
    eio = made()
    order = []

    def connect(transport: str, environ: Any) -> None:
        order.append("connect")
        eio.sockets[transport].schedule_ping = lambda: order.append("schedule_ping")

    eio.on("connect", connect)
    await open_polling(eio)
    assert order == ["connect", "schedule_ping"]


@relies_on("engineio.AsyncSocket.send")
async def test_a_ping_is_queued_behind_what_was_sent_before() -> None:
    """So its pong confirms all of that."""
    socket = socket_of(made())
    first, ping = message("1"), Packet(PING)
    await socket.send(first)
    await socket.send(ping)
    assert await socket.poll() == [first, ping]


async def test_no_ping_is_sent_on_a_socket_that_is_closing() -> None:
    socket = socket_of(made(ping_interval=0))
    socket.closing = True
    sent: list[Any] = []
    socket.send = sent.append
    await socket._send_ping()
    assert sent == []


async def test_the_service_task_looks_at_each_socket_once_per_ping_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead connection is found up to another ``ping_timeout`` late: no time alone confirms what was sent.

    Sockets that are closing are left alone, and closed ones are removed.
    """
    eio = made(ping_timeout=20)
    waited: list[float] = []
    looks: list[tuple[str, float]] = []

    async def wait_for(awaitable: Any, timeout: float) -> None:
        awaitable.close()
        waited.append(timeout)
        if len(waited) == 6:
            eio.service_task_event.set()
        await asyncio.sleep(0)
        raise TimeoutError

    class Asyncio:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

    patched = Asyncio()
    patched.wait_for = wait_for  # type: ignore[attr-defined]
    monkeypatch.setattr(async_server, "asyncio", patched)
    for name in ("one", "two"):
        socket = AsyncSocket(eio, name)
        eio.sockets[name] = socket

        async def check_ping_timeout(name: str = name) -> bool:
            looks.append((name, sum(waited)))
            return True

        socket.check_ping_timeout = check_ping_timeout
    await eio._service_task()
    assert looks == [("one", 0), ("two", 10), ("one", 20), ("two", 30), ("one", 40), ("two", 50)]
    waited.clear()
    looks.clear()
    eio.sockets["one"].closing, eio.sockets["two"].closed = True, True
    await eio._service_task()
    assert looks == []
    assert list(eio.sockets) == ["one"]


# -- closing -------------------------------------------------------------------------------------------


def closes(eio: Any) -> tuple[Any, list[tuple[str, str, bool, bool]]]:
    """A socket whose ``disconnect`` handler notes the reason, ``closing`` and ``closed``."""
    socket = socket_of(eio)
    eio.sockets[socket.sid] = socket
    told: list[tuple[str, str, bool, bool]] = []

    async def disconnect(transport: str, reason: str) -> None:
        told.append((transport, reason, socket.closing, socket.closed))

    eio.on("disconnect", disconnect)
    return socket, told


@relies_on("engineio.AsyncSocket.close")
async def test_close_with_abort_runs_the_disconnect_handler_first_and_sends_no_close() -> None:
    """``closing`` is set first, so that ``is_open`` is false in the handler; ``closed`` comes after it."""
    socket, told = closes(made())
    await socket.close(wait=False, abort=True, reason="transport close")
    assert told == [("transport", "transport close", True, False)]
    assert socket.closed
    assert socket.queue.empty()


@relies_on("engineio.AsyncSocket.close")
async def test_close_waits_for_the_disconnect_handler() -> None:
    socket, _ = closes(made())
    gate = asyncio.Event()

    async def disconnect(transport: str, reason: str) -> None:
        await gate.wait()

    socket.server.on("disconnect", disconnect)
    task = asyncio.create_task(socket.close(wait=False, abort=True))
    await turns()
    assert (task.done(), socket.closing, socket.closed) == (False, True, False)
    gate.set()
    await task
    assert socket.closed


@relies_on("engineio.AsyncSocket.close")
async def test_a_socket_is_closed_once() -> None:
    socket, told = closes(made())
    await asyncio.gather(*(socket.close(wait=False, abort=True, reason=reason) for reason in ("first", "second")))
    await socket.close(wait=False, abort=True, reason="third")
    assert [reason for _, reason, *_ in told] == ["first"]


@relies_on("engineio.AsyncSocket.close")
async def test_close_without_abort_would_send_close() -> None:
    """JavaScript clients come back from it only after seconds: that is why transports are closed with ``abort``."""
    socket, _ = closes(made())
    await socket.close(wait=False)
    assert socket.queue.get_nowait().packet_type == CLOSE


@relies_on("engineio.AsyncSocket.close")
async def test_a_disconnect_handler_that_raises_keeps_no_socket_open() -> None:
    eio = made(logger=Log())
    socket, _ = closes(eio)

    async def disconnect(transport: str, reason: str) -> None:
        raise ValueError

    eio.on("disconnect", disconnect)
    await socket.close(wait=False, abort=True)
    assert socket.closed


@pytest.mark.parametrize("how", ["the client goes", "close"])
async def test_a_websocket_that_ends_closes_its_socket_for_transport_close(how: str) -> None:
    """The library calls it *lost*: its client may come back."""
    eio = made()
    reasons = []

    async def disconnect(transport: str, reason: str) -> None:
        reasons.append(reason)

    eio.on("disconnect", disconnect)
    client = await open_websocket(eio)
    if how == "close":  # as Transports.close does
        client.socket.queue.put_nowait(None)
        await client.socket.close(wait=False, abort=True, reason=eio.reason.TRANSPORT_CLOSE)
        client.socket.queue.put_nowait(None)
        await client.task
    else:
        await client.leave()
    assert reasons == [eio.reason.TRANSPORT_CLOSE]
    assert client.websocket.closed
    assert client.socket.sid not in eio.sockets


async def test_a_poll_that_waits_is_answered_when_its_transport_is_closed() -> None:
    """By an empty response, and the next one by an error, so the client opens another transport."""
    eio = made()
    socket = await open_polling(eio)
    waits = asyncio.create_task(eio.handle_request(environ(f"transport=polling&EIO=4&sid={socket.sid}")))
    await turns()
    socket.queue.put_nowait(None)
    await socket.close(wait=False, abort=True, reason=eio.reason.TRANSPORT_CLOSE)
    socket.queue.put_nowait(None)
    assert await waits == ("200 OK", b"")
    status, _ = await eio.handle_request(environ(f"transport=polling&EIO=4&sid={socket.sid}"))
    assert status.startswith("400")
    assert socket.sid not in eio.sockets


# -- WebSockets ----------------------------------------------------------------------------------------


@relies_on("engineio.AsyncSocket._websocket_handler")
@pytest.mark.parametrize("how", ["at once", "upgrade"])
async def test_a_websocket_is_handed_to_the_handler_of_the_socket(how: str) -> None:
    """It is replaced on the instance, and called with the driver's WebSocket, also for an upgrade."""
    eio = made()
    handed: list[tuple[Any, Any]] = []

    async def connect(transport: str, environ: Any) -> None:
        socket = eio.sockets[transport]
        original = socket._websocket_handler

        async def watched(websocket: Any) -> Any:
            handed.append((socket, websocket))
            return await original(websocket)

        socket._websocket_handler = watched

    eio.on("connect", connect)
    if how == "at once":
        client = await open_websocket(eio)
        socket, websocket, task = client.socket, client.websocket, client.task
    else:
        socket = await open_polling(eio)
        websocket, task = await upgrade(eio, socket.sid)
    assert handed == [(socket, websocket)]
    websocket.client_goes()
    await task


class Upgraded(asyncio.Queue[Any]):
    """A queue that notes whether its socket was upgraded, each time when somebody begins to wait."""

    socket: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    async def get(self) -> Any:
        self.seen.append(self.socket is not None and self.socket.upgraded)
        return await super().get()


@relies_on("engineio.AsyncSocket._websocket_handler")
async def test_upgraded_is_set_before_the_writer_of_a_websocket_starts() -> None:
    """The fast path is open once ``upgraded`` is set and somebody waits for the queue: that is the writer."""
    eio = made()
    eio.create_queue = Upgraded
    eio.on("connect", lambda transport, environ: setattr(Upgraded, "socket", eio.sockets[transport]))
    client = await open_websocket(eio)
    await until(lambda: client.socket.queue.seen, "a writer")
    assert all(client.socket.queue.seen)
    await client.leave()


@relies_on("engineio.AsyncSocket._websocket_handler", "engineio.AsyncSocket.poll")
async def test_while_a_client_upgrades_its_poll_ends_and_upgraded_follows() -> None:
    """A poll that waits is not the writer: ``upgraded`` is set when it has ended, and before the writer waits."""
    eio = made()
    eio.create_queue = Upgraded
    socket = await open_polling(eio)
    socket.queue.seen.clear()
    socket.queue.socket = socket
    waits = asyncio.create_task(eio.handle_request(environ(f"transport=polling&EIO=4&sid={socket.sid}")))
    await until(lambda: socket.queue.seen == [False], "a poll")
    websocket, task = await upgrade(eio, socket.sid)
    websocket.client_sends("2probe")
    await websocket.received("3probe")
    assert await waits == ("200 OK", b"6")
    assert not socket.upgraded
    assert await poll(eio, socket.sid) == str(NOOP)  # a further poll does not touch the queue
    assert socket.queue.seen == [False]
    websocket.client_sends("5")
    await until(lambda: len(socket.queue.seen) > 1, "a writer")
    assert socket.queue.seen == [False, True]
    assert socket.upgraded
    websocket.client_goes()
    await task


async def test_a_client_can_open_two_websockets_while_it_upgrades() -> None:
    """Then nobody knows with which it goes on: ``watch`` closes the fast path."""
    eio = made()
    socket = await open_polling(eio)
    first, task = await upgrade(eio, socket.sid)
    second, other = await upgrade(eio, socket.sid)
    assert isinstance(first, WebSocket)
    assert isinstance(second, WebSocket)
    assert first is not second
    for websocket in (first, second):
        websocket.client_sends("no probe")
    with pytest.raises(ValueError):
        await task
    with pytest.raises(ValueError):
        await other


async def test_messages_are_read_one_after_the_other() -> None:
    """Nothing is read while the handler of a message runs, and messages of one POST are handled in their order."""
    eio = made()
    gate = asyncio.Event()
    got: list[str] = []

    async def handler(transport: str, data: str) -> None:
        got.append(data)
        await gate.wait()

    eio.on("message", handler)
    client: Client = await open_websocket(eio)
    reads = client.websocket.reads
    client.websocket.client_sends("4a", "4b")
    await until(lambda: got, "a message")
    await turns()
    assert (got, client.websocket.reads) == (["a"], reads)
    gate.set()
    await until(lambda: len(got) == 2, "the next message")
    await client.leave()
    gate.clear()
    socket = await open_polling(eio)
    post = asyncio.create_task(
        eio.handle_request(environ(f"transport=polling&EIO=4&sid={socket.sid}", body="4c\x1e4d"))
    )
    await until(lambda: len(got) == 3, "a message")
    await turns()
    assert got == ["a", "b", "c"]
    gate.set()
    await post
    assert got == ["a", "b", "c", "d"]
