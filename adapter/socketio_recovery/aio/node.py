"""The composition root: makes everything that a node is of, and starts and stops it.

Every part is given what it needs when it is made. Nothing is set from outside afterwards, but the hooks in
python-socketio's server, last; and the node's name, which it gets when it starts (``identity.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ..connections import AllConnections, Connections, NodeConnections
from ..errors import RedisUnavailable
from ..metrics import Metrics, Reading
from ..packets import Codec
from ..partition import Partition
from ..redis.eviction import eviction_policy, eviction_warning
from ..redis.keys import partition_of
from ..settings import Durations, Settings
from ..tracing import Tracing
from ..window import Window
from .life import Background
from .log import Log
from .membership_log import Move
from .participants import Participants
from .pubsub_bridge import PubSubBridge
from .pubsub_watch import PubSubWatch
from .shard import Place, Shard, Shards
from .tasks import KeyedQueue
from .upstream.engineio_transport import Transports
from .upstream.socketio_server import Hooks, SocketIOServer


class Node:
    """A process that serves clients.

    :param manager: the client manager; it is told of changes of rooms.
    :param server: a :class:`socketio.AsyncServer`.
    :param places: where the partitions are in Redis.
    :param codecs: the serialisations that entries may have, that of the server's clients first.
    :param transports: makes what looks after the transports of the Engine.IO server.
    :param pubsub_watch: looks for processes that were forgotten in the change to this library.
    :param pubsub_bridge: makes the bridge to processes with python-socketio's own managers.
    :param elsewhere: moves the clients of those processes between rooms.
    :raises UnsupportedVersion: if python-socketio or python-engineio lacks what this library relies on.
    """

    def __init__(
        self,
        manager: Any,
        server: Any,
        places: Sequence[Place],
        codecs: list[Codec],
        settings: Settings,
        metrics: Metrics,
        logger: logging.Logger,
        tracing: Tracing,
        transports: Callable[[Any, NodeConnections, KeyedQueue], Transports] = Transports,
        pubsub_watch: PubSubWatch | None = None,
        pubsub_bridge: Callable[[Log, Participants], PubSubBridge] | None = None,
        elsewhere: Callable[[Sequence[Move]], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.logger = logger
        self._link = places[0].link
        upstream = SocketIOServer(server)
        eio = server.eio
        durations = Durations.of(settings, eio.ping_interval + eio.ping_interval_grace_period, eio.ping_timeout)
        window = settings.window_bytes // len(places)
        parts = [Connections(Partition(Window(durations.retention, window), logger)) for _ in places]
        number = partial(partition_of, shards=len(places))
        self.connections: NodeConnections = parts[0] if len(parts) == 1 else AllConnections(parts, number)
        self.tasks = KeyedQueue(logger)
        self.transports = transports(eio, self.connections, self.tasks)
        self.background = Background(metrics, logger)
        all: list[Shard] = []
        self.shards = Shards(all, self.background)
        for place, connections in zip(places, parts, strict=True):
            shard = Shard(
                manager,
                upstream,
                self.transports,
                connections,
                self.tasks,
                place,
                all[0].log if all else None,
                self.shards.begin,
                codecs,
                settings,
                durations,
                metrics,
                logger,
                tracing,
                elsewhere,
            )
            all.append(shard)
        #: The shard for what belongs to no namespace: events between nodes, and how many partitions there are.
        self.first = first = all[0]
        self.hooks = Hooks(
            upstream, self.transports, self.connections, self.shards, settings.skip_connect_handler, logger
        )
        self.pubsub_bridge = pubsub_bridge(first.log, first.participants) if pubsub_bridge is not None else None
        self.pubsub_watch = pubsub_watch
        self.hooks.install()

    def start(self, name: str) -> None:
        """Starts the background tasks.

        :param name: this node's name in the cluster.
        """
        for shard in self.shards:
            shard.named(name)
            if shard is self.first or shard.changes:
                self.shards.begin(shard)
            self.shards.start(shard, {"watch for orphans": shard.orphans.watch})
        if self.pubsub_bridge is not None:
            self.pubsub_bridge.lease.node = name
            self.background.start(self.pubsub_bridge.tasks)
        if self.pubsub_watch is not None:
            self.background.start({"watch for publishers": self.pubsub_watch.run})
        self.background.once("look at Redis's memory", self._look_at_memory())

    async def _look_at_memory(self) -> None:
        """Warns once if Redis may remove keys. What goes wrong with that does no harm."""
        link = self._link(self.settings.publish_timeout)
        try:
            warning = eviction_warning(*eviction_policy(await link.call("INFO", "memory")))
        except Exception as error:  # INFO may be forbidden
            self.logger.debug("can't ask for maxmemory-policy: %s", error)
        else:
            if warning is not None:
                self.logger.warning("%s", warning)
        finally:
            await link.close()

    async def started(self) -> None:
        """Waits until this node follows the log, and knows who is there in the rooms that the application watches.

        :raises RedisUnavailable: if Redis does not answer within ``publish_timeout`` seconds.
        :raises LogRefused: if the log is not one for this process.
        """
        timeout = self.settings.publish_timeout
        for shard in self.shards:
            if shard.changes:
                self.shards.begin(shard)
        try:
            async with asyncio.timeout(timeout):
                for shard in self.shards.begun:
                    await shard.started()
        except TimeoutError:
            raise RedisUnavailable(f"Redis did not answer within {timeout:g} s") from None

    @property
    def draining(self) -> bool:
        """Whether this node is about to stop, and takes nobody in any more."""
        return self.first.connecting.draining

    def unhealthy_reasons(self, now: float) -> list[str]:
        """Why this node does not follow the log or takes no clients, at a time of its event loop."""
        reasons = [why for shard in self.shards.begun for why in shard.unhealthy_reasons(now)]
        if self.draining:
            reasons.append("it is draining: its clients are sent to other nodes")
        return reasons

    def log_lag(self, now: float) -> float:
        """How far this node is behind, at a time of its event loop, in seconds: in the partition where it is most."""
        return max((shard.log_watch.lag(now) for shard in self.shards.begun), default=0.0)

    @property
    def queued(self) -> int:
        """How many entries are queued and not sent yet."""
        return sum(shard.log.queued for shard in self.shards)

    def reading(self, healthy: bool, now: float) -> Reading:
        """How this node is, at a time of its event loop. Any thread can call it."""
        connections = self.connections
        shards = self.shards.begun
        connected = sum(
            len(connections.of(namespace).live.members(namespace, ())) for namespace in list(connections.namespaces())
        )
        return Reading(
            healthy,
            connected,
            sum(len(shard.connections.behind) for shard in shards),
            self.queued,
            self.log_lag(now),
            sum(len(shard.partition.window) for shard in shards),
            sum(shard.partition.window.bytes for shard in shards),
            _least(shard.log_watch.stream(now) for shard in shards),
            _least(shard.log_watch.window(now) for shard in shards),
            self.settings.max_disconnection_duration,
        )

    async def drain(self, over: float, timeout: float) -> None:
        """Closes all transports and keeps their sessions; see :meth:`AsyncRedisStreamsManager.drain`."""
        for shard in self.shards:
            shard.connecting.draining = shard.orphans.paused = True
        sockets = {connection.transport: connection.socket for connection in self.connections}
        for number, socket in enumerate(sockets.values()):
            if number and over:
                await asyncio.sleep(over / len(sockets))
            self.transports.close(socket)
        try:
            async with asyncio.timeout(timeout):
                while self.connections:
                    removed = asyncio.Event()
                    self.connections.when_removed(removed.set)
                    await removed.wait()
                await self.tasks.drained()
        except TimeoutError:
            self.logger.warning("draining, handlers are not done after %g s; going on without them", timeout)

    async def close(self) -> None:
        """Ends application code that runs, and tells Redis what is still to be told."""
        await self.tasks.cancel()
        await asyncio.gather(*(shard.close() for shard in self.shards))


def _least(found: Iterable[float | None]) -> float | None:
    """The least of those that are known."""
    return min((value for value in found if value is not None), default=None)
