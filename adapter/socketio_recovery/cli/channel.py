"""Reads what a cluster keeps in Redis, and changes nothing: it runs no script, and no key is made."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..aio.redis_link import RedisLink, raised
from ..errors import ReplyTooLarge
from ..read_size import ReadSize
from ..redis.keys import Keys
from ..redis.scripts import Argument
from .errors import CommandError

#: Keys in one step of a scan.
STEP = 500
#: Bytes that one read of the log aims at.
READ_BYTES = 4 << 20
#: Steps of a scan for the names of other channels, at most.
LOOKS = 40


class Channel:
    """One channel in Redis.

    :param link: a connection of its own.
    :param keys: those of the partition that is looked into.
    :param shards: how many partitions there are.
    :param where: where Redis is, for messages.
    """

    def __init__(self, link: RedisLink, name: str, keys: Keys, shards: int, where: str) -> None:
        self.link = link
        self.name = name
        self.shards = shards
        self.where = where
        self.keys = keys
        self._size = ReadSize(STEP, READ_BYTES)

    async def call(self, *command: Argument, timeout: float | None = None) -> Any:
        return await self.link.call(*command, timeout=timeout)

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Several commands in one round trip."""
        return [raised(reply) for reply in await self.link.run_many([], *commands)] if commands else []

    async def now(self) -> int:
        """Redis's time, in ms since 1970."""
        seconds, micros = await self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def must_exist(self) -> None:
        """
        :raises CommandError: if no process has ever used the channel, or all that it had is gone.
        """
        if await self.call("HGET", self.keys.meta, "epoch") is not None or await self.call("XLEN", self.keys.log):
            return
        if self.keys.partition:
            raise CommandError(f"partition {self.keys.partition} of {self.name!r} was never used")
        others = await self._others()
        hint = f"there are: {', '.join(others)}" if others else "there are none here; is it another server or database?"
        raise CommandError(f"there is no channel {self.name!r} in {self.where}; {hint}")

    async def _others(self) -> list[str]:
        found: set[str] = set()
        cursor: Any = b"0"
        try:
            for _ in range(LOOKS):
                cursor, keys = await self.call("SCAN", cursor, "MATCH", "{*}:meta", "COUNT", 1000)
                found.update(key.decode(errors="replace")[1:-6] for key in keys)
                if cursor == b"0":
                    break
        except Exception:  # it is only a hint
            return []
        return sorted(found)

    async def scan(self, kind: str) -> AsyncIterator[list[bytes]]:
        """The keys of one kind (``"session"``, ``"producer"``), in steps. Some may come twice."""
        prefix = self.keys.session("").rpartition("session:")[0] + kind + ":"
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        cursor: Any = b"0"
        while True:
            cursor, keys = await self.call("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
            yield list(keys)
            if cursor == b"0":
                return

    async def read(self, after: str, block: float | None = None) -> Sequence[Any]:
        """The entries of the log behind an id: pairs (id, fields), as many as fit.

        :param block: how long to wait for one, in seconds.
        """
        waits = () if block is None else ("BLOCK", int(block * 1000))
        reply = await self._sized("XREAD", "COUNT", None, *waits, "STREAMS", self.keys.log, after, wait=block or 0)
        if not reply:
            return ()
        items: Sequence[Any] = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        return items

    async def read_back(self, before: str) -> Sequence[Any]:
        """The entries of the log before an id (``"+"``: the last ones), the last one first."""
        start = before if before == "+" else f"({before}"
        items: Sequence[Any] = await self._sized("XREVRANGE", self.keys.log, start, "-", "COUNT", None)
        return items

    async def _sized(self, *command: Any, wait: float = 0) -> Any:
        """A command whose ``None`` stands for a number of entries that is not too large."""
        size = self._size
        while True:
            full = [size.count if part is None else part for part in command]
            try:
                reply = await self.link.call(*full, timeout=wait + 10, limit=size.limit)
            except ReplyTooLarge:
                size.too_large()
                continue
            if command[0] != "XREAD":
                size.read(reply, self.link.received)
            return reply
