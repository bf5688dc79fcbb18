"""Work of the cluster that one node does at a time. Who does it has a lease in Redis, and renews it.

A lease only saves work. A node that was frozen may still take itself for the one that has it, so what is done must be
right even if two nodes do it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ..redis.scripts import LEASE
from .redis_link import RedisLink

#: How long a node has a lease after it last said so, in seconds. Another one takes over within this and LOOK.
LEASE_TIME = 3.0
#: How often the others ask for it, and how often the node that has it says so, in seconds.
LOOK = 1.0


class Lease:
    """One lease, as one node sees it.

    :param key: where it is in Redis.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        #: This node's name.
        self.node = ""
        self._renewed: float | None = None  # when this node last got it (event loop time, seconds)

    async def held(self, link: RedisLink) -> bool:
        """Asks for the lease, or renews it, unless it did so a moment ago; returns whether this node has it."""
        now = asyncio.get_running_loop().time()
        if self._renewed is None or now - self._renewed >= LOOK:
            has = await link.run(LEASE, [self.key], [self.node, round(LEASE_TIME * 1000)])
            self._renewed = now if has else None
        return self._renewed is not None

    async def give_up(self, link: RedisLink) -> None:
        """Another node may have it at once. If Redis can't be told, it is over soon."""
        if self._renewed is not None:
            self._renewed = None
            with suppress(Exception):
                await link.run(LEASE, [self.key], [self.node, 0])
