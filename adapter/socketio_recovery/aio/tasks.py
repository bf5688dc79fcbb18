"""Background tasks that do not die silently, and work that has to be done in order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any

from ..metrics import Metrics

#: How long a task may take to end until it is cancelled once more, in seconds.
AGAIN = 0.2


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels endless tasks, and waits for their end.

    A library may swallow a cancellation: redis-py sends commands through :func:`asyncio.wait_for`, which does so in
    Python 3.11 if what it waits for ends in the same moment. So a task that goes on is cancelled once more.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)


class Backoff:
    """Waiting times that double from ``first`` to ``most`` seconds, each with jitter."""

    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self.first = first
        self.most = most
        self._next = first

    def reset(self) -> None:
        self._next = self.first

    async def wait(self) -> None:
        await asyncio.sleep(self._next * random.uniform(0.5, 1.0))  # noqa: S311
        self._next = min(self._next * 2, self.most)


#: How long a task has to run without a failure until it counts as healthy again, in seconds.
STEADY = 5.0


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], failing: set[str], metrics: Metrics, logger: logging.Logger
) -> None:
    """Runs ``run`` for ever: what it raises is logged, and it is started again.

    :param failing: holds ``name`` from a failure on until the task has run for :data:`STEADY` seconds.
    """
    backoff = Backoff(first=0.1, most=5.0)
    while True:
        well = asyncio.get_running_loop().call_later(STEADY, failing.discard, name)
        try:
            await run()
        except Exception:
            failing.add(name)
            metrics.failed(name)
            logger.exception("the %s failed; starting it again", name)
            await backoff.wait()
        finally:
            well.cancel()


class KeyedQueue:
    """Runs coroutines one after the other for each key, and side by side for different keys."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self._last: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Runs ``work`` after what was started before with the same key. What it raises is logged."""
        before = self._last.get(key)

        async def run() -> None:
            if before is not None:
                await asyncio.wait([before])
            try:
                await work()
            except Exception:
                self.logger.exception("application code for %s failed", key)
            finally:
                if self._last.get(key) is task:
                    del self._last[key]

        task = asyncio.create_task(run())
        self._last[key] = task
        return task

    async def drained(self) -> None:
        """Waits until nothing runs."""
        while self._last:
            await asyncio.wait(list(self._last.values()))

    async def cancel(self) -> None:
        """Cancels what runs."""
        tasks = list(self._last.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
