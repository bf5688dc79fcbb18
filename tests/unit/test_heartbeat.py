"""Which sessions a heartbeat refreshes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from socketio_recovery.aio.heartbeat import Heartbeats
from socketio_recovery.connections import Connection, Hold, State
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.metrics import NO_METRICS
from socketio_recovery.session_record import Heartbeat

from tests.support.logger import LOGGER


class Beats:
    """The heartbeats of a node, one second apart, and what they told Redis."""

    def __init__(self, *connections: Connection) -> None:
        self.told: list[list[str]] = []
        self.fails = False
        self.time = 1000.0
        for connection in connections:
            connection.kept_at = self.time
        nothing: Any = SimpleNamespace(finish=self.nothing, heartbeats=[], heartbeat=self.heartbeat)
        self.heartbeats = Heartbeats(
            *(list(connections), nothing, nothing, nothing, nothing),  # type: ignore[arg-type]
            lambda socket: None,
            1.0,
            NO_METRICS,
            LOGGER,
        )

    async def nothing(self) -> None: ...

    async def heartbeat(self, heartbeats: Sequence[Heartbeat]) -> dict[int, bool]:
        self.told.append([heartbeat.sid for heartbeat in heartbeats])
        if self.fails:
            raise RedisUnavailable("not now")
        return {}

    async def go(self, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[list[str]]:
        """Sends so many heartbeats; returns of whom each told."""
        self.told.clear()
        for _ in range(times):
            self.time += 1
            monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.time)
            try:
                await self.heartbeats._send()
            except RedisUnavailable:
                pass
            finally:
                monkeypatch.undo()
        return self.told


def connected(sid: str) -> Connection:
    connection = Connection(sid, "/", sid, None, "token")
    connection.state, connection.hold = State.CONNECTED, Hold.ACCEPTED
    connection.confirmed = connection.stored_confirmed = (10, 5)
    return connection


async def test_a_session_whose_client_is_idle_is_refreshed_with_every_third(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = connected("idle")
    beats = Beats(idle)
    idle.confirmed = (20, 5)  # the log goes on, and its client answers pings
    assert await beats.go(monkeypatch, 9) == [[], [], ["idle"]] * 3
    assert idle.stored_confirmed == (20, 5)


async def test_what_a_client_has_received_is_stored_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = connected("busy")
    beats = Beats(busy)
    for number in range(3):
        busy.confirmed = (20 + number, 6 + number)
        assert await beats.go(monkeypatch) == [["busy"]]
        assert busy.stored_confirmed == busy.confirmed
    assert await beats.go(monkeypatch, 3) == [[], [], ["busy"]]


async def test_a_closed_room_is_told_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    one = connected("one")
    beats = Beats(one)
    one.closed_rooms = ["red"]
    assert await beats.go(monkeypatch, 2) == [["one"], []]


async def test_the_first_pong_of_a_new_client_is_stored_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    new = connected("new")
    new.confirmed = new.stored_confirmed = None
    beats = Beats(new)
    assert await beats.go(monkeypatch) == [[]]
    new.confirmed = (1, 1)
    assert await beats.go(monkeypatch) == [["new"]]


async def test_after_a_failure_all_are_refreshed_that_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = Beats(connected("a"), connected("b"))
    beats.fails = True
    assert await beats.go(monkeypatch, 4) == [[], [], ["a", "b"], ["a", "b"]]
    beats.fails = False
    assert await beats.go(monkeypatch, 2) == [["a", "b"], []]


@pytest.mark.parametrize(("aspect", "value"), [("state", State.ARRIVED), ("hold", Hold.FORGOTTEN)])
async def test_a_session_that_is_not_this_nodes_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, aspect: str, value: Any
) -> None:
    one = connected("one")
    setattr(one, aspect, value)
    assert await Beats(one).go(monkeypatch, 3) == [[]] * 3
