"""A partition: who waits for a position is told, and what is pinned is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from socketio_recovery.entries import JSON, Payload, Position
from socketio_recovery.errors import LogBroken
from socketio_recovery.partition import Partition
from socketio_recovery.reasons import RestartReason
from socketio_recovery.window import Window

from tests.support.logger import LOGGER

from .dispatching import (
    EPOCH,
    DispatchingNode,
    event,
)


def test_waiting_for_positions() -> None:
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


def test_nothing_is_reached_before_the_start() -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    called: list[int] = []
    partition.when(Position(0, 0), lambda: called.append(0))
    assert called == []
    assert not partition.has_dispatched(Position(0, 0))
    partition.restart(Position(EPOCH, 5))
    partition.restarted(RestartReason.BOOT)
    assert called == [0]
    assert partition.has_dispatched(Position(0, 0))


def test_a_boot_leaves_those_waiting_who_wait_for_more() -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    called: list[int] = []
    partition.when(Position(EPOCH, 6), lambda: called.append(6))
    partition.when(Position(EPOCH, 5), lambda: called.append(5))
    partition.restart(Position(EPOCH, 5))
    partition.restarted(RestartReason.BOOT)
    assert called == [5]


@pytest.mark.parametrize("why", [RestartReason.EPOCH, RestartReason.TRIMMED])
def test_after_a_restart_nobody_waits_for_what_will_not_come(why: RestartReason) -> None:
    partition = Partition(Window(1000, 1000), LOGGER)
    partition.restart(Position(EPOCH, 0))
    called: list[int] = []
    partition.when(Position(EPOCH, 6), lambda: called.append(6))
    partition.restart(Position(EPOCH + 1, 1))
    partition.restarted(why)
    assert called == [6]


def take(partition: Partition, first: int, last: int, size: int = 0) -> None:
    """Dispatches events with ``size`` bytes of data, stored one ms after the other."""
    entries = [event() for _ in range(first, last + 1)]
    for n, entry in enumerate(entries, first):
        entry.n = entry.ms = n
        entry.payload = Payload(JSON, b"x" * size, (), 0)
        partition.window.append(entry)
    partition.dispatched(entries)


@pytest.mark.parametrize("window", [Window(10, 10**9), Window(10**9, 10_000)], ids=["its age", "its size"])
def test_what_is_pinned_is_kept_whatever(window: Window) -> None:
    partition = Partition(window, LOGGER)
    partition.restart(Position(EPOCH, 0))
    partition.pin("a", 100)
    partition.pin("a", 300)
    partition.pin("b", 700)
    take(partition, 1, 1000, 1000)
    assert window.floor == 300
    partition.unpin("a")
    take(partition, 1001, 2000, 1000)
    assert window.floor == 700
    partition.unpin("b")
    partition.unpin("nobody")
    take(partition, 2001, 3000, 1000)
    assert window.floor > 2900


def test_a_position_is_held_while_everything_after_it_is_in_the_window() -> None:
    partition = Partition(Window(10**9, 10**9), LOGGER)
    partition.restart(Position(EPOCH, 5))
    partition.cursor.begin(RestartReason.BOOT, Position(EPOCH, 5), 5)
    take(partition, 6, 10)
    held = [n for n in range(15) if partition.holds(Position(EPOCH, n))]
    assert held == list(range(5, 11))
    assert not any(partition.holds(Position(epoch, 7)) for epoch in (EPOCH - 1, EPOCH + 1))
    partition.cursor.break_(LogBroken(EPOCH, "lost"))
    assert not partition.holds(Position(EPOCH, 7))
