"""``AsyncRedisStreamsManager``: what python-socketio and applications call. Thin: the work is elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from socketio import AsyncManager, Server
from socketio.packet import Packet

from ..answers import Answers, of_clients, of_nodes
from ..connections import Connection, State
from ..continuity import can_recover
from ..entries import (
    ENTER,
    LEAVE,
    Payload,
    Room,
    audience,
    check_event,
    check_namespace,
    check_room,
    check_rooms,
    event_head,
    payload_fields,
    skipped,
)
from ..errors import OtherPartitions, RedisUnavailable
from ..identity import Identity, Producer
from ..membership import changed
from ..metrics import NO_METRICS, Metrics, Reading
from ..packets import Codec, JsonCodec, MsgpackCodec, codec_for
from ..participants import Count, Participant, ParticipantState
from ..reasons import Outcome
from ..redis.keys import Keys
from ..rooms_view import RoomsView
from ..settings import Settings
from ..tracing import Tracing
from . import operations, scope
from .life import Background, Life, keep
from .log import ATTEMPTS, Append, Log
from .membership_log import MembershipLog, Move, not_its_own
from .node import Node
from .participant_changes import Observer
from .participants import Participants
from .pubsub_bridge import Elsewhere, PubSubBridge
from .pubsub_watch import PubSubWatch
from .redis_client import client_for
from .redis_link import RedisLink
from .redis_servers import is_cluster, servers_of
from .script_calls import ScriptCalls
from .server_side import ServerSideHandler, server_side_entry
from .shard import Place, Shards, Writing
from .upstream.admin_ui import KeepsTimestamps, is_admin_ui
from .upstream.engineio_transport import Transports

Answer = TypeVar("Answer")

#: How long :meth:`AsyncRedisStreamsManager.close` tries to remove a key that expires by itself, in seconds.
FORGET = 1.0


class AsyncRedisStreamsManager(KeepsTimestamps, AsyncManager):  # type: ignore[misc]
    """A client manager for :class:`socketio.AsyncServer` that lets clients recover, on any node.

    Use it in place of :class:`socketio.AsyncRedisManager`::

        manager = AsyncRedisStreamsManager("redis://localhost:6379/0", max_disconnection_duration=120)
        sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager)

    :param url: where Redis is, in the forms that ``AsyncRedisManager`` takes (``redis://``, ``rediss://``, ``unix://``,
        ``valkey://``, ``valkeys://``, ``redis+sentinel://``, ``valkey+sentinel://``). For Redis Cluster, some of its
        servers: ``redis+cluster://host:port,host:port`` (``rediss+cluster://``, ``valkey+cluster://``,
        ``valkeys+cluster://``). Or a ready asyncio client of redis-py or valkey-py, also one for a cluster, whose
        settings are used, but not its connections. Redis 6.2 or newer, or Valkey. The default is
        ``redis://localhost:6379/0``.
    :param channel: the name of this cluster. All its processes use the same. Keys in Redis begin with ``{channel}:``.
        The default is ``socketio``.
    :param write_only: set it in a process without a server, which only emits, moves clients between rooms and
        disconnects clients. Use the manager in an ``async with`` then, or call :meth:`close`. Until it is closed, it
        can be used on one event loop after another, but not on two at once. The default is ``False``.
    :param logger: where to log. The default is the server's logger.
    :param json: a module with ``dumps`` and ``loads``, for a ``write_only`` manager. The default is Python's ``json``.
        With a server, the server's module is used.
    :param redis_options: keyword arguments for ``Redis.from_url()``, for ``Sentinel()``, or for ``RedisCluster()``.
    :param max_disconnection_duration: how long a client can come back after its connection was lost, in seconds. It
        must be the same on all nodes. The default is 120.
    :param skip_connect_handler: leave out the application's ``connect`` handler when a client recovers. By default the
        handler runs, so that a client with a revoked credential does not slip through.
    :param can_recover: is given a client's ``environ`` and says whether the client can use recovery. The default is
        :func:`can_recover`: JavaScript clients, and clients that ask for it. The environ also has what a client asks
        for in its auth data, as ``socketio_recovery.asks`` (``bool`` or ``None``).
    :param max_length: how many entries the log keeps at most, roughly. A client that missed more can't recover
        (``"trimmed"``), and one ``connect`` handler must not write as many. The default is 0: only time limits the log.
    :param window_bytes: memory for the recent log, in bytes, roughly. What it does not hold is read from Redis for
        clients that missed it. The default is 64 MiB.
    :param max_queue: how many packets may wait for one client. A client further behind is disconnected, and recovers
        when it reads again. A client may also owe so many acknowledgements; when it owes more, the oldest is forgotten.
        The default is 5000.
    :param max_queue_bytes: how many bytes may wait for one client, as ``max_queue``. The default is 16 MiB.
    :param heartbeat_interval: how often this node refreshes its sessions in Redis, in seconds. The default is 10.
    :param publish_timeout: how long an ``emit``, or a change of rooms, may wait for Redis, in seconds. The default is
        10.
    :param handshake_timeout: how long a connecting client may wait for Redis, in seconds. After that its transport is
        closed, and the client tries again. The default is 10.
    :param inbox: take over the events that other programs put into the stream ``{channel}:inbox``, see
        ``docs/emitters.md``. One node at a time does so. The default is ``True``.
    :param pubsub_bridge: exchange events with processes that still have ``AsyncRedisManager`` or ``RedisManager`` with
        the same URL and channel, while nodes are replaced one by one; see ``docs/migrating.md``. The default is
        ``False``.
    :param shards: into how many partitions the log is divided, the same number in all processes of the cluster. Each
        namespace belongs to one of them. With Redis Cluster they are on several servers; see ``docs/partitions.md``.
        ``window_bytes`` is for all of them together, in equal parts. The default is 1.
    :param metrics: is told what happens on this node; see :class:`Metrics`. The default does nothing.
    :raises ValueError: for a URL that can't be used, or a number that can't be.
    :raises TypeError: for a Redis client that can't be used.
    :raises RuntimeError: if the package that the URL needs is not installed.
    """

    name = "aioredisstreams"

    def __init__(
        self,
        url: Any = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = False,
        logger: logging.Logger | None = None,
        json: Any = None,
        redis_options: dict[str, Any] | None = None,
        *,
        max_disconnection_duration: float = 120,
        skip_connect_handler: bool = False,
        can_recover: Callable[[Mapping[str, Any]], bool] = can_recover,
        max_length: int = 0,
        window_bytes: int = 64 << 20,
        max_queue: int = 5000,
        max_queue_bytes: int = 16 << 20,
        heartbeat_interval: float = 10,
        publish_timeout: float = 10,
        handshake_timeout: float = 10,
        inbox: bool = True,
        pubsub_bridge: bool = False,
        shards: int = 1,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__()
        self.settings = Settings(
            max_disconnection_duration=max_disconnection_duration,
            skip_connect_handler=skip_connect_handler,
            can_recover=can_recover,
            max_length=max_length,
            window_bytes=window_bytes,
            max_queue=max_queue,
            max_queue_bytes=max_queue_bytes,
            heartbeat_interval=heartbeat_interval,
            publish_timeout=publish_timeout,
            handshake_timeout=handshake_timeout,
            inbox=inbox,
            pubsub_bridge=pubsub_bridge,
            shards=shards,
        )
        if pubsub_bridge and shards > 1:
            raise ValueError("pubsub_bridge can't be used with several partitions: migrate with shards=1 first")
        if pubsub_bridge and not isinstance(url, str):
            raise ValueError("pubsub_bridge needs connections of its own: pass a URL in place of a Redis client")
        self.channel = channel
        self.write_only = write_only
        self.logger = logger
        self.json = json if json is not None else Packet.json
        self.metrics = metrics if metrics is not None else NO_METRICS
        self._url, self._redis_options = url, redis_options or {}
        self._new_client()
        if pubsub_bridge and is_cluster(self._client):
            raise ValueError("pubsub_bridge can't be used with Redis Cluster: use one server, or Sentinels, meanwhile")
        self._closed = False
        self._codec: Codec = JsonCodec(self.json)
        self._identity = Identity()
        self._producers = [Producer() for _ in range(shards)]
        self._tracing = Tracing()
        #: The parts of a process that serves clients; those of one that only writes are made when it starts.
        self.node: Node | None = None
        self._life: Life | None = None
        self.metrics.attached(self._reading)

    @property
    def host_id(self) -> str:
        """This process's name in the cluster. A process that was forked from this one has another."""
        return self._identity.name

    def _new_client(self) -> None:
        url = self._url
        self._client = client_for(url, self._redis_options, self.channel) if isinstance(url, str) else url
        self._first_servers = servers_of(self._client, Keys(self.channel).log)
        self._places = [self._place(number) for number in range(self.settings.shards)]

    def _place(self, number: int) -> Place:
        keys, servers = Keys(self.channel, number), self._first_servers
        if number and is_cluster(self._client):  # else all partitions are on one server
            servers = servers_of(self._client, keys.log)
        return Place(self.settings.shards, keys, partial(RedisLink, servers))

    #: Makes what looks after the transports of a server.
    _transports: Callable[..., Transports] = Transports

    # -- starting and stopping ----------------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        """Called by the server that this manager is given to.

        :raises TypeError: if the server is a synchronous one.
        :raises ValueError: if the server's serializer is one of the application's own.
        :raises UnsupportedVersion: if python-socketio or python-engineio lacks what this library relies on.
        """
        if isinstance(server, Server):
            raise TypeError(
                "AsyncRedisStreamsManager is for asyncio servers: use socketio.AsyncServer in place of socketio.Server"
            )
        if self.write_only:
            raise ValueError("a write_only manager can't serve clients: leave write_only out for a server")
        super().set_server(server)
        self.json = server.packet_class.json
        self._codec = codec_for(server.packet_class, self.json)
        codecs = [self._codec, JsonCodec(self.json)]
        with suppress(ImportError):  # without msgpack nobody can have written it
            from socketio.msgpack_packet import MsgPackPacket

            codecs.append(MsgpackCodec(MsgPackPacket))
        self.node = Node(
            self,
            server,
            self._places,
            codecs,
            self.settings,
            self.metrics,
            self._get_logger(),
            self._tracing,
            self._transports,
            self._pubsub_watch(),
            self._pubsub_bridge(codecs) if self.settings.pubsub_bridge else None,
            self._elsewhere(),
        )

    def _pubsub_bridge(self, codecs: Sequence[Codec]) -> Callable[[Log, Participants], PubSubBridge]:
        timeout, logger = self.settings.publish_timeout / ATTEMPTS, self._get_logger()
        _, keys, link = self._places[0]
        return lambda log, participants: PubSubBridge(
            *(self._client.pubsub, self.channel, keys, log, participants, link, codecs, timeout, logger)
        )

    def _elsewhere(self) -> Callable[[Sequence[Move]], Awaitable[None]] | None:
        if not self.settings.pubsub_bridge:
            return None
        _, keys, link = self._places[0]
        return Elsewhere(self.channel, keys, link, self.settings.publish_timeout).move

    def _pubsub_watch(self) -> PubSubWatch | None:
        if self.settings.pubsub_bridge:  # they are heard
            return None
        if not isinstance(self._url, str):  # the connections of the application's own client are not used
            return None
        if is_cluster(self._client):  # python-socketio's own managers don't know Redis Cluster
            return None
        return PubSubWatch(self._client.pubsub, self.channel, self._get_logger())

    def initialize(self) -> None:
        """Called by python-socketio when the first client connects."""
        self._start()
        self._get_logger().info(self.name + " backend initialized.")

    def _start(self) -> Life:
        """Starts the background tasks on this event loop, once. There may be no event loop before the first use.

        :raises RuntimeError: if they can't be started here.
        """
        if self._closed:
            raise RuntimeError("this manager is closed")
        life = self._life
        if life is not None:
            if life.here:
                for shard in life.shards.all:
                    if shard.log.ended:
                        raise RuntimeError(
                            "the event loop ends, and cancelled this manager's tasks: call it before that"
                        )
                return life
            self._leave(life)
        self._tracing.look()
        if (node := self.node) is not None:
            self._life = life = Life(node.shards, node.background)
            node.start(self.host_id)
            return life
        if not self.write_only:
            raise RuntimeError("no server has this manager: pass it as client_manager, or use write_only=True")
        background = Background(self.metrics, self._get_logger())
        all: list[Writing] = []
        for place, producer in zip(self._places, self._producers, strict=True):
            all.append(self._writing(place, producer, all[0].log if all else None))
        self._life = life = Life(Shards(all, background), background)
        return life

    def _writing(self, place: Place, producer: Producer, first: Log | None) -> Writing:
        """What a process without a server needs of a partition."""
        shards, keys, link = place
        settings = self.settings
        log = Log(
            *(keys, link, None, 0, settings.max_length, settings.publish_timeout, self._get_logger(), self.metrics),
            producer=producer,
            shards=shards,
            first=first,
        )
        calls = ScriptCalls(link(settings.publish_timeout / ATTEMPTS))
        participants = Participants(calls, keys, settings.publish_timeout)
        return Writing(log, MembershipLog(log, keys, self._elsewhere()), participants)

    def _leave(self, life: Life) -> None:
        """Lets go of what was started elsewhere, so that this event loop can start anew.

        :raises RuntimeError: if it is still at work there, or serves clients.
        """
        if self.node is not None:
            where = "in the process that this one was forked from" if life.of_parent else "on another event loop"
            raise RuntimeError(
                f"this manager was started {where}: make a server and its manager for each event loop and process; to "
                "emit from elsewhere, use a manager of its own with write_only=True"
            )
        if not life.over:
            raise RuntimeError(
                "this manager is at work on another event loop, which is still open: use one manager for each event "
                "loop, or make the call there with asyncio.run_coroutine_threadsafe()"
            )
        if life.of_parent:
            keep(life, self._client)
        self._new_client()  # a client for Sentinels has connections of its own

    async def start(self) -> None:
        """Starts to follow the log, and waits until this node does.

        The first client, or the first ``emit``, starts it too. Call it if the application wants to be ready before
        that, or to fail early. Until a node follows the log, it does not look after the clients of dead nodes.

        :raises RedisUnavailable: if Redis does not answer within ``publish_timeout`` seconds; not with ``write_only``.
        :raises UnsupportedFormat: if the log in Redis has a format that this version does not know.
        :raises OtherPartitions: if the cluster has another number of partitions than this process.
        """
        life = self._start()
        if self.node is not None:
            await self.node.started()
            return
        with suppress(RedisUnavailable):  # an emit tells, if Redis is still away then
            await life.shards.all[0].log.look()

    async def raise_format(self) -> None:
        """Raises the log in Redis to the newest format that this version knows.

        A log stays in the format that it has, so that nodes of two versions can work side by side while one takes the
        place of the other. Call it once, from any process, when all processes of the cluster have the new version.
        Those of an older one that does not know the format refuse to work from then on.

        :raises RedisUnavailable: if Redis does not answer within ``publish_timeout`` seconds.
        :raises UnsupportedFormat: if the log has a format that this version does not know.
        """
        for shard in self._start().shards:
            await shard.log.look(raise_format=True)

    async def change_shards(self) -> None:
        """Gives the cluster as many partitions as this manager has (``shards``).

        Call it once, from a process with ``write_only``, while no node runs; see ``docs/partitions.md``. A new epoch
        begins: clients that come back get a new session, and are told so (``"epoch"``). Nodes that still run with
        another number close their connections, and are not healthy from then on.

        :raises RedisUnavailable: if Redis does not answer within ``publish_timeout`` seconds; call it again then.
        :raises UnsupportedFormat: if the log has a format that this version does not know.
        """
        shards = self._start().shards.all
        logs = [shard.log for shard in shards]
        try:
            await logs[0].look()
        except OtherPartitions as error:
            for number in range(len(logs), error.shards):
                logs.append(self._writing(self._place(number), Producer(), logs[0]).log)
        for log in reversed(logs):  # the first last: if this fails midway, it can be called again
            await log.divide()

    async def drain(self, over: float = 0, timeout: float = 30) -> None:
        """Sends this node's clients elsewhere before it stops: closes their transports and keeps their sessions.

        :param over: spreads the closing over this many seconds, so that the other nodes are not hit at once.
        :param timeout: how long to wait for handlers after that, in seconds.

        Clients that connect meanwhile are closed too: a load balancer should know by then (:attr:`healthy`). It returns
        when all clients are gone and their ``disconnect`` handlers are done.
        """
        if self.node is not None and self._life is not None and self._life.here:
            await self.node.drain(over, timeout)

    async def close(self) -> None:
        """Stores what is still to be stored, and closes the connections to Redis.

        It also removes what Redis remembers of this process. Sessions stay: clients recover elsewhere. Call
        :meth:`drain` before it. Otherwise other nodes take this one for dead, and run the ``disconnect`` handlers of
        clients that do not come back.
        """
        if self._closed:
            return
        life = self._life
        if life is not None and not life.here and not life.over:
            self._leave(life)  # raises
        self._closed = True  # nothing more is taken on, so that what is queued can be stored
        if life is None:
            return
        if life.here:  # else it ended with its event loop, or is the parent's
            try:
                async with asyncio.timeout(self.settings.publish_timeout):
                    for shard in life.shards:
                        await shard.log.flushed()
            except TimeoutError:
                self._get_logger().error("closing, though entries are not stored yet: Redis does not take them")
            await life.background.stop()
            if self.node is not None:
                await self.node.close()
            else:
                for shard in life.shards:
                    await shard.participants.calls.close()
        logs = [(place, shard.log) for place, shard in zip(self._places, life.shards, strict=True)]
        await asyncio.gather(*(self._forget(place, log.producer) for place, log in logs if log.producer.forgettable))
        if isinstance(self._url, str) and life.here:  # else the client is the application's
            await self._first_servers.close()

    async def _forget(self, place: Place, producer: Producer) -> None:
        """Removes what Redis keeps to know a producer's retries, which would otherwise stay for a day."""
        link = place.link(FORGET)
        try:
            await link.call("DEL", place.keys.producer(producer.name))
        except Exception as error:  # it stays for a day
            self._get_logger().debug("closing, could not remove a key: %s", error)
        finally:
            await link.close()

    async def __aenter__(self) -> AsyncRedisStreamsManager:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def healthy(self) -> bool:
        """Whether this node follows the log now and takes clients; for a readiness probe. If not,
        :attr:`unhealthy_reasons` says why.

        Asked on the server's event loop, it also starts a node that is not started, as :meth:`start` does, but without
        waiting. So a load balancer that sends nobody to a node before it is healthy need not wait for the first client.
        It raises nothing.
        """
        return not self.unhealthy_reasons

    @property
    def unhealthy_reasons(self) -> list[str]:
        """Why this node is not healthy, one sentence for each reason; empty if it is. For people to read.

        Like :attr:`healthy`, it starts a node that is not started, and raises nothing.
        """
        life = self._life
        if not self._closed and (life is None or life.over):
            why = "it is starting" if life is None else "it was started on an event loop that has ended"
            try:
                self._start()
            except RuntimeError as error:  # there is no event loop here, or it can't be started on this one
                why = f"it is not started, and can't be started here: {error}"
            return [why]
        return self._reasons(life)

    def _reasons(self, life: Life | None) -> list[str]:
        if self._closed:
            return ["it is closed"]
        if life is None or life.over:
            return ["it is not started"]
        if any(shard.log.ended for shard in life.shards):
            return ["its event loop ends, and has cancelled its tasks"]
        reasons = [f"the {name} failed just now, and was started again" for name in sorted(life.background.failing)]
        if self.node is not None:
            return reasons + self.node.unhealthy_reasons(life.loop.time())
        return [str(shard.log.refusal) for shard in life.shards if shard.log.refusal is not None] + reasons

    @property
    def log_lag(self) -> float:
        """How far this node is behind the log, in seconds: the time that it took, when it last looked, until it had
        dispatched what was in the log; or the time for which it has been waiting for that, or for Redis, if that is
        longer. It looks every two seconds. 0 before it is started, and for a process that only writes.
        """
        life = self._life
        return self.node.log_lag(life.loop.time()) if self.node is not None and life is not None else 0.0

    def _reading(self) -> Reading | None:
        """What the metrics can read; see :class:`Metrics`."""
        life = self._life
        if self._closed or (life is not None and life.over):
            return None
        healthy = not self._reasons(life)
        if self.node is not None and life is not None:
            return self.node.reading(healthy, life.loop.time())
        queued = sum(shard.log.queued for shard in life.shards) if life is not None else 0
        nothing = (None, None, None, None, None)
        return Reading(healthy, 0, 0, queued, *nothing, self.settings.max_disconnection_duration)

    # -- recovery -----------------------------------------------------------------------------------

    def recovered(self, sid: str, namespace: str | None = None) -> bool:
        """Whether the client came back to the session it had: same ``sid``, rooms and data; missed events follow.

        It is known from the ``connect`` handler on; ``False`` for a client that is not connected to this node.
        """
        connection = self._find(sid, namespace or "/")
        return connection is not None and connection.recovered

    def recovery_reason(self, sid: str, namespace: str | None = None) -> Outcome | None:
        """Why the client has a new session; ``None`` if it is recovered, or not connected to this node.

        - ``"new"``: it did not ask for a session that it had.
        - ``"client"``: it can't use recovery; see :func:`can_recover`.
        - ``"unknown"``: there is no such session, or the client does not know its secret. The session was forgotten by
          a disconnect, it expired long ago, or Redis was wiped.
        - ``"expired"``: it came back later than ``max_disconnection_duration``.
        - ``"epoch"``: Redis lost the end of the log since, in a failover or a crash.
        - ``"trimmed"``: the log no longer holds everything that it missed.
        - ``"offset"``: it names an offset that no event has had.
        - ``"damaged"``: its record in Redis is not as this library writes it.
        - ``"malformed"``: its ``pid`` or offset does not have the form that this library gives them.
        """
        connection = self._find(sid, namespace or "/")
        return connection.outcome if connection is not None and not connection.recovered else None

    @property
    def outcomes(self) -> dict[str, int]:
        """How often clients connected to this node with which outcome: ``"recovered"``, or why not.

        The reasons are those of :meth:`recovery_reason`.
        """
        if self.node is None:
            return {}
        outcomes: Counter[Outcome] = Counter()
        for shard in self.node.shards:
            outcomes.update(shard.connecting.outcomes)
        return {outcome.value: count for outcome, count in outcomes.items()}

    # -- events -------------------------------------------------------------------------------------

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str | None = None,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        volatile: bool = False,
        **kwargs: Any,
    ) -> None:
        """Emits an event to one client, to rooms, or to everybody; see :meth:`socketio.AsyncServer.emit`.

        Returns once the event is stored and this node has dispatched it.

        :param volatile: do not replay it to clients that recover: for what is soon out of date.
        :raises PublishTimeout: if Redis does not take it within ``publish_timeout`` seconds.
        :raises PublishAbandoned: if Redis loses its data while the event is on its way.
        :raises TypeError: for data that can't be serialised, and for rooms, a namespace or a name that can't be one:
            rooms are str or int, the others are str. Nothing is stored then.

        ``to`` (or ``room``) and ``skip_sid`` take one, or several in a list, a tuple or a set. ``None`` among several
        rooms is everybody; an id in ``skip_sid`` that nobody has is passed over.

        With ``ignore_queue=True`` it goes to this node's clients only, past the log; with a callback it goes
        through the log all the same.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"a callback must be callable, and {callback!r} is not")
        encoded = self._encoded(event, data, namespace, to or room, skip_sid)
        if encoded is None:
            return
        namespace, rooms, skip, payload = encoded
        log = self._start().shards.use(namespace).log
        waits: tuple[str, int] | None = None
        if callback is not None:
            if self.node is None:
                raise RuntimeError("Callbacks can only be issued from the context of a server.")
            if not rooms:
                raise ValueError("Cannot use callback without a room set.")
            waits = (self.host_id, self.node.shards.of(namespace).callbacks.keep(rooms[0], callback))
        elif kwargs.get("ignore_queue") and self.node is not None:
            await self._settled()  # past the log, it would not come after what the handler has queued
            self.node.shards.of(namespace).delivery.send_local(namespace, rooms, skip, payload)
            return
        try:
            await log.append(self._append(event, namespace, rooms, skip, payload, volatile, waits))
        except BaseException as error:
            if waits and self.node is not None:
                self.node.shards.of(namespace).callbacks.drop(waits[1])
            if isinstance(error, Exception) and is_admin_ui(self.server, namespace):
                self._get_logger().warning("the Admin UI could not be told of %r: %s", event, error)
                return
            raise

    def _encoded(
        self, event: str, data: Any, namespace: str | None, room: Any, skip_sid: Any
    ) -> tuple[str, Sequence[Room], Sequence[str], Payload] | None:
        """What is to be emitted, looked at and serialised; ``None`` if it is for nobody. Any thread can call it."""
        namespace = check_namespace(namespace or "/")
        check_event(event)
        rooms = audience(room)
        if rooms is None:
            return None
        skip = skipped(skip_sid)
        arguments = data if isinstance(data, tuple) else () if data is None else (data,)
        return namespace, rooms, skip, self._codec.encode((event, *arguments))

    def _append(
        self,
        event: str,
        namespace: str,
        rooms: Sequence[Room],
        skip: Sequence[str],
        payload: Payload,
        volatile: bool,
        waits: tuple[str, int] | None = None,
    ) -> Append:
        """The entry of an event. Any thread can call it."""
        trace = self._tracing.emit(event, namespace)
        parent = "" if trace is None else trace.parent
        head = event_head(namespace, rooms, skip, payload, volatile, waits, parent)
        return Append(head, payload_fields(payload), trace=trace)

    async def trigger_callback(self, sid: str, id: int, data: Sequence[Any]) -> None:
        """A client acknowledged an event; the emitter, on whatever node, is told."""
        connection = self._find(sid, None)
        waits = connection.acks.pop(id, None) if connection is not None and isinstance(id, int) else None
        if waits is None or self.node is None or connection is None:
            self._get_logger().info("%s acknowledges an event that nobody waits for", sid)
            return
        # The protocol has a list there. A client may send anything.
        answer = data if isinstance(data, (list, tuple)) else ()
        await self.node.shards.of(connection.namespace).callbacks.acknowledged(*waits, answer, sid)

    async def emit_with_ack(
        self,
        event: str,
        data: Any = None,
        room: Any = None,
        namespace: str | None = None,
        skip_sid: Any = None,
        timeout: float = 60,
        to: Any = None,
    ) -> Answers:
        """Emits an event to rooms, or to everybody, and gathers what the clients acknowledge, on all nodes.

        :param timeout: how long to wait for the answers once the event is stored, in seconds. The default is 60.
        :returns: :class:`Answers`. ``answers`` has what each client answered, by its ``sid``, in the form in which
            ``AsyncServer.call`` returns it. ``missing`` names who was in the rooms and did not answer in time. That is
            no error.
        :raises RuntimeError: with ``write_only``, or before a server has this manager.
        :raises RedisUnavailable: if Redis does not say in time who is in the rooms. Nothing is emitted then.

        Other parameters and errors are those of :meth:`emit`. Who is expected to answer is read right before the event
        is stored, exactly as of one position of the log. It waits for those who are connected then; who is reconnecting
        gets no event with a callback, and is missing. The answer of a client that enters a room just after that counts.
        """
        encoded = self._encoded(event, data, namespace, to or room, skip_sid)
        node = self._serving("gather answers")
        if encoded is None:
            return Answers({}, [], {})
        namespace, rooms, skip, payload = encoded
        await self._settled()
        shard = node.shards.use(namespace)
        members = (await shard.participants.members(namespace, rooms)).standings
        expected = {sid: standing.state for sid, standing in members.items() if sid not in skip}
        with shard.callbacks.gather() as (id, gathering):
            head = event_head(namespace, rooms, skip, payload, False, (self.host_id, id))
            await shard.log.append(Append(head, payload_fields(payload)))
            connected = [sid for sid, state in expected.items() if state is ParticipantState.CONNECTED]
            await gathering.wait(connected, timeout)
            return of_clients(expected, gathering.got)

    def _serving(self, what: str) -> Node:
        if self.node is None:
            raise RuntimeError(
                f"only a manager that serves clients can {what}: pass it to a server as client_manager first"
            )
        return self.node

    async def _settled(self) -> Life:
        """What is started, once the changes of rooms are stored that this task's ``connect`` handler has queued."""
        life = self._start()
        if (queued := scope.moves_of_handler()) and (own := scope.connecting()) is not None:
            await life.shards.use(own.namespace).membership.settle(queued)
        return life

    # -- rooms --------------------------------------------------------------------------------------

    async def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Adds a client to a room, whatever node it is on, or between two connections.

        :param room: one, or several in a list, a tuple or a set. They are entered in one step.
        :raises ValueError: if the room is another session's own (its ``sid``). Other rooms are entered all the same.
        :raises TypeError: if ``room`` can't be a room, or ``namespace`` a namespace.
        :raises PublishTimeout: if Redis does not take it within ``publish_timeout`` seconds.

        In a ``connect`` handler, what it does for the handler's own client is only queued, and it returns at once. What
        the handler emits afterwards comes after it. When the handler ends, and before the client is accepted, all that
        is queued is awaited. If something went wrong then, it is as if the handler had raised it.
        """
        await self._move(ENTER, sid, namespace, room)

    async def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Removes a client from a room, whatever node it is on, or between two connections.

        It takes several rooms, and is queued in a ``connect`` handler, as :meth:`enter_room` is.

        In a ``disconnect`` handler, the client's own rooms are only a view: ``enter_room`` and ``leave_room`` change
        what ``sio.rooms(sid)`` says there, and nothing else. The session keeps its rooms, for the client to come back
        to, or it ends with the handler.

        :raises TypeError: if ``room`` can't be a room, or ``namespace`` a namespace.
        :raises PublishTimeout: if Redis does not take it within ``publish_timeout`` seconds.
        """
        await self._move(LEAVE, sid, namespace, room)

    async def _move(self, kind: Literal["enter", "leave"], sid: str, namespace: str | None, room: Any) -> None:
        namespace = check_namespace(namespace or "/")
        # Every client is always in the room None, and in its own.
        rooms = dict.fromkeys(room for room in check_rooms(room) if room is not None and room != sid)
        own = scope.own(namespace, sid)
        if own is not None and own.state is State.LEAVING:  # what waits for the client is not this handler's
            changed(own.rooms, kind, rooms)
            return
        if not rooms:
            return
        membership = self._start().shards.use(namespace).membership
        if not isinstance(sid, str):
            self._get_logger().info("%r has no session: it can't %s a room", sid, kind)
            return
        queued = scope.moves(namespace, sid)
        if queued is None:
            level = logging.INFO if self._find(sid, namespace) is None else logging.WARNING
            await membership.settle(membership.move(kind, sid, namespace, rooms), level)
            return
        for room in rooms:
            if kind == ENTER and self.is_sid_room(namespace, room):
                raise not_its_own(room)
        queued += membership.move(kind, sid, namespace, rooms)

    async def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Removes all clients from a room, on all nodes.

        :raises ValueError: if the room is a session's own (its ``sid``).
        :raises TypeError: if ``room`` can't be a room, or ``namespace`` a namespace.
        """
        namespace = check_namespace(namespace or "/")
        room = check_room(room)
        if room is None or (isinstance(room, str) and self._find(room, namespace)):
            raise ValueError("cannot close a sid room")
        await self._start().shards.use(namespace).membership.close(room, namespace)

    # -- participants -------------------------------------------------------------------------------

    async def participants(self, room: Any = None, namespace: str | None = None) -> list[Participant]:
        """Who is in a room, or in a namespace, on all nodes; clients that are only reconnecting included.

        :param room: one, or several in a list, a tuple or a set: who is in any of them. The default is everybody.
        :param namespace: the default is ``"/"``.
        :returns: :class:`Participant`: ``sid``, ``node``, ``state`` (``"connected"`` or ``"reconnecting"``), ``since``
            (seconds since 1970), ``rooms`` and ``data``, in the order of ``since``.
        :raises RedisUnavailable: if Redis does not answer in time: after ``handshake_timeout`` seconds, and for a
            ``write_only`` manager after ``publish_timeout``.
        :raises TypeError: if ``room`` can't be a room, or ``namespace`` a namespace.

        It is exact at one position of the log: whoever asks after an ``enter_room`` has returned, on whatever node,
        sees it. In a ``connect`` handler, the handler's own client is there, with the rooms that it has been given. A
        client of a node that was killed is reconnecting until its time is over, and is not there after that. The cost
        grows with the number of those who are found, not with that of all clients.
        """
        return await self._asked(Participants.list, room, namespace, [])

    async def count(self, room: Any = None, namespace: str | None = None) -> Count:
        """How many are in a room, or in a namespace, on all nodes: :class:`Count`, with ``connected``,
        ``reconnecting`` and ``total``.

        For one room, or everybody, it costs the same whatever the number is. A client that returns, or leaves its node,
        may be counted in its rooms with the state that it had before for some milliseconds.

        Parameters and errors are those of :meth:`participants`.
        """
        return await self._asked(Participants.count, room, namespace, Count(0, 0))

    async def _asked(
        self,
        question: Callable[[Participants, str, list[Room]], Awaitable[Answer]],
        room: Any,
        namespace: str | None,
        nobody: Answer,
    ) -> Answer:
        namespace = check_namespace(namespace or "/")
        rooms = audience(room)
        if rooms is None:
            return nobody
        life = await self._settled()
        shard = life.shards.of(namespace)
        await shard.log.ensure()
        return await question(shard.participants, namespace, rooms)

    def on_participants(
        self, room: Any = None, namespace: str | None = None, observer: Observer | None = None
    ) -> Callable[[Observer], Observer]:
        """Registers a function that is told who joins, leaves, loses its connection and returns, on all nodes::

            @manager.on_participants("lobby")
            async def changed(change, participant):
                ...  # change is "join", "leave", "reconnecting" or "returned"

        :param room: the room to watch; ``None``, the default, is everybody in the namespace.
        :param namespace: the default is ``"/"``.
        :param observer: the function, if this is not used as a decorator. It may be a coroutine function. Calls come
            one after the other. What it raises is logged.
        :raises TypeError: if ``room`` can't be a room, or ``namespace`` a namespace.
        :raises RuntimeError: with ``write_only``, or before a server has this manager.

        Each node that has registered it calls it. Who is there already is not told: see :meth:`participants`. From when
        :meth:`start` has returned, all changes are told. Changes of one participant within some milliseconds may be
        told as one, or left out if they cancel each other out. If Redis loses data, or can't be reached for a while,
        what has changed meanwhile is told after that.
        """
        room, namespace = check_room(room), check_namespace(namespace or "/")
        node = self._serving("watch")

        def register(observer: Observer) -> Observer:
            shard = node.shards.of(namespace)
            shard.changes.observe(namespace, room, observer)
            if self._life is not None and not shard.begun:  # else it begins when the node starts
                self._life.loop.call_soon_threadsafe(node.shards.begin, shard)
            return observer

        if observer is not None:
            register(observer)
        return register

    # -- operations on many -------------------------------------------------------------------------

    async def sockets_join(self, rooms: Any, to: Any = None, namespace: str | None = None, skip_sid: Any = None) -> int:
        """Adds clients to rooms, wherever they are: on any node, or between two connections.

        :param rooms: one, or several in a list, a tuple or a set.
        :param to: which clients: those in a room, or in any of several, or the one with a ``sid``. The default is all.
        :param namespace: the default is ``"/"``.
        :param skip_sid: clients to leave out.
        :returns: how many clients entered at least one of the rooms.
        :raises ValueError: if a room is a session's own (its ``sid``).
        :raises TypeError: if ``rooms`` or ``to`` can't be rooms, or ``namespace`` a namespace.
        :raises RedisUnavailable: if Redis does not say in time who is in ``to``. Nothing is changed then.
        :raises PublishTimeout: if Redis does not take it in time. What was stored before that stays.

        Who is in ``to`` is exact as of one position of the log. Then each client's entering is an entry of the log: an
        event that is emitted to the rooms when this has returned, on whatever node, reaches them all. A session that
        ends meanwhile is passed over.
        """
        return await self._move_many(ENTER, rooms, to, namespace, skip_sid)

    async def sockets_leave(
        self, rooms: Any, to: Any = None, namespace: str | None = None, skip_sid: Any = None
    ) -> int:
        """Removes clients from rooms, wherever they are.

        :returns: how many clients left at least one of the rooms.

        Parameters and errors are those of :meth:`sockets_join`. To remove everybody from a room, :meth:`close_room` is
        one entry of the log.
        """
        return await self._move_many(LEAVE, rooms, to, namespace, skip_sid)

    async def _move_many(
        self, kind: Literal["enter", "leave"], rooms: Any, to: Any, namespace: str | None, skip_sid: Any
    ) -> int:
        moved_to = [room for room in dict.fromkeys(check_rooms(rooms)) if room is not None]
        namespace, sids, shard = await self._many(to, namespace, skip_sid)
        return await operations.move(shard.membership, kind, namespace, sids, moved_to) if moved_to else 0

    async def disconnect_sockets(self, to: Any = None, namespace: str | None = None, skip_sid: Any = None) -> int:
        """Ends the sessions of clients, wherever they are, also of those that are reconnecting.

        :returns: how many sessions it ended.

        Parameters and errors are those of :meth:`sockets_join`. It returns when that is stored: no client gets an event
        that is emitted after that, and none of them recovers. The ``disconnect`` handlers run meanwhile, on the nodes
        that have the clients. To end one client and wait for its handler, there is ``AsyncServer.disconnect``.
        """
        namespace, sids, shard = await self._many(to, namespace, skip_sid)
        await operations.disconnect(shard.membership, shard.participants, namespace, sids)
        return len(sids)

    async def _many(self, to: Any, namespace: str | None, skip_sid: Any) -> tuple[str, list[str], Writing]:
        namespace, skip = check_namespace(namespace or "/"), set(skipped(skip_sid))
        to = audience(to)
        shard = (await self._settled()).shards.use(namespace)
        members = (await shard.participants.members(namespace, to)).standings if to is not None else {}
        return namespace, [sid for sid in members if sid not in skip], shard

    async def fetch_sockets(self, to: Any = None, namespace: str | None = None) -> list[Participant]:
        """The clients that :meth:`sockets_join` and the like would reach: :meth:`participants` by Socket.IO's name.

        Unlike in Socket.IO, those that are reconnecting are there too; their ``state`` says it.
        """
        return await self.participants(to, namespace)

    # -- events between nodes -----------------------------------------------------------------------

    def on_server_side(
        self, event: str, handler: ServerSideHandler | None = None
    ) -> Callable[[ServerSideHandler], ServerSideHandler]:
        """Registers a function that runs when another process emits an event to the nodes::

            @manager.on_server_side("reload")
            async def reload(what):
                ...

        :param event: any str. A handler takes the place of the one that was registered before for the same event.
        :param handler: the function, if this is not used as a decorator. It may be a coroutine function. It is called
            with the arguments of the event, one call after the other for each process that emits. What it returns is
            this node's answer to :meth:`server_side_call`. What it raises is logged, and told the caller.
        :raises TypeError: if ``event`` is no str.
        :raises RuntimeError: with ``write_only``, or before a server has this manager.
        """
        if not isinstance(event, str):
            raise TypeError(f"the name of an event must be a str, not {type(event).__name__}: {event!r}")
        server_side = self._serving("handle events of other nodes").first.server_side

        def register(handler: ServerSideHandler) -> ServerSideHandler:
            server_side.handle(event, handler)
            return handler

        if handler is not None:
            register(handler)
        return register

    async def server_side_emit(self, event: str, *args: Any) -> None:
        """Emits an event to all other nodes, whose handlers (:meth:`on_server_side`) run. No client gets it.

        :param event: any str.
        :param args: what an event's data may be.
        :raises TypeError: for an event that is no str, or data that can't be serialised. Nothing is stored then.
        :raises PublishTimeout: if Redis does not take it within ``publish_timeout`` seconds.
        :raises PublishAbandoned: if Redis loses its data while the event is on its way.

        A ``write_only`` process can emit, too. Returns once the event is stored. Each node that follows the log then
        gets it once, in one order with everything else. One that starts later, or that loses its place in the log, does
        not.
        """
        entry = server_side_entry(self._codec, self.host_id, event, args)
        await self._first().log.append(entry)

    async def server_side_call(self, event: str, *args: Any, timeout: float = 5) -> Answers:
        """Emits an event to all other nodes, and gathers what their handlers return.

        :param timeout: how long to wait for the answers once the event is stored, in seconds. The default is 5.
        :returns: :class:`Answers`, by the names of nodes (``host_id``). ``missing`` names the nodes that lived when the
            event was emitted and did not answer in time, for example because they died. That is no error. ``errors``
            has what a handler raised, or that a node has none.
        :raises RuntimeError: with ``write_only``, or before a server has this manager.
        :raises RedisUnavailable: if Redis does not say in time which nodes live. Nothing is emitted then.

        Other parameters and errors are those of :meth:`server_side_emit`. Which nodes live is read right before the
        event is stored; a node counts as alive until it has sent no heartbeat for a while: ``docs/operations.md``.
        """
        node = self._serving("gather answers")
        first = self._first()
        with node.first.callbacks.gather() as (id, gathering):
            entry = server_side_entry(self._codec, self.host_id, event, args, id)
            expected = [name for name in await first.participants.nodes() if name != self.host_id]
            await first.log.append(entry)
            await gathering.wait(expected, timeout)
            return of_nodes(expected, gathering.got)

    def _first(self) -> Writing:
        """The partition for what belongs to no namespace."""
        shards = self._start().shards
        shards.begin(shards.all[0])
        return shards.all[0]

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Called when a client of this node has entered a room. ``sio.instrument()`` wraps it, to show that."""

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Called when a client of this node has left a room. ``sio.instrument()`` wraps it, to show that."""

    # -- what python-socketio asks ------------------------------------------------------------------

    def _find(self, sid: str | None, namespace: str | None) -> Connection | None:
        if self.node is None or sid is None:
            return None
        connections = self.node.connections
        if namespace is None:  # a sid is of one namespace
            return next((c for n in connections.namespaces() if (c := scope.find(connections, n, sid))), None)
        return scope.find(connections, namespace, sid)

    async def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        self._start()
        assert self.node is not None
        self.node.hooks.check(eio_sid)
        return await self.node.shards.use(namespace).connecting.pre_connect(eio_sid, namespace)

    async def connect(self, sid: str, namespace: str) -> str:
        connection = self._find(sid, namespace)
        if self.node is not None and connection is not None and connection.state is State.CONNECTING:
            await self.node.shards.of(namespace).catch_up.start(connection)
        return sid

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        connection = self._find(sid, namespace)
        return connection is not None and connection.state in (State.ARRIVED, State.CONNECTING)

    def is_connected(self, sid: str | None, namespace: str) -> bool:
        connection = self._find(sid, namespace)
        return connection is not None and connection.state is State.CONNECTED

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        if self.is_connected(sid, namespace):
            return True
        await self._end(sid, namespace)
        return False

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        if self.node is None:
            return None
        connection = scope.meant(self.node.connections, namespace, sid)
        if connection is None:
            return None
        self.node.shards.of(namespace).leaving.about_to_leave(connection)
        return connection.transport

    async def disconnect(self, sid: str, namespace: str | None = None, **kwargs: Any) -> None:
        """Ends a client's session, whatever node it is on, or between two connections."""
        namespace = namespace or "/"
        if kwargs.get("ignore_queue"):
            connection = scope.meant(self.node.connections, namespace, sid) if self.node is not None else None
            if self.node is not None and connection is not None:
                await self.node.shards.of(namespace).leaving.leave(connection)
        elif self.is_connected(sid, namespace):
            await self.server.disconnect(sid, namespace=namespace)
        else:
            await self._end(sid, namespace)

    async def _end(self, sid: str, namespace: str) -> None:
        namespace = check_namespace(namespace)
        if not isinstance(sid, str):  # nobody has it
            return
        shard = self._start().shards.use(namespace)
        await operations.disconnect(shard.membership, shard.participants, namespace, [sid])

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        connection = self.node.connections.by_transport(eio_sid).get(namespace) if self.node is not None else None
        return connection.sid if connection is not None else None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        connection = self._find(sid, namespace)
        return connection.transport if connection is not None else None

    def get_namespaces(self) -> Iterable[str]:
        """The namespaces that have clients on this node."""
        return list(self.node.connections.namespaces()) if self.node is not None else ()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """The clients of this node in a room, or in any of a list of rooms: ``(sid, eio_sid)``."""
        if hasattr(room, "__len__") and not isinstance(room, str):
            rooms: Sequence[Room] = list(room)
        else:
            rooms = () if room is None else (room,)
        if self.node is not None:
            for connection in list(self.node.connections.of(namespace).live.members(namespace, rooms)):
                yield connection.sid, connection.transport

    def get_rooms(self, sid: str, namespace: str) -> list[Room]:
        """The rooms of a client of this node, its own included; in its ``connect`` handler, also what is queued."""
        connection = self._find(sid, namespace)
        if connection is None:
            return []
        rooms = dict(connection.rooms)
        for move in scope.moves(namespace, sid) or ():
            if not move.append.future.done():  # else the node has dispatched it
                changed(rooms, move.kind, (move.room,))
        return [sid, *rooms]

    def is_sid_room(self, namespace: str, room: Any) -> bool:
        return self._find(room, namespace) is not None

    @property
    def rooms(self) -> Mapping[str, Mapping[Room, Mapping[str, str]]]:
        """``rooms[namespace][room][sid] = eio_sid`` for this node's clients: a view, to read. Room ``None`` is all."""
        return RoomsView(self.node.connections) if self.node is not None else {}

    @rooms.setter
    def rooms(self, value: object) -> None:
        """The base class sets its own, which is not used here."""
