"""The watch over the log: how far this node is behind it, and whether it holds what clients may come back for."""

from __future__ import annotations

import asyncio
import logging
import math

from ..entries import Position
from ..errors import RedisUnavailable
from ..partition import Partition
from ..redis.keys import Keys
from ..redis.scripts import EXTENT
from ..retention import Extent, Retention, shortage
from .script_calls import ScriptCalls

#: How often it looks, in seconds.
EVERY = 2.0
#: How often it warns of the same, at most, in seconds.
WARNS_EVERY = 300.0


class LogWatch:
    """Asks Redis now and then where the log begins and ends, and notes how long it takes until this node is there.

    :param retention: how long entries are kept, in milliseconds.
    :param needed: how long clients may be away, in seconds.
    :param max_length: as it is set for this node; for the warning.
    :param timeout: how long to wait for Redis, in seconds.
    """

    def __init__(
        self,
        calls: ScriptCalls,
        keys: Keys,
        partition: Partition,
        retention: int,
        needed: float,
        max_length: int,
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.calls = calls
        self.keys = keys
        self.partition = partition
        self.needed = needed
        self.max_length = max_length
        self.timeout = timeout
        self.logger = logger
        self._retention = Retention(retention)
        self._lag = 0.0
        self._asked: float | None = None  # event loop time, seconds
        self._ahead = 0.0  # Redis's time less the event loop's, in milliseconds
        self._warned = -math.inf

    async def run(self) -> None:
        """Looks, for ever. To be run as a task."""
        try:
            await self._watch()
        finally:
            await self.calls.rest()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._asked is None:
                self._asked = loop.time()
            try:
                extent = await self._look()
            except RedisUnavailable as error:  # until the next look succeeds, the lag grows
                self.logger.debug("can't look how far the log reaches: %s", error)
            else:
                self._retention.note(extent)
                self._warn(extent, loop.time())
                await self._dispatched(Position(extent.epoch, extent.last))
                self._lag, self._asked = loop.time() - self._asked, None
            await asyncio.sleep(EVERY)

    async def _look(self) -> Extent:
        reply = await self.calls.run(EXTENT, [self.keys.log, self.keys.meta], [], self.timeout)
        extent = Extent(*map(int, reply))
        self._ahead = extent.now - asyncio.get_running_loop().time() * 1000
        return extent

    async def _dispatched(self, position: Position) -> None:
        if not self.partition.has_dispatched(position):
            dispatched = asyncio.Event()
            self.partition.when(position, dispatched.set)
            await dispatched.wait()

    def _warn(self, extent: Extent, now: float) -> None:
        reaches = self._retention.stream(extent.now)
        if reaches is None or reaches >= self.needed or now - self._warned < WARNS_EVERY:
            return
        self._warned = now
        held = extent.last - extent.lost
        self.logger.warning("%s", shortage(reaches, self.needed, held, self.max_length, self.keys.log))

    # -- what it has found, at a time of the event loop; any thread can ask ------------------------------

    def lag(self, now: float) -> float:
        """How long it took lately until this node had dispatched what was in the log, in seconds; or how long it has
        been waiting for that, or for Redis, if that is longer."""
        asked = self._asked
        return self._lag if asked is None else max(self._lag, now - asked)

    def stream(self, now: float) -> float | None:
        """How far back the log reaches, in seconds; see ``retention.py``."""
        return self._retention.stream(round(now * 1000 + self._ahead))

    def window(self, now: float) -> float | None:
        """How far back the window reaches, in seconds."""
        return self._retention.window(self.partition.window.floor, round(now * 1000 + self._ahead))
