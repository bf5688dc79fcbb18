"""Reads from the stream what clients missed and the window no longer holds; see ``socketio_recovery/look_back.py``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..connections import Connection, Flow
from ..delivery import Delivery
from ..errors import RedisUnavailable, ReplyTooLarge
from ..look_back import Audience, Audiences
from ..partition import Partition
from ..read_size import ReadSize
from ..redis.keys import Keys
from ..redis.scripts import SEEK
from .redis_link import RedisLink
from .tasks import Backoff, cancelled
from .upstream.engineio_transport import is_open

#: Entries in one slice at most, and bytes roughly: other clients wait while a slice is parsed.
SLICE_COUNT, SLICE_BYTES = 256, 256 << 10


class LookBack:
    """Brings clients to where the window begins.

    :param link: makes a dedicated connection to Redis; called with its timeout in seconds.
    :param timeout: how long Redis may be silent, in seconds.
    """

    def __init__(
        self,
        partition: Partition,
        delivery: Delivery,
        keys: Keys,
        link: Callable[[float], RedisLink],
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.partition = partition
        self.delivery = delivery
        self.keys = keys
        self.logger = logger
        self._link = link(timeout)
        #: How much of the stream is read at once.
        self.size = ReadSize(SLICE_COUNT, SLICE_BYTES)
        self._audiences = Audiences()
        self._waiting: dict[Connection, asyncio.Future[None]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def bring(self, connection: Connection) -> None:
        """Sends a client what the stream holds of what it missed.

        Returns when the window holds what comes next, when the client has enough to read for now, or when there is no
        use in going on. While Redis does not answer, it waits.

        :raises LookupError: if the log was trimmed past the client.
        :raises RedisUnavailable: once this is closed.
        """
        if self._closed:
            raise RedisUnavailable("this manager is closed")
        self._waiting[connection] = future = asyncio.get_running_loop().create_future()
        self._audiences.add(connection)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="socketio_recovery look back")
        try:
            await future
        finally:
            self._audiences.remove(connection)
            del self._waiting[connection]

    async def _work(self) -> None:
        backoff = Backoff()
        try:
            while (audience := self._audiences.next()) is not None:
                try:
                    await self._slice(audience)
                    backoff.reset()
                except LookupError as error:
                    self._let_go(audience, error)
                except ReplyTooLarge:
                    self.size.too_large()
                except RedisUnavailable as error:
                    self.logger.warning("can't look back in the log, will try again: %s", error)
                    self._let_go(audience)  # those who have gone meanwhile
                    await backoff.wait()
                except Exception:
                    self.logger.exception("looking back in the log failed")
                    self._let_go(audience, LookupError("it could not be read"))
                await asyncio.sleep(0)  # others have their turn
        finally:
            self._worker = None
            await self._link.close()

    async def _slice(self, audience: Audience) -> None:
        epoch = self.partition.position.epoch
        if audience.after < self.partition.window.floor:
            keys = self.keys
            if audience.id:
                start = "(" + audience.id
            else:
                start = (await self._link.run(SEEK, [keys.log, keys.meta], [epoch, audience.after + 1])).decode()
                if not start:
                    raise LookupError("it holds nothing that comes next")
            limit = self.size.limit
            items = await self._link.call("XRANGE", keys.log, start, "+", "COUNT", self.size.count, limit=limit)
            if self.partition.position.epoch == epoch:  # else all connections were closed meanwhile
                if not items:
                    raise LookupError("it holds nothing that comes next")
                self.size.read(items, self._link.received)
                self.delivery.look_back(
                    audience, self._audiences.slice(audience, items, epoch, self.partition.position.n)
                )
        self._let_go(audience)

    def _let_go(self, audience: Audience, error: LookupError | None = None) -> None:
        """Lets those go on who are to go on, or all if there was an error."""
        there = audience.after >= self.partition.window.floor
        for connection in list(audience.connections):
            if error or there or self._pauses(connection):
                audience.remove(connection)
                future = self._waiting[connection]
                if not future.done():
                    if error:
                        future.set_exception(error)
                    else:
                        future.set_result(None)

    def _pauses(self, connection: Connection) -> bool:
        socket = connection.socket
        if connection.flow is not Flow.BEHIND or not is_open(socket):
            return True
        return not socket.queue.holds(self.delivery.slice // 2, self.delivery.slice_bytes // 2)

    async def close(self) -> None:
        """Ends the reading; who waits is told."""
        self._closed = True
        if self._worker is not None:
            await cancelled([self._worker])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RedisUnavailable("this manager is closed"))
