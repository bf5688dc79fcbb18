"""Script calls of many tasks over one link to Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import RedisUnavailable
from ..redis.scripts import Argument, Call, Script
from .redis_link import RedisLink, raised
from .tasks import Backoff, cancelled


class ScriptCalls:
    """Sends the script calls that wait together, in one round trip.

    It is for scripts that may be run again when their reply was lost. Unlike a connection pool, it has no limit that
    could be exceeded: a thousand clients that return at once are a few round trips.

    :param link: used by this object alone.
    :param most: calls in one round trip, at most.
    """

    def __init__(self, link: RedisLink, most: int = 500) -> None:
        self._link = link
        self._most = most
        self._waiting: deque[tuple[Call, asyncio.Future[Any]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], timeout: float) -> Any:
        """Runs a script, again if its reply was lost.

        :raises RedisUnavailable: if there was no reply within ``timeout`` seconds.
        """
        if self._closed:
            raise RedisUnavailable("this manager is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(((script, keys, arguments), future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="socketio_recovery calls")
        try:
            async with asyncio.timeout(timeout):
                return raised(await future)
        except TimeoutError:
            raise RedisUnavailable(f"Redis did not answer within {timeout:g} s") from None

    async def _work(self) -> None:
        backoff = Backoff()
        batch: list[tuple[Call, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                batch = []
                while self._waiting and len(batch) < self._most:
                    call = self._waiting.popleft()
                    if not call[1].done():  # nobody waits for it any more
                        batch.append(call)
                if not batch:
                    continue
                try:
                    replies = await self._link.run_many([call for call, _ in batch])
                except RedisUnavailable:
                    self._waiting.extendleft(reversed(batch))
                    await backoff.wait()
                    continue
                except Exception as error:
                    if len(batch) > 1:  # one call has an argument that can't be sent: the others must not fail for it
                        for waiting in batch:
                            await self._alone(*waiting)
                        continue
                    replies = [error]
                backoff.reset()
                for (_, future), reply in zip(batch, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
        except asyncio.CancelledError:  # the event loop ends, or this is closed
            await self._link.close()
            raise
        finally:
            self._worker = None
            self._end(batch)

    async def _alone(self, call: Call, future: asyncio.Future[Any]) -> None:
        try:
            reply = (await self._link.run_many([call]))[0]
        except RedisUnavailable:
            self._waiting.append((call, future))
            return
        except Exception as error:
            reply = error
        if not future.done():
            future.set_result(reply)

    async def rest(self) -> None:
        """Closes the link if nothing uses it; the next call opens it again. For when the event loop may be ending."""
        if self._worker is None:
            await self._link.close()

    async def close(self) -> None:
        """Ends all calls that wait, with :class:`RedisUnavailable`, and closes the link."""
        self._closed = True
        if self._worker is not None:
            await cancelled([self._worker])
        self._end(self._waiting)
        self._waiting.clear()
        await self._link.close()

    @staticmethod
    def _end(calls: Iterable[tuple[Call, asyncio.Future[Any]]]) -> None:
        """Tells who still waits that nothing will come."""
        for _, future in calls:
            if not future.done():
                future.set_exception(RedisUnavailable("this manager is closed"))
