"""What synchronous servers do that ``threads/upstream`` relies on.

Their methods have the names and the parameters of those of asyncio servers, and are called at the same places, which
other modules of this folder say. Here is what is particular to threads, and that the two do agree.
"""

from __future__ import annotations

import queue
import socket as sockets
import threading
from collections.abc import Iterator
from typing import Any

import engineio
import pytest
import simple_websocket
import socketio
from engineio.packet import MESSAGE, NOOP, PING, PONG, Packet
from engineio.socket import Socket
from socketio_recovery import RedisStreamsManager
from socketio_recovery.aio.upstream.table import missing
from socketio_recovery.errors import HooksReplaced, UnsupportedVersion
from socketio_recovery.threads.upstream import table

from tests.support.waiting import PATIENCE

from .upstream import CallJournal


@pytest.fixture
def eio() -> Any:
    """An Engine.IO server, whose ``disconnect`` handler notes what it is told in ``server.ended``."""
    server = engineio.Server(async_mode="threading", monitor_clients=False, async_handlers=False)
    server.ended = []
    server.on("disconnect", lambda sid, reason: server.ended.append((sid, reason)))
    return server


@pytest.fixture
def socket(eio: Any) -> Any:
    found = Socket(eio, "transport")
    eio.sockets["transport"] = found
    return found


class FakeWebSocket:
    """A WebSocket that says what a test wants, and keeps what it is sent. ``None`` ends it."""

    def __init__(self) -> None:
        self.says: queue.Queue[str | None] = queue.Queue()
        self.sent: queue.Queue[str | bytes] = queue.Queue()

    def wait(self) -> str | None:
        return self.says.get(timeout=PATIENCE)

    def send(self, data: str | bytes) -> None:
        self.sent.put(data)

    def close(self) -> None:
        self.says.put(None)


def test_both_servers_have_what_the_table_says() -> None:
    table.verify()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Socket, "schedule_ping")
    monkeypatch.delattr(simple_websocket.ws.Base, "send")
    assert missing(table.RELIED_ON) == ["engineio.socket.Socket.schedule_ping"]
    with pytest.raises(UnsupportedVersion, match=r"simple-websocket \S+: it relies on .*schedule_ping; .*send"):
        table.verify()


def test_each_socket_takes_its_queue_from_create_queue(eio: Any) -> None:
    mine = queue.Queue[Any]()
    eio.create_queue = lambda: mine
    assert Socket(eio, "transport").queue is mine


def test_poll_takes_all_that_waits_and_none_ends_it(socket: Any) -> None:
    for text in "ab":
        socket.queue.put(Packet(MESSAGE, text))
    socket.queue.put(None)
    assert [packet.data for packet in socket.poll()] == ["a", "b"]
    assert socket.poll() == []


def test_poll_gives_up_by_the_exception_of_the_mode(eio: Any, socket: Any) -> None:
    assert eio.get_queue_empty_exception() is queue.Empty
    eio.ping_interval = eio.ping_timeout = 0.001
    with pytest.raises(engineio.exceptions.QueueEmpty):
        socket.poll()


def test_a_pong_schedules_the_next_ping_and_a_ping_is_sent_by_send(eio: Any, socket: Any) -> None:
    eio.ping_interval = 0
    journal = CallJournal()
    journal.watch(socket, "schedule_ping", "send")
    socket.last_ping = 1.0
    socket.receive(Packet(PONG))
    assert journal.calls[0][0] == "schedule_ping"
    assert socket.queue.get(timeout=PATIENCE).packet_type == PING
    assert [args[0].packet_type for args in journal.of("send")] == [PING]


def test_closing_tells_the_server_in_this_thread_and_ends_the_queue(eio: Any, socket: Any) -> None:
    where: list[int] = []
    eio.on("disconnect", lambda sid, reason: where.append(threading.get_ident()))
    socket.close(wait=False, abort=True, reason=eio.reason.TRANSPORT_CLOSE)
    assert where == [threading.get_ident()]
    assert socket.closed
    assert socket.queue.get_nowait() is None  # and no CLOSE before it
    assert socket.queue.empty()


def test_a_websocket_is_used_by_wait_send_and_close_alone(eio: Any, socket: Any) -> None:
    websocket = FakeWebSocket()
    served = threading.Thread(target=socket._websocket_handler, args=(websocket,))
    served.start()
    socket.queue.put(Packet(NOOP))
    assert websocket.sent.get(timeout=PATIENCE) == "6"
    socket.queue.put(None)
    served.join(PATIENCE)
    assert not served.is_alive()
    assert eio.ended == [("transport", eio.reason.TRANSPORT_CLOSE)]


def test_simple_websocket_sends_a_part_and_does_not_look() -> None:
    """That is why messages are sent past it. When this fails, it can be left to simple-websocket again."""

    class Slow:
        sent: list[int] = []  # noqa: RUF012

        def send(self, data: bytes) -> int:
            self.sent.append(1)
            return 1

    websocket = simple_websocket.Server.__new__(simple_websocket.Server)
    websocket.connected, websocket.sock = True, Slow()

    class Protocol:
        def send(self, event: Any) -> bytes:
            return b"a frame"

    websocket.ws = Protocol()
    websocket.send("text")
    assert Slow.sent == [1]


def test_a_duplicate_of_a_socket_writes_without_blocking_though_the_socket_blocks() -> None:
    from socketio_recovery.threads.upstream.websocket import SharedSocket

    ours, theirs = sockets.socketpair()
    with ours, theirs:
        shared = SharedSocket(ours, False)
        data = b"x" * (1 << 22)
        written = shared.write_now(data)
        assert 0 < written < len(data)
        assert shared.write_now(data) == 0
        shared.cut()
        with pytest.raises(BrokenPipeError):
            shared.write_now(data)
        shared.close()


# -- the manager and its server -------------------------------------------------------------------------


@pytest.fixture
def manager() -> Iterator[RedisStreamsManager]:
    manager = RedisStreamsManager("redis://127.0.0.1:1", publish_timeout=0.1)
    yield manager
    manager.close()


def test_a_server_of_asyncio_is_refused(manager: RedisStreamsManager) -> None:
    with pytest.raises(TypeError, match="use AsyncRedisStreamsManager"):
        socketio.AsyncServer(async_mode="asgi", client_manager=manager)


@pytest.mark.parametrize("mode", ["eventlet", "gevent_uwsgi"])
def test_other_modes_are_refused_and_it_says_what_to_use(mode: str) -> None:
    from socketio_recovery.threads.modes import mode_of

    with pytest.raises(ValueError, match=r"not supported: .*Use async_mode='threading'"):
        mode_of(mode)


def test_a_client_of_redis_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a URL"):
        RedisStreamsManager(object())  # type: ignore[arg-type]


def test_a_hook_that_was_replaced_is_named(manager: RedisStreamsManager) -> None:
    server = socketio.Server(async_mode="threading", client_manager=manager)
    server._handle_connect = type(server)._handle_connect.__get__(server)
    server.eio.on("message", type(server)._handle_eio_message.__get__(server))
    with pytest.raises(HooksReplaced, match=r"_handle_connect, the Engine\.IO handler of 'message' of"):
        manager.pre_connect("transport", "/")
