"""How far a client is known to have received: by answered pings, not by the time that has passed."""

from __future__ import annotations

import logging
from typing import Any

import engineio
import pytest
from engineio import async_socket, packet
from socketio_recovery.codec import Position
from socketio_recovery.delivery import Connection, Delivery
from socketio_recovery.handshake import Handshake
from socketio_recovery.window import Window

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


@pytest.fixture
def delivery() -> Delivery:
    delivery = Delivery(Window(60_000, 1 << 20), "node", 100, lambda socket: None, logging.getLogger("test"))
    delivery.cursor = Position(1, 0)
    return delivery


def connected(delivery: Delivery, socket: Any) -> Connection:
    connection = Connection("sid", "/", "transport", socket, "token")
    connection.epoch = delivery.cursor.epoch
    delivery.arrive(connection)
    delivery.add(connection)
    connection.live = True
    return connection


async def test_what_was_sent_before_an_answered_ping_is_confirmed(
    socket: async_socket.AsyncSocket, delivery: Delivery
) -> None:
    handshake = object.__new__(Handshake)
    handshake.delivery = delivery
    handshake._watch(socket)
    connection = connected(delivery, socket)
    socket.server.start_background_task = lambda work: None

    socket.last_ping = 100.0
    connection.sent, delivery.cursor = 5, Position(1, 7)
    await socket.send(packet.Packet(packet.PING))
    connection.sent, delivery.cursor = 8, Position(1, 9)  # sent after the ping
    assert connection.confirmed is None
    await socket.receive(packet.Packet(packet.PONG))
    assert connection.confirmed == (7, 5)


async def test_a_ping_that_is_not_answered_confirms_nothing(
    socket: async_socket.AsyncSocket, delivery: Delivery
) -> None:
    handshake = object.__new__(Handshake)
    handshake.delivery = delivery
    handshake._watch(socket)
    connection = connected(delivery, socket)
    socket.server.start_background_task = lambda work: None
    socket.last_ping = None
    delivery.cursor = Position(1, 7)
    await socket.send(packet.Packet(packet.PING))
    await socket.receive(packet.Packet(packet.PONG))  # nobody has asked: Engine.IO counts no ping as open
    assert connection.confirmed is None
