"""A partition: who waits for a position is told, and what is pinned is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from socketio_recovery.entries import EPOCH as NEW_EPOCH
from socketio_recovery.entries import Entry, Position
from socketio_recovery.partition import Partition
from socketio_recovery.reasons import RestartReason
from socketio_recovery.window import Window

from tests.support.logger import LOGGER

from .dispatching import (
    EPOCH,
    DispatchingNode,
    event,
)


async def test_waiting_for_positions() -> None:
    node = DispatchingNode()
    called: list[int] = []

    def note(n: int) -> Callable[[], None]:
        return lambda: called.append(n)

    for n in (3, 1, 2, 3, 0):
        node.partition.when(Position(EPOCH, n), note(n))
    assert called == [0]
    node.take(event())
    assert called == [0, 1]
    node.take(event(), event(), event())
    assert called == [0, 1, 2, 3, 3]
    async with asyncio.timeout(1):
        await node.extension.dispatched(Position(EPOCH, 4))
        waiting = asyncio.ensure_future(node.extension.dispatched(Position(EPOCH, 5)))
        await asyncio.sleep(0)
        assert not waiting.done()
        node.take(event())
        await waiting


def test_nothing_is_reached_before_the_start() -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    called: list[int] = []
    partition.when(Position(0, 0), lambda: called.append(0))
    assert called == []
    partition.restart(Position(EPOCH, 5), 0)
    partition.restarted(RestartReason.BOOT)
    assert called == [0]


def test_a_boot_leaves_those_waiting_who_wait_for_more() -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    called: list[int] = []
    partition.when(Position(EPOCH, 6), lambda: called.append(6))
    partition.when(Position(EPOCH, 5), lambda: called.append(5))
    partition.restart(Position(EPOCH, 5), 0)
    partition.restarted(RestartReason.BOOT)
    assert called == [5]


@pytest.mark.parametrize("why", [RestartReason.EPOCH, RestartReason.TRIMMED])
def test_after_a_restart_nobody_waits_for_what_will_not_come(why: RestartReason) -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    partition.restart(Position(EPOCH, 0), 0)
    called: list[int] = []
    partition.when(Position(EPOCH, 6), lambda: called.append(6))
    partition.restart(Position(EPOCH + 1, 1), 0)
    partition.restarted(why)
    assert called == [6]


def test_what_is_pinned_is_not_trimmed_for_its_age() -> None:
    partition = Partition(Window(10, 10**9), LOGGER)
    partition.restart(Position(EPOCH, 0), 0)

    def take(first: int, last: int) -> None:
        entries = [Entry(NEW_EPOCH, n, n) for n in range(first, last + 1)]
        for entry in entries:
            partition.window.append(entry)
        partition.dispatched(entries)

    partition.pin("a", 300)
    partition.pin("b", 700)
    take(1, 1000)
    assert partition.window.floor == 300
    partition.unpin("a")
    take(1001, 2000)
    assert partition.window.floor == 700
    partition.unpin("b")
    partition.unpin("nobody")
    take(2001, 3000)
    assert partition.window.floor > 2900
