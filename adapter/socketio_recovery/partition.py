"""A partition: one log as a node has it in memory.  No I/O.

It holds how far the log was read and dispatched, the recent part of it (the window), who waits until a position is
dispatched, and from which numbers on clients that are about to connect need the window (pins).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from .entries import Entry, Position
from .log_cursor import LogCursor
from .reasons import RestartReason
from .window import Window


class Partition:
    """One log, as this node follows it.

    :param window: is filled here as the log is read.
    """

    def __init__(self, window: Window, logger: logging.Logger) -> None:
        self.window = window
        self.cursor = LogCursor(logger)
        #: Everything up to here was dispatched on this node.
        self.position = Position(0, 0)
        #: When that entry was stored (ms since 1970, Redis's time); 0 if it was not read.
        self.ms = 0
        #: Whether this node follows the log.
        self.started = False
        self._waiters: list[tuple[Position, int, Callable[[], None]]] = []
        self._tie = count()
        self._pins: dict[object, int] = {}

    def restart(self, position: Position) -> None:
        """Nothing before ``position`` is known any more. :meth:`restarted` is to follow."""
        self.position = position
        self.ms = 0
        self.started = True
        self.window.reset(position.n)

    def restarted(self, why: RestartReason) -> None:
        """Tells who waits. Entries of another epoch won't be read any more: nobody must wait for them for ever."""
        while self._waiters and (why is not RestartReason.BOOT or self._waiters[0][0] <= self.position):
            heappop(self._waiters)[2]()

    def dispatched(self, entries: Sequence[Entry]) -> None:
        """These entries, which are in the window, were dispatched."""
        self.position = Position(self.position.epoch, entries[-1].n)
        self.ms = entries[-1].ms
        self.window.trim(min(self._pins.values(), default=sys.maxsize))
        while self._waiters and self._waiters[0][0] <= self.position:
            heappop(self._waiters)[2]()

    def has_dispatched(self, position: Position) -> bool:
        """Whether this node has dispatched ``position``."""
        return self.started and self.position >= position

    def holds(self, position: Position) -> bool:
        """Whether this node has dispatched ``position``, and has everything after it in its window."""
        here = self.position
        return position.epoch == here.epoch and self.window.floor <= position.n <= here.n and not self.cursor.broken

    def when(self, position: Position, done: Callable[[], None]) -> None:
        """Calls ``done`` once this node has dispatched ``position``."""
        if self.has_dispatched(position):
            done()
        else:
            heappush(self._waiters, (position, next(self._tie), done))

    def pin(self, holder: object, n: int) -> None:
        """The window keeps what is after number ``n``, until ``holder`` pins another number or unpins."""
        self._pins[holder] = n

    def unpin(self, holder: object) -> None:
        """``holder`` needs nothing more of the window."""
        self._pins.pop(holder, None)
