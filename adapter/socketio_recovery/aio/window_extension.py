"""Extending the window backwards, for clients that missed more than this node has in memory."""

from __future__ import annotations

import asyncio
import sys

from ..connections import Connection
from ..delivery import Delivery
from ..entries import Entry, Position
from ..errors import RedisUnavailable
from ..partition import Partition
from ..reasons import Outcome
from .log import Log


class WindowExtension:
    """Reads the stream backwards into a partition's window.

    :param timeout: how long this node may be behind a position that a client needs, in seconds.
    """

    def __init__(self, partition: Partition, delivery: Delivery, log: Log, timeout: float) -> None:
        self.partition = partition
        self.delivery = delivery
        self.log = log
        self.timeout = timeout
        self._extending: asyncio.Task[Outcome | None] | None = None
        self._wanted = sys.maxsize

    async def dispatched(self, position: Position) -> None:
        """Waits until this node has dispatched ``position``.

        :raises RedisUnavailable: if that takes longer than ``timeout`` seconds.
        """
        if self.partition.has_dispatched(position):
            return
        dispatched = asyncio.Event()
        self.partition.when(position, dispatched.set)
        try:
            async with asyncio.timeout(self.timeout):
                await dispatched.wait()
        except TimeoutError:
            raise RedisUnavailable(f"this node is more than {self.timeout:g} s behind the log") from None

    async def reach_back(self, connection: Connection, n: int) -> Outcome | None:
        """Extends the window so that it holds everything after number ``n``, and pins that for a connection.

        All clients that ask at the same time wait for the same reading of the stream.

        :returns: ``None`` if the window holds it now. Else why not: ``TRIMMED`` (the stream no longer has it) or
            ``LIMIT`` (it does not fit into the window).
        :raises RedisUnavailable: if Redis does not answer.
        """
        self.partition.pin(connection, n)
        window = self.partition.window
        while window.floor > n:
            self._wanted = min(self._wanted, n)
            if self._extending is None:
                self._extending = asyncio.create_task(self._extend(), name="socketio_recovery window extension")
            if failed := await asyncio.shield(self._extending):
                return None if window.floor <= n else failed
        return None

    async def _extend(self) -> Outcome | None:
        """Reads what is wanted of the log before the window; returns why there is no more, if so."""
        window, epoch = self.partition.window, self.partition.position.epoch
        failed: Outcome | None = Outcome.TRIMMED  # if the stream is read to its beginning

        def take(chunk: list[Entry]) -> bool:
            nonlocal failed
            if self.partition.position.epoch != epoch or window.floor != chunk[-1].n:
                failed = None  # the window was trimmed, or begun anew, meanwhile: clients ask again
                return False
            window.prepend([self.delivery.converted(entry) for entry in chunk])
            if window.full:
                window.trim()
                failed = Outcome.LIMIT
                return False
            if window.floor <= self._wanted:
                failed = None
                return False
            return True

        try:
            await self.log.backwards(epoch, window.floor, window.floor_ms, take)
            return failed
        finally:
            self._extending = None
            self._wanted = sys.maxsize
