"""A channel on a Redis server, for tests of the library's log and sessions."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from socketio_recovery.aio.log import Log
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import servers_of
from socketio_recovery.aio.script_calls import ScriptCalls
from socketio_recovery.aio.sessions import Sessions
from socketio_recovery.entries import Position
from socketio_recovery.redis.keys import Keys

from local.redis_server import RedisServer

from .waiting import PATIENCE

#: How long Redis may take, in seconds.
TIMEOUT = PATIENCE


def no_witness() -> Callable[[Position, int], None]:
    """For sessions without a log that was read before."""
    return lambda tail, ms: None


class RedisChannel:
    """A channel with a random name on a Redis server, and the library's objects that tests make for it.

    :param client: an asyncio client of the server: redis-py's, fakeredis's or the simulated one.
    :param server: the server, if it is a real one.
    """

    def __init__(self, client: Any, server: RedisServer | None) -> None:
        self.client = client
        self.server = server
        self.keys = Keys("test-" + uuid.uuid4().hex[:12])
        self.servers = servers_of(client, self.keys.log)
        self._links: list[RedisLink] = []
        self._calls: list[ScriptCalls] = []

    def link(self, timeout: float = TIMEOUT) -> RedisLink:
        """Opens a Redis link; :meth:`close` closes it."""
        link = RedisLink(self.servers, timeout)
        self._links.append(link)
        return link

    def calls(self, timeout: float = TIMEOUT) -> ScriptCalls:
        """Makes a queue of script calls on a link of its own; :meth:`close` closes both."""
        calls = ScriptCalls(self.link(timeout))
        self._calls.append(calls)
        return calls

    def log(self, retention: int = 60_000, max_length: int = 0, publish_timeout: float = TIMEOUT) -> Log:
        """Makes a log that only writes, until a :class:`tests.support.follower.Follower` follows it."""
        return Log(self.keys, self.link, None, retention, max_length, publish_timeout, logging.getLogger("test.log"))

    def sessions(
        self, node: str = "A", *, max_disconnection: int = 60_000, ttl: int = 60_000, lease: int = 60_000
    ) -> Sessions:
        return Sessions(self.calls(), self.keys, node, max_disconnection, ttl, lease, TIMEOUT, no_witness)

    async def entries(self) -> list[tuple[bytes, list[bytes]]]:
        """Returns the entries of the log as Redis stores them, oldest first."""
        items = await self.link().call("XRANGE", self.keys.log, "-", "+")
        return [(item[0], item[1]) for item in items]

    async def heads(self) -> list[str]:
        """Returns the heads of the log's entries, without the entries that begin an epoch."""
        heads = [fields[3].decode() for _, fields in await self.entries()]
        return [head for head in heads if head != '["epoch"]']

    async def numbers(self) -> list[int]:
        """Returns the numbers of the log's entries, oldest first."""
        return [int(id.partition(b"-")[2]) for id, _ in await self.entries()]

    async def record(self, sid: str) -> dict[bytes, bytes]:
        """Returns the session record, as Redis stores it."""
        record: dict[bytes, bytes] = await self.client.hgetall(self.keys.session(sid))
        return record

    async def now(self) -> int:
        """Returns the server's own time, in ms since 1970."""
        seconds, microseconds = await self.link().call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def until(self, ms: int) -> None:
        """Waits until the server's own time is later than ``ms``."""
        while await self.now() <= ms:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Closes what :meth:`link` and :meth:`calls` opened."""
        for calls in self._calls:
            await calls.close()
        for link in self._links:
            await link.close()
