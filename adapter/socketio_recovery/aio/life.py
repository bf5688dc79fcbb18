"""What a manager starts: background tasks in one process, on one event loop, and what they write to."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..metrics import NO_METRICS, Metrics
from .loop_delay import measure_loop_delay
from .tasks import cancelled, supervise

if TYPE_CHECKING:
    from .shard import Shards, Writing


class Background:
    """The background tasks of one manager. They can be started once there is an event loop."""

    def __init__(self, metrics: Metrics, logger: logging.Logger) -> None:
        self.metrics = metrics
        self.logger = logger
        #: The names of tasks that failed just now.
        self.failing: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def start(self, work: dict[str, Callable[[], Any]]) -> None:
        """Starts and supervises tasks, given by their names; with the first, what measures for the metrics."""
        if self._stopped:
            for name in work:
                self.logger.debug("the %s is not started: the manager is closed", name)
            return
        if not self._tasks and self.metrics is not NO_METRICS:
            work = {**work, "measuring": lambda: measure_loop_delay(self.metrics)}
        for name, run in work.items():
            coroutine = supervise(name, run, self.failing, self.metrics, self.logger)
            self._tasks.append(asyncio.create_task(coroutine, name=f"socketio_recovery {name}"))

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Starts a task that ends by itself."""
        self._tasks.append(asyncio.create_task(work, name=f"socketio_recovery {name}"))

    async def stop(self) -> None:
        """Cancels the tasks, and waits for their end. No others start after that."""
        self._stopped = True
        await cancelled(self._tasks)
        self._tasks.clear()


class Life:
    """A manager at work, from the first use on one event loop until that ends.

    Made in the event loop that it belongs to. It is one object, so that a thread which is given it never writes to the
    log of another thread's event loop.
    """

    __slots__ = ("_pid", "background", "loop", "shards")

    def __init__(self, shards: Shards[Any], background: Background) -> None:
        self.shards: Shards[Writing] = shards
        self.background = background
        self.loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether it belongs to the event loop that runs now, in this process."""
        return self.loop is asyncio.get_running_loop() and self._pid == os.getpid()

    @property
    def of_parent(self) -> bool:
        """Whether this process was forked from the one that it belongs to."""
        return self._pid != os.getpid()

    @property
    def over(self) -> bool:
        """Whether its event loop has ended, or runs in another process."""
        return self.of_parent or self.loop.is_closed()


#: What this process was forked with. It is kept, and never touched: if Python freed it, finalisers would close
#: connections of the parent, and take them out of the ``epoll`` that parent and child share.
_of_parents: list[object] = []


def keep(*what: object) -> None:
    """Keeps what belongs to the process that this one was forked from."""
    _of_parents.append(what)
