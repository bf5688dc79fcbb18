"""How far a client is known to have received: by answered pings, not by the time that has passed."""

from __future__ import annotations

import engineio
import pytest
from engineio import async_socket, packet
from socketio_recovery.aio.tasks import KeyedQueue
from socketio_recovery.aio.upstream.engineio_transport import Transports
from socketio_recovery.connections import Connection, Connections
from socketio_recovery.entries import Position

from tests.support.follower import partition
from tests.support.logger import LOGGER

PING_INTERVAL, PING_TIMEOUT = 25, 20


class Clock:
    now = 100.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(async_socket, "time", clock)
    return clock


@pytest.fixture
async def socket(clock: Clock) -> async_socket.AsyncSocket:
    server = engineio.AsyncServer(async_mode="asgi", ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT)
    return async_socket.AsyncSocket(server, "transport")


async def test_a_dead_connection_outlives_ping_interval_and_timeout(
    socket: async_socket.AsyncSocket, clock: Clock
) -> None:
    """Engine.IO looks at a socket once per ``ping_timeout``: why passed time alone confirms nothing.

    The client answered the ping of 75 and died at 93. The ping of 100 stays unanswered. Engine.IO looks at
    119.9, just too early, and then not before 139.8. At 139, what was sent at 94 is older than interval and
    timeout, the connection is open, and the client never got it.
    """
    socket.last_ping = 100.0
    clock.now = 119.9
    assert await socket.check_ping_timeout()
    sent_at, clock.now = 94.0, 139.0
    assert clock.now - sent_at >= PING_INTERVAL + PING_TIMEOUT
    assert not socket.closed
    clock.now = 119.9 + PING_TIMEOUT
    assert not await socket.check_ping_timeout()


class Watched:
    """A transport that is watched, and its only connection, which is live."""

    def __init__(self, socket: async_socket.AsyncSocket) -> None:
        socket.server.start_background_task = lambda work: None
        self.partition = partition()
        self.partition.restart(Position(1, 0))
        self.connections = Connections(self.partition)
        Transports(socket.server, self.connections, KeyedQueue(LOGGER)).watch(socket)
        self.connection = Connection("sid", "/", "transport", socket, "token")
        self.connection.epoch = 1
        self.connections.arrive(self.connection)
        self.connections.add(self.connection)
        self.connections.go_live(self.connection)

    def at(self, n: int, sent: int) -> None:
        """The node has dispatched entry ``n``; the last offset that the client was given is ``sent``."""
        self.partition.position, self.connection.sent = Position(1, n), sent


async def test_what_was_sent_before_an_answered_ping_is_confirmed(socket: async_socket.AsyncSocket) -> None:
    watched = Watched(socket)
    socket.last_ping = 100.0
    watched.at(7, sent=5)
    await socket.send(packet.Packet(packet.PING))
    watched.at(9, sent=8)  # sent after the ping
    assert watched.connection.confirmed is None
    await socket.receive(packet.Packet(packet.PONG))
    assert watched.connection.confirmed == (7, 5)


async def test_a_ping_that_is_not_answered_confirms_nothing(socket: async_socket.AsyncSocket) -> None:
    watched = Watched(socket)
    socket.last_ping = None
    watched.at(7, sent=0)
    await socket.send(packet.Packet(packet.PING))
    await socket.receive(packet.Packet(packet.PONG))  # nobody has asked: Engine.IO counts no ping as open
    assert watched.connection.confirmed is None
