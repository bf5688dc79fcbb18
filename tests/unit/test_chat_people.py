"""When the chat's list of people is made, and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from socketio_recovery import Participant, ParticipantState, RedisUnavailable

from chat import people
from chat.people import People
from tests.support.waiting import until


class Manager:
    """Stands in for the client manager: who is there, how often that was asked, and how often Redis is away."""

    def __init__(self) -> None:
        self.names = ["ann"]
        self.asked = 0
        self.failures = 0

    def on_participants(self, observer: Any) -> None:
        self.tell = observer

    async def participants(self) -> list[Participant]:
        self.asked += 1
        if self.asked <= self.failures:
            raise RedisUnavailable("away")
        data = [{"id": name, "name": name, "node": "a"} for name in self.names]
        return [Participant(str(i), "", ParticipantState.CONNECTED, 0, (), it) for i, it in enumerate(data)]


class Fixture:
    def __init__(self) -> None:
        self.manager = Manager()
        self.lists: list[list[str]] = []
        self.people = People(self.manager, self.show)  # type: ignore[arg-type]

    def start(self) -> None:
        self.task = asyncio.create_task(self.people.follow())

    async def show(self, shown: list[dict[str, Any]]) -> None:
        self.lists.append([person["name"] for person in shown])


@pytest.fixture
async def it(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fixture]:
    monkeypatch.setattr(people, "PAUSE", 0)
    fixture = Fixture()
    yield fixture
    fixture.task.cancel()
    with suppress(asyncio.CancelledError):
        await fixture.task


async def test_a_list_that_is_another_one_is_shown(it: Fixture) -> None:
    it.start()
    await until(lambda: it.lists == [["ann"]])
    it.people.look_again()
    await until(lambda: it.manager.asked == 2)
    it.manager.names = ["ann", "bob"]
    it.manager.tell("join", None)
    await until(lambda: it.manager.asked == 3)
    await until(lambda: it.lists == [["ann"], ["ann", "bob"]])
    assert it.people.count("here") == {"a": 2}
    assert (it.people.node_of("bob"), it.people.node_of("eve")) == ("a", None)


async def test_while_redis_is_away_it_asks_again(it: Fixture) -> None:
    it.manager.failures = 3
    it.start()
    await until(lambda: it.lists == [["ann"]])
    assert it.manager.asked == 4


async def test_changes_in_a_pause_are_one_list(it: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "PAUSE", 3600)
    it.start()
    await until(lambda: it.lists == [["ann"]])
    for name in ("bob", "eve"):
        it.manager.names = [*it.manager.names, name]
        it.people.look_again()
        await asyncio.sleep(0)
    assert it.manager.asked == 1


async def test_a_long_list_is_shown_in_part_and_counted_in_full(it: Fixture) -> None:
    it.manager.names = [str(i) for i in range(people.MAX_PEOPLE + 1)]
    it.start()
    await until(lambda: it.lists)
    assert len(it.lists[0]) == people.MAX_PEOPLE
    assert it.people.count("here").total() == people.MAX_PEOPLE + 1
