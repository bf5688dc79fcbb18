"""What an application is told of participants, when entries come while Redis is being asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from socketio_recovery.aio.participant_changes import ParticipantChanges
from socketio_recovery.aio.tasks import KeyedQueue
from socketio_recovery.entries import CHANGED, CLOSE, ENTER, LEAVE, Room
from socketio_recovery.participants import Change, Found, Participant, ParticipantState
from socketio_recovery.partition import Partition
from socketio_recovery.window import Window

from tests.support.background import running
from tests.support.waiting import until

from .dispatching import moving

LOGGER = logging.getLogger("test")


class Redis:
    """In place of :class:`Participants`: answers with what is there when it is asked, once it may."""

    def __init__(self) -> None:
        self.rooms: dict[str, tuple[Room, ...]] = {}
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def members(self, namespace: str, rooms: Sequence[Room]) -> Any:
        return SimpleNamespace(standings=dict.fromkeys(self.rooms))

    async def find(self, namespace: str, sids: Sequence[str]) -> dict[str, Found]:
        self.asked += 1
        found = {
            sid: Found(Participant(sid, "A", ParticipantState.CONNECTED, 0, self.rooms[sid], {}), 0, False)
            for sid in sids
            if sid in self.rooms
        }
        await self.may_answer.wait()
        return found


@pytest.mark.parametrize("change", [CHANGED, CLOSE, LEAVE])
async def test_a_change_that_comes_while_redis_is_asked_is_told(change: str) -> None:
    store: Any = Redis()
    heartbeat: Any = SimpleNamespace(
        durations=SimpleNamespace(node_heartbeat=60_000), alive=["A"], now=1, watched_since=1, wake=lambda: None
    )
    changes = ParticipantChanges(store, heartbeat, Partition(Window(0, 0), LOGGER), KeyedQueue(LOGGER), LOGGER)
    told: list[tuple[str, str]] = []
    changes.observe("/", "red", lambda what, participant: told.append((what.value, participant.sid)))
    async with running(changes.run()):
        await changes.begun.wait()
        store.may_answer.clear()
        asked = store.asked
        store.rooms = {"s1": ("red",)}
        changes.changed(moving(ENTER, "s1", "red"))
        await until(lambda: store.asked > asked)
        store.rooms = {} if change == CHANGED else {"s1": ()}
        changes.changed(moving(change, "s1", "red"))
        store.may_answer.set()
        await until(lambda: len(told) == 2, lambda: str(told))
    assert told == [(Change.JOIN, "s1"), (Change.LEAVE, "s1")]
