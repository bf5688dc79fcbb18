"""Follows a log, for tests that look at what a node would learn from it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from socketio_recovery.aio.log import Log
from socketio_recovery.entries import Entry, Position
from socketio_recovery.partition import Partition
from socketio_recovery.reasons import RestartReason
from socketio_recovery.window import Window

from tests.support.logger import LOGGER


def partition(retention: int = 10**9, window_bytes: int = 1 << 30) -> Partition:
    """A partition that keeps everything."""
    return Partition(Window(retention, window_bytes), LOGGER)


class Follower:
    """Follows a log as a node does, and keeps what it is told: where the log starts anew, and the entries."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.starts: list[tuple[Position, RestartReason]] = []
        self.entries: list[Entry] = []

    @property
    def position(self) -> Position:
        """Up to where it has dispatched the log."""
        assert self.log.partition is not None
        return self.log.partition.position

    def restart(self, position: Position, why: RestartReason) -> None:
        assert self.log.partition is not None
        self.starts.append((position, why))
        self.log.partition.restart(position)
        self.log.partition.restarted(why)

    def dispatch(self, entries: Sequence[Entry]) -> None:
        assert self.log.partition is not None
        self.entries += entries
        for entry in entries:
            self.log.partition.window.append(entry)
        self.log.partition.dispatched(entries)

    def run(self) -> Awaitable[None]:
        """Follows the log for ever."""
        if self.log.partition is None:
            self.log.partition = partition()
        return self.log.follow(self)

    @property
    def numbers(self) -> list[int]:
        return [entry.n for entry in self.entries]

    @property
    def reasons(self) -> list[RestartReason]:
        return [why for _, why in self.starts]
