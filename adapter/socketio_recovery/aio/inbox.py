"""Takes over what other programs put into the inbox (``inbox.py``), by one script for each batch (``take.lua``).

The script moves an entry from one stream to the other, or it does nothing; so no entry is lost or doubled, whichever
node dies when. Entries are read from the oldest one on, so what a batch leaves in the inbox comes after it.

One node at a time does it (``lease.py``). A node that does not follow the log takes nothing until it does.

A batch waits until this node has dispatched the one before, as one ``emit`` after the other would. So an inbox that is
full is emptied as fast as the node can work, and the log's reader and writer have their turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..entries import Position
from ..errors import RedisUnavailable, ReplyTooLarge
from ..inbox import read_inbox
from ..metrics import Metrics
from ..outside_event import Malformed
from ..read_size import ReadSize
from ..redis.keys import Keys
from ..redis.scripts import TAKE, Argument
from . import lease
from .lease import Lease
from .log import Log
from .redis_link import RedisLink
from .tasks import Backoff

#: Entries and bytes in one batch, roughly.
BATCH_COUNT = 256
BATCH_BYTES = 256 << 10
#: How many malformed entries are kept, and how many bytes of them, roughly.
KEPT, KEPT_BYTES = 1000, 16 << 20


class Inbox:
    """Takes over the events of other programs, on the node that has the lease.

    :param link: makes a dedicated connection; called with its default timeout in seconds.
    :param timeout: how long Redis may be silent, in seconds.
    """

    def __init__(
        self,
        keys: Keys,
        log: Log,
        link: Callable[[float], RedisLink],
        timeout: float,
        metrics: Metrics,
        logger: logging.Logger,
    ) -> None:
        self.keys = keys
        self.log = log
        self.timeout = timeout
        self.metrics = metrics
        self.logger = logger
        self.lease = Lease(keys.taker)
        self._link = link
        self._size = ReadSize(BATCH_COUNT, BATCH_BYTES)

    async def run(self) -> None:
        """Takes over what comes, for ever. To be run as a task."""
        link = self._link(self.timeout)
        backoff = Backoff()
        try:
            while True:
                try:
                    if not self._well or not await self.lease.held(link):
                        await asyncio.sleep(lease.LOOK)
                        continue
                    items = await self._read(link)
                    if items:
                        await self._take(link, items)
                        await asyncio.sleep(0)
                    backoff.reset()
                except ReplyTooLarge:
                    self._size.too_large()
                except RedisUnavailable as error:
                    self.logger.warning("can't take over the inbox, will try again: %s", error)
                    await backoff.wait()
        finally:
            try:
                await self.lease.give_up(link)
            finally:
                await link.close()

    @property
    def _well(self) -> bool:
        """Whether this node follows the log, and may write to it."""
        assert self.log.partition is not None
        cursor = self.log.partition.cursor
        return cursor.at is not None and not cursor.broken and self.log.refusal is None

    async def _read(self, link: RedisLink) -> Sequence[Any]:
        """The oldest entries; waits a while for one if there are none."""
        size = self._size
        reply = await link.call(
            *("XREAD", "COUNT", size.count, "BLOCK", int(lease.LOOK * 1000), "STREAMS", self.keys.inbox, "0"),
            timeout=lease.LOOK + self.timeout,
            limit=size.limit,
        )
        if not reply:
            return ()
        items: Sequence[Any] = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        size.read(items, link.received)
        return items

    async def _take(self, link: RedisLink, items: Sequence[Any]) -> None:
        """Moves entries to where they belong, and waits until this node has dispatched them.

        :raises RuntimeError: if Redis can't store one. It is still in the inbox then.
        """
        arguments: list[Argument] = [self.log.retention, self.log.max_length, KEPT, KEPT_BYTES, len(items)]
        problem, size = "", 0
        for id, fields in items:
            arguments.append(id)
            try:
                entry: Sequence[str | bytes] = read_inbox(fields, self.keys.partition, self.log.shards)
            except Malformed as error:
                problem = problem or f"{id.decode()}: {error}"
                arguments += (0, str(error))
            else:
                arguments += (len(entry), *entry)
                size += sum(map(len, entry))
        told = self.log.witness()
        keys = [self.keys.log, self.keys.meta, self.keys.inbox, self.keys.rejected]
        epoch, n, taken, aside, failure = await link.run(TAKE, keys, arguments)
        position = Position(int(epoch), int(n))
        told(position, 0)
        self.metrics.stored(int(taken), size if int(taken) else 0)
        if aside:
            self.logger.warning(
                "%d malformed entries of the inbox are set aside in %s; the first is %s",
                *(int(aside), self.keys.rejected, problem),
            )
        if failure:
            raise RuntimeError(f"Redis can't take an entry over from the inbox: {failure.decode(errors='replace')}")
        await self._dispatched(position)

    async def _dispatched(self, position: Position) -> None:
        assert self.log.partition is not None
        dispatched = asyncio.Event()
        self.log.partition.when(position, dispatched.set)
        with suppress(TimeoutError):  # the lease has gone to another node then, unless there is none
            async with asyncio.timeout(self.timeout):
                await dispatched.wait()
