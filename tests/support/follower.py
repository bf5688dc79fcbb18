"""Follows a log, for tests that look at what a node would learn from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from socketio_recovery.codec import Entry, Position
from socketio_recovery.log import Log


class Follower:
    """Follows a log as a node does, and keeps what it is told: where the log starts anew, and the entries."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.starts: list[tuple[Position, int, str]] = []
        self.entries: list[Entry] = []
        self.position: Position | None = None
        self._waiting: list[tuple[Position, Callable[[], None]]] = []

    def start(self, position: Position, ms: int, why: str) -> None:
        self.starts.append((position, ms, why))
        self.position = position
        self._release(self._waiting)

    def dispatch(self, entries: Sequence[Entry]) -> None:
        assert self.position is not None
        self.entries += entries
        self.position = Position(self.position.epoch, entries[-1].n)
        self._release([waiting for waiting in self._waiting if waiting[0] <= self.position])

    def _release(self, some: list[tuple[Position, Callable[[], None]]]) -> None:
        for waiting in list(some):
            self._waiting.remove(waiting)
            waiting[1]()

    def when(self, position: Position, done: Callable[[], None]) -> None:
        """Calls ``done`` when this position was dispatched, as the delivery does: for :attr:`Log.when_dispatched`."""
        if self.position is not None and self.position >= position:
            done()
        else:
            self._waiting.append((position, done))

    def run(self) -> Awaitable[None]:
        """Follows the log for ever."""
        return self.log.follow(self.start, self.dispatch)

    @property
    def numbers(self) -> list[int]:
        return [entry.n for entry in self.entries]

    @property
    def reasons(self) -> list[str]:
        return [why for _, _, why in self.starts]
