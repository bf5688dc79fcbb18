"""A shard: one partition, and everything that a node does for the clients whose namespaces belong to it.

Each partition has a log, sessions and guarantees of its own (``docs/partitions.md``). So a node is of shards that know
nothing of each other. What they share is below them or above: the transports of the Engine.IO server, the hooks in
python-socketio's server, and the queue of the application's code.

A shard of a node *begins* when it is used for the first time: a client connects to one of its namespaces, or something
is emitted there. Until then the node does not follow the partition. It only looks for sessions of dead nodes there,
which may be all that is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from ..connections import Connection, Connections
from ..delivery import Delivery
from ..entries import Position, Room
from ..errors import RedisUnavailable
from ..metrics import Metrics
from ..packets import Codec
from ..redis.keys import Keys, partition_of
from ..session_record import Orphan
from ..settings import Durations, Settings
from ..tracing import Tracing
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
from .redis_link import RedisLink
from .script_calls import ScriptCalls
from .server_side import ServerSide
from .session_data import SessionData
from .session_endings import SessionEndings
from .sessions import Sessions
from .tasks import KeyedQueue
from .upstream.engineio_transport import Transports
from .upstream.socketio_server import SocketIOServer

#: How long Redis may be silent while a node reads the log, in seconds.
SILENCE = 2 * READ_BLOCK + 1


class Place(NamedTuple):
    """Where one partition is in Redis, and how a process gets there."""

    shards: int  #: how many partitions there are
    keys: Keys
    link: Callable[[float], RedisLink]  #: makes a dedicated connection, with its default timeout in seconds


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


class Writing:
    """What a process needs of a partition that it only writes to."""

    def __init__(self, log: Log, membership: MembershipLog, participants: Participants) -> None:
        self.log = log
        self.membership = membership
        self.participants = participants
        #: Whether its background tasks run.
        self.begun = False

    @property
    def work(self) -> dict[str, Callable[[], Any]]:
        """Its background tasks, by their names."""
        return {"writer": self.log.write}


W = TypeVar("W", bound=Writing)


class Shards(Generic[W]):
    """The partitions of one process.

    :param all: one for each partition, in the order of their numbers.
    """

    def __init__(self, all: Sequence[W], background: Background) -> None:
        self.all = all
        self._background = background

    def __iter__(self) -> Iterator[W]:
        return iter(self.all)

    @property
    def begun(self) -> list[W]:
        """Those whose background tasks run."""
        return [shard for shard in self.all if shard.begun]

    def number(self, namespace: str) -> int:
        """The number of the partition that a namespace belongs to."""
        return partition_of(namespace, len(self.all))

    def of(self, namespace: str) -> W:
        """The partition that a namespace belongs to."""
        return self.all[self.number(namespace)]

    def use(self, namespace: str) -> W:
        """The partition that a namespace belongs to; it begins if it has not."""
        shard = self.of(namespace)
        if not shard.begun:
            self.begin(shard)
        return shard

    def begin(self, shard: W) -> None:
        """Starts the background tasks of a partition."""
        if not shard.begun:
            shard.begun = True
            self.start(shard, shard.work)

    def start(self, shard: W, work: dict[str, Callable[[], Any]]) -> None:
        """Starts some background tasks of a partition, which their names say if there are several."""
        suffix = f" of partition {self.all.index(shard)}" if len(self.all) > 1 else ""
        self._background.start({name + suffix: run for name, run in work.items()})


class Shard(Writing):
    """One partition on a node.

    :param manager: the client manager; it is told of changes of rooms.
    :param place: where the partition is in Redis.
    :param first: the log of the first partition, if this is another: it says how many there are.
    :param begin: has the shard begin, if it has not.
    :param codecs: the serialisations that entries may have, that of the server's clients first.
    :param elsewhere: moves the clients of processes with python-socketio's own managers between rooms.
    """

    def __init__(
        self,
        manager: Any,
        upstream: SocketIOServer,
        transports: Transports,
        connections: Connections,
        tasks: KeyedQueue,
        place: Place,
        first: Log | None,
        begin: Callable[[Shard], None],
        codecs: list[Codec],
        settings: Settings,
        durations: Durations,
        metrics: Metrics,
        logger: logging.Logger,
        tracing: Tracing,
        elsewhere: Callable[[Sequence[Move]], Awaitable[None]] | None = None,
    ) -> None:
        shards, keys, link = place
        self.place = place
        self.partition = connections.partition
        self.connections = connections
        self.transports = transports
        self.tasks = tasks
        self._begin = begin
        self._takes_inbox = settings.inbox
        log = Log(
            keys,
            link,
            self.partition,
            durations.retention,
            settings.max_length,
            settings.publish_timeout,
            logger,
            metrics,
            shards=shards,
            first=first,
        )
        log.when_refused.append(self._turn_away)
        calls = ScriptCalls(link(settings.handshake_timeout / ATTEMPTS))
        timeout = settings.handshake_timeout
        self.node_heartbeat = NodeHeartbeat(calls, keys, "", durations, lambda: bool(self.changes), timeout, logger)
        participants = Participants(calls, keys, timeout, self.node_heartbeat)
        super().__init__(log, MembershipLog(log, keys, elsewhere), participants)
        self.sessions = Sessions(
            calls,
            keys,
            "",
            durations.max_disconnection,
            durations.ttl,
            durations.lease,
            timeout,
            log.witness,
        )
        self.callbacks = Callbacks("", self.log, codecs[0], self.tasks)
        self.server_side = ServerSide(self.log, codecs[0], self.tasks, logger)
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
        effects = _Effects(manager, transports, self.leaving, self.callbacks, self.changes, self.server_side, logger)
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
            transports.close,
            self.leaving.start_disconnect,
            self.endings.damaged,
            logger,
            metrics,
        )
        self.connecting = Connecting(
            upstream,
            transports,
            self.log,
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
            self.sessions,
            self._run_orphan,
            self.tasks,
            settings.heartbeat_interval,
            metrics,
            logger,
            lambda: log.refused is None,
        )
        self.heartbeats = Heartbeats(
            self.connections,
            self.sessions,
            self.endings,
            self.orphans,
            self.callbacks,
            transports.close,
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
        self.session_data = SessionData(self.sessions, logger)
        self.inbox = Inbox(keys, self.log, link, settings.publish_timeout / ATTEMPTS, metrics, logger)

    def named(self, name: str) -> None:
        """The node has got its name in the cluster."""
        self.sessions.node = self.callbacks.node = self.delivery.node = self.server_side.node = name
        self.node_heartbeat.name = self.inbox.lease.node = name

    @property
    def work(self) -> dict[str, Callable[[], Any]]:
        """Its background tasks, by their names; but the watch for orphans, which runs before it begins."""
        work: dict[str, Callable[[], Any]] = {
            **super().work,
            "reader": lambda: self.log.follow(self.delivery),
            "heartbeat": self.heartbeats.run,
            "heartbeat of the node": self.node_heartbeat.run,
            "watch for participants": self.changes.run,
            "watch over the log": self.log_watch.run,
        }
        return {**work, "inbox": self.inbox.run} if self._takes_inbox else work

    async def _run_orphan(self, orphan: Orphan, token: str) -> None:
        self._begin(self)  # the session needs heartbeats meanwhile, and its handler may emit
        await self.leaving.run_orphan(orphan, token)

    async def started(self) -> None:
        """Waits until this node follows the log, and knows who is there in the rooms that the application watches.

        :raises LogRefused: if the log is not one for this process.
        """
        started = asyncio.Event()
        self.partition.when(Position(0, 0), started.set)
        self.log.when_refused.append(started.set)
        try:
            if self.log.refused is None:
                await started.wait()
        finally:
            self.log.when_refused.remove(started.set)
        if self.log.refused is not None:
            raise self.log.refused
        await self.changes.begun.wait()

    def _turn_away(self) -> None:
        """The log is not one for this process: its clients would get nothing more here."""
        for connection in list(self.connections):
            self.connections.mute(connection)
            self.transports.close(connection.socket)

    def unhealthy_reasons(self, now: float) -> list[str]:
        """Why this node does not follow the log, at a time of its event loop."""
        reasons = [] if self.log.refusal is None else [str(self.log.refusal)]
        read_at = self.log.read_at
        if read_at is None:
            reasons.append("it does not follow the log yet: Redis has not answered so far")
        elif now - read_at >= SILENCE:
            reasons.append(f"Redis has been silent for {now - read_at:.0f} s: this node does not follow the log")
        if not self.heartbeats.succeeds:
            reasons.append("the last heartbeat failed: sessions were not refreshed in Redis, it is tried again")
        if not self.log.appends:
            reasons.append("Redis did not take what was last appended to the log; it is tried again")
        if self.place.shards > 1:
            reasons = [f"partition {self.place.keys.partition}: {why}" for why in reasons]
        return reasons

    async def close(self) -> None:
        """Tells Redis what is still to be told."""
        await self.look_back.close()
        if self.begun:
            with suppress(RedisUnavailable):
                await self.endings.finish()
                if not self.connections:
                    await self.node_heartbeat.leave()
        await self.sessions.calls.close()
