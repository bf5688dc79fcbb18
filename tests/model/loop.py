"""An event loop whose time is ours: it passes when nothing else is to be done, and at once."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlock(Exception):
    """Everything waits, and no timer is set."""


class Loop(asyncio.BaseEventLoop):
    """Runs tasks in the order in which they become ready; jumps from timer to timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self.set_exception_handler(self._failed)
        #: What went wrong in a callback, or in a task that nobody waited for.
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self._now += max(0.0, timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread."""

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context)
