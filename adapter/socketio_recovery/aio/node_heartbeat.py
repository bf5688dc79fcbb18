"""The heartbeat of a node: says that it lives, so that its clients count as connected."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from ..errors import RedisUnavailable
from ..participants import NodeState, node_number, read_nodes
from ..redis.keys import Keys
from ..redis.scripts import NODE_HEARTBEAT
from ..settings import Durations
from .script_calls import ScriptCalls


class NodeHeartbeat:
    """Sends heartbeats for this node, and knows the others by theirs.

    :param name: this node's name.
    :param watches: whether somebody on this node watches who comes and goes.
    :param timeout: how long a heartbeat may take, in seconds.
    """

    def __init__(
        self,
        calls: ScriptCalls,
        keys: Keys,
        name: str,
        durations: Durations,
        watches: Callable[[], bool],
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.calls = calls
        self.keys = keys
        self.name = name
        self.durations = durations
        self.timeout = timeout
        self.logger = logger
        self._watches = watches
        #: Redis's time at the last heartbeat (ms since 1970), and the nodes that were known then, by their numbers.
        self.now = 0
        self.nodes: dict[int, NodeState] = {}
        #: Since when changes of sessions have been written to the log without a break (ms, Redis's time).
        self.watched_since = 0
        self._sent_at = -math.inf
        self._wake = asyncio.Event()

    @property
    def alive(self) -> list[str]:
        """The names of the nodes that live, as far as this one knows."""
        return [node.name for node in self.nodes.values() if node.alive(self.now)]

    def wake(self) -> None:
        """Sends the next heartbeat at once."""
        self._wake.set()

    async def run(self) -> None:
        """Sends heartbeats, for ever. To be run as a task."""
        while True:
            self._wake.clear()
            try:
                await self.send()
            except RedisUnavailable as error:
                self.logger.warning("this node can't say that it lives, will try again: %s", error)
            try:
                async with asyncio.timeout(self.durations.node_heartbeat / 1000):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def send(self) -> None:
        """Sends a heartbeat.

        :raises RedisUnavailable: if Redis does not answer in time.
        """
        lease = self.durations.node_lease
        await self._send(lease, lease if self._watches() else 0)

    async def ensure(self) -> None:
        """Sends a heartbeat if the last one was so long ago that this node may count as dead, or if there was none.

        After an outage of Redis this comes before this node's questions, and the others do not count as dead either:
        see ``lua/node_heartbeat.lua``.

        :raises RedisUnavailable: if Redis does not answer in time.
        """
        if asyncio.get_running_loop().time() - self._sent_at > self.durations.node_lease / 1000:
            await self.send()

    async def leave(self) -> None:
        """This node has no clients any more, and ends.

        :raises RedisUnavailable: if Redis does not answer in time.
        """
        await self._send("", 0)

    async def _send(self, lease: int | str, watched: int) -> None:
        sent_at = asyncio.get_running_loop().time()
        now, since, *nodes = await self.calls.run(
            NODE_HEARTBEAT,
            [self.keys.nodes, self.keys.meta],
            [self.name, node_number(self.name), lease, self.durations.ttl, watched],
            self.timeout,
        )
        self._sent_at = sent_at
        self.now, self.nodes = int(now), read_nodes(nodes)
        self.watched_since = int(since)
