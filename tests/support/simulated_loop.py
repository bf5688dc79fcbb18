"""An asyncio event loop with simulated time: when all tasks wait, the time jumps to the next timer."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlock(Exception):
    """All tasks wait, and no timer is set: the loop could never go on."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs tasks in the order in which they become ready, and jumps from timer to timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self.set_exception_handler(self._failed)
        #: Errors of callbacks, and of tasks that no other task waited for.
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self._now += max(0.0, timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """Does nothing: there are no sockets, so there are no events."""

    def _write_to_self(self) -> None:
        """Does nothing: no other thread could wake up the loop."""

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context)
