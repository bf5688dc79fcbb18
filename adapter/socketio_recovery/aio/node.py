"""The composition root: makes everything that a node is of, and starts and stops it.

Every part is given what it needs when it is made. Nothing is set from outside afterwards, but the hooks in
python-socketio's server, last; and the node's name, which it gets when it starts (``identity.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from ..connections import Connection, Connections
from ..delivery import Delivery
from ..entries import Position, Room
from ..errors import RedisUnavailable, UnsupportedFormat
from ..metrics import Metrics, Reading
from ..packets import Codec
from ..partition import Partition
from ..redis.eviction import eviction_policy, eviction_warning
from ..redis.keys import Keys
from ..settings import Durations, Settings
from ..tracing import Tracing
from ..window import Window
from .callbacks import Callbacks
from .catch_up import CatchUp
from .connecting import Connecting
from .heartbeat import Heartbeats
from .inbox import Inbox
from .leaving import Leaving
from .life import Background
from .log import ATTEMPTS, READ_BLOCK, Log
from .log_watch import LogWatch
from .look_back import LookBack
from .membership_log import MembershipLog, Move
from .node_heartbeat import NodeHeartbeat
from .orphans import Orphans
from .participant_changes import ParticipantChanges
from .participants import Participants
from .pubsub_bridge import PubSubBridge
from .pubsub_watch import PubSubWatch
from .redis_link import RedisLink
from .script_calls import ScriptCalls
from .server_side import ServerSide
from .session_data import SessionData
from .session_endings import SessionEndings
from .sessions import Sessions
from .tasks import KeyedQueue
from .upstream.engineio_transport import Transports
from .upstream.socketio_server import Hooks, SocketIOServer

#: How long Redis may be silent while this node reads the log, in seconds.
SILENCE = 2 * READ_BLOCK + 1


class _Effects:
    """What entries of the log cause on this node; see :class:`Effects`."""

    def __init__(
        self,
        manager: Any,
        transports: Transports,
        leaving: Leaving,
        callbacks: Callbacks,
        changes: ParticipantChanges,
        server_side: ServerSide,
        logger: logging.Logger,
    ) -> None:
        self.close_transport = transports.close
        self.disconnect = leaving.start_disconnect
        self.answer = callbacks.answered
        self.participants = changes.changed
        self.server_side = server_side.received
        self._manager = manager
        self._logger = logger

    def entered(self, connection: Connection, room: Room) -> None:
        self._tell(self._manager.basic_enter_room, connection.sid, connection.namespace, room, connection.transport)

    def left(self, connection: Connection, room: Room) -> None:
        self._tell(self._manager.basic_leave_room, connection.sid, connection.namespace, room)

    def _tell(self, observer: Callable[..., Any], *arguments: Any) -> None:
        try:
            observer(*arguments)
        except Exception:  # others wrap these methods; their mistakes must not change what the log says
            self._logger.exception("an observer of rooms failed")


class Node:
    """A process that serves clients.

    :param manager: the client manager; it is told of changes of rooms.
    :param server: a :class:`socketio.AsyncServer`.
    :param link: makes a dedicated connection to Redis; called with its default timeout in seconds.
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
        keys: Keys,
        link: Callable[[float], RedisLink],
        codecs: list[Codec],
        settings: Settings,
        metrics: Metrics,
        logger: logging.Logger,
        tracing: Tracing,
        transports: Callable[[Any, Connections, KeyedQueue], Transports] = Transports,
        pubsub_watch: PubSubWatch | None = None,
        pubsub_bridge: Callable[[Log, Participants], PubSubBridge] | None = None,
        elsewhere: Callable[[Sequence[Move]], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.logger = logger
        self._link = link
        upstream = SocketIOServer(server)
        eio = server.eio
        durations = Durations.of(settings, eio.ping_interval + eio.ping_interval_grace_period, eio.ping_timeout)

        self.partition = Partition(Window(durations.retention, settings.window_bytes), logger)
        self.connections = Connections(self.partition)
        self.tasks = KeyedQueue(logger)
        self.transports = transports(eio, self.connections, self.tasks)
        self.log = Log(
            keys,
            link,
            self.partition,
            durations.retention,
            settings.max_length,
            settings.publish_timeout,
            logger,
            metrics,
        )
        calls = ScriptCalls(link(settings.handshake_timeout / ATTEMPTS))
        self.sessions = Sessions(
            calls,
            keys,
            "",
            durations.max_disconnection,
            durations.ttl,
            durations.lease,
            settings.handshake_timeout,
            self.log.witness,
        )
        self.membership = MembershipLog(self.log, keys, elsewhere)
        self.callbacks = Callbacks("", self.log, codecs[0], self.tasks)
        self.server_side = ServerSide(self.log, codecs[0], self.tasks, logger)
        timeout = settings.handshake_timeout
        self.node_heartbeat = NodeHeartbeat(calls, keys, "", durations, lambda: bool(self.changes), timeout, logger)
        self.participants = Participants(calls, keys, timeout, self.node_heartbeat)
        self.endings = SessionEndings(self.sessions, self.participants, logger)
        self.leaving = Leaving(
            upstream,
            self.connections,
            self.sessions,
            self.endings,
            self.membership,
            self.tasks,
            metrics,
            logger,
        )
        self.changes = ParticipantChanges(self.participants, self.node_heartbeat, self.partition, self.tasks, logger)
        effects = _Effects(
            manager, self.transports, self.leaving, self.callbacks, self.changes, self.server_side, logger
        )
        self.delivery = Delivery(
            self.partition,
            self.connections,
            codecs,
            effects,
            "",
            settings.max_queue,
            settings.max_queue_bytes,
            logger,
            metrics,
            tracing,
        )
        self.look_back = LookBack(
            self.partition, self.delivery, keys, link, settings.publish_timeout / ATTEMPTS, logger
        )
        self.catch_up = CatchUp(
            self.delivery,
            self.look_back,
            self.transports.close,
            self.leaving.start_disconnect,
            self.endings.damaged,
            logger,
            metrics,
        )
        self.connecting = Connecting(
            upstream,
            self.transports,
            self.partition,
            self.connections,
            self.sessions,
            self.endings,
            self.leaving,
            self.tasks,
            settings.can_recover,
            settings.handshake_timeout,
            metrics,
            logger,
        )
        self.orphans = Orphans(
            self.sessions, self.leaving.run_orphan, self.tasks, settings.heartbeat_interval, metrics, logger
        )
        self.heartbeats = Heartbeats(
            self.connections,
            self.sessions,
            self.endings,
            self.orphans,
            self.callbacks,
            self.transports.close,
            settings.heartbeat_interval,
            metrics,
            logger,
        )
        self.log_watch = LogWatch(
            self.sessions.calls,
            keys,
            self.partition,
            durations.retention,
            settings.max_disconnection_duration,
            settings.max_length,
            settings.publish_timeout,
            logger,
        )
        self.hooks = Hooks(
            upstream,
            self.transports,
            self.connections,
            self.connecting,
            self.catch_up,
            self.leaving,
            self.membership,
            SessionData(self.sessions, logger),
            settings.skip_connect_handler,
            logger,
        )
        self.inbox = Inbox(keys, self.log, link, settings.publish_timeout / ATTEMPTS, metrics, logger)
        self.pubsub_bridge = pubsub_bridge(self.log, self.participants) if pubsub_bridge is not None else None
        self.pubsub_watch = pubsub_watch
        self.background = Background(metrics, logger)
        self.hooks.install()

    def start(self, name: str) -> None:
        """Starts the background tasks.

        :param name: this node's name in the cluster.
        """
        self.sessions.node = self.callbacks.node = self.delivery.node = name
        self.node_heartbeat.name = self.inbox.lease.node = self.server_side.node = name
        self.background.start(
            {
                "writer": self.log.write,
                "reader": lambda: self.log.follow(self.delivery),
                "heartbeat": self.heartbeats.run,
                "heartbeat of the node": self.node_heartbeat.run,
                "watch for participants": self.changes.run,
                "watch for orphans": self.orphans.watch,
                "watch over the log": self.log_watch.run,
            }
        )
        if self.settings.inbox:
            self.background.start({"inbox": self.inbox.run})
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
        :raises UnsupportedFormat: if the log has a format that this version does not know.
        """
        started = asyncio.Event()
        self.partition.when(Position(0, 0), started.set)
        self.log.when_refused = started.set
        if self.log.unknown_format is not None:
            started.set()
        timeout = self.settings.publish_timeout
        try:
            async with asyncio.timeout(timeout):
                await started.wait()
                if self.log.unknown_format is None:
                    await self.changes.begun.wait()
        except TimeoutError:
            raise RedisUnavailable(f"Redis did not answer within {timeout:g} s") from None
        if self.log.unknown_format is not None:
            raise UnsupportedFormat(self.log.unknown_format, self.log.formats)

    def unhealthy_reasons(self, now: float) -> list[str]:
        """Why this node does not follow the log or takes no clients, at a time of its event loop."""
        reasons = []
        read_at = self.log.read_at
        if read_at is None:
            reasons.append("it does not follow the log yet: Redis has not answered so far")
        elif now - read_at >= SILENCE:
            reasons.append(f"Redis has been silent for {now - read_at:.0f} s: this node does not follow the log")
        if not self.heartbeats.succeeds:
            reasons.append("the last heartbeat failed: sessions were not refreshed in Redis, it is tried again")
        if self.connecting.draining:
            reasons.append("it is draining: its clients are sent to other nodes")
        return reasons

    def reading(self, healthy: bool, now: float) -> Reading:
        """How this node is, at a time of its event loop. Any thread can call it."""
        live, window, watch = self.connections.live, self.partition.window, self.log_watch
        return Reading(
            healthy,
            sum(len(live.members(namespace, ())) for namespace in list(self.connections.namespaces())),
            len(self.connections.behind),
            self.log.queued,
            watch.lag(now),
            len(window),
            window.bytes,
            watch.stream(now),
            watch.window(now),
            self.settings.max_disconnection_duration,
        )

    async def drain(self, over: float, timeout: float) -> None:
        """Closes all transports and keeps their sessions; see :meth:`AsyncRedisStreamsManager.drain`."""
        self.connecting.draining = self.orphans.paused = True
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
        await self.look_back.close()
        with suppress(RedisUnavailable):
            await self.endings.finish()
            if not self.connections:
                await self.node_heartbeat.leave()
        await self.sessions.calls.close()
