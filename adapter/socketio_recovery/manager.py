"""``AsyncRedisStreamsManager``: what python-socketio and applications call. Thin: the work is elsewhere."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Literal

from socketio import AsyncManager
from socketio.packet import Packet

from .codec import (
    CLOSE,
    DISCONNECT,
    ENTER,
    LEAVE,
    Codec,
    JsonCodec,
    MsgpackCodec,
    Payload,
    Room,
    callback_head,
    check_room,
    codec_for,
    control_head,
    dump,
    event_head,
    payload_fields,
)
from .connections import Calls, Link, client_for
from .delivery import Connection, Delivery
from .errors import RedisUnavailable
from .handshake import Handshake, abort
from .log import READ_BLOCK, Action, Append, Keys, Log
from .orphans import Orphans
from .sessions import Beat, Sessions
from .tasks import Ordered, supervise
from .window import Window

#: How long a client may take to acknowledge an event, in seconds. What is older is dropped.
CALLBACK_LIFETIME = 3600.0


def offset_for(environ: Mapping[str, Any]) -> bool:
    """Whether a client can use a ``pid`` and offsets: all but Python's.

    Python clients can't recover yet, and to them an offset is one argument too many for a handler of
    fixed arity.

    :param environ: the WSGI environ of the client's first request.

    aiohttp and requests say "Python" or "python" in their User-Agent. python-socketio's synchronous client
    on WebSocket alone sends none; it is known by the order of its query (``transport`` before ``EIO``).
    """
    agent = environ.get("HTTP_USER_AGENT", "")
    if agent:
        return "python" not in agent.lower()
    query: str = environ.get("QUERY_STRING", "")
    return not 0 <= query.find("transport=") < query.find("EIO=")


class AsyncRedisStreamsManager(AsyncManager):  # type: ignore[misc]
    """A client manager for :class:`socketio.AsyncServer` that lets clients recover, on any node.

    Use it in place of :class:`socketio.AsyncRedisManager`::

        manager = AsyncRedisStreamsManager("redis://localhost:6379/0", max_disconnection_duration=120)
        sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager)

    :param url: where Redis is, in the forms that ``AsyncRedisManager`` takes (``redis://``, ``rediss://``,
        ``unix://``, ``valkey://``, ``valkeys://``, ``redis+sentinel://``, ``valkey+sentinel://``); or a ready
        asyncio client of redis-py or valkey-py, whose settings are used, but not its connections.
        Redis 6.2 or newer, or Valkey.
    :param channel: a name for this cluster; all its processes use the same. Keys in Redis begin with
        ``{channel}:``.
    :param write_only: for a process without a server, that only emits (and moves clients between rooms, and
        disconnects them). Use it in an ``async with``, or call :meth:`close`.
    :param logger: where to log; the server's logger if omitted.
    :param json: a module with ``dumps`` and ``loads``, if ``write_only``; else the server's is used.
    :param redis_options: keyword arguments for ``Redis.from_url()``, or for ``Sentinel()``.
    :param max_disconnection_duration: for how long a client can come back after its connection was lost,
        in seconds. The same on all nodes.
    :param skip_connect_handler: leave out the application's ``connect`` handler when a client recovers. By
        default it runs, so that a revoked credential does not slip through.
    :param offset_for: decides by the client's ``environ`` whether it can use recovery; see
        :func:`offset_for`, the default.
    :param max_length: how many entries the log keeps at most, roughly; 0 for no limit but time. A client
        that missed more can't recover (``"trimmed"``).
    :param window_bytes: memory for the recent log, in bytes, roughly. A client that missed more can't
        recover (``"limit"``).
    :param max_queue: packets that may wait for one client. A client further behind is disconnected; it
        recovers when it reads again. Also how many acknowledgements a client may owe; past that the oldest is
        forgotten.
    :param heartbeat_interval: how often this node refreshes its sessions in Redis, in seconds.
    :param publish_timeout: how long an ``emit``, or a change of rooms, may wait for Redis, in seconds.
    :param handshake_timeout: how long a connecting client may wait for Redis, in seconds; then its
        transport is closed, and it tries again.
    :raises ValueError: for a URL or a number that can't be.
    :raises TypeError: for a client that can't be used.
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
        offset_for: Callable[[Mapping[str, Any]], bool] = offset_for,
        max_length: int = 0,
        window_bytes: int = 64 << 20,
        max_queue: int = 5000,
        heartbeat_interval: float = 10,
        publish_timeout: float = 10,
        handshake_timeout: float = 10,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("max_disconnection_duration", max_disconnection_duration, 0.001),
            ("max_length", max_length, 0),
            ("window_bytes", window_bytes, 0),
            ("max_queue", max_queue, 1),
            ("heartbeat_interval", heartbeat_interval, 0.001),
            ("publish_timeout", publish_timeout, 0.001),
            ("handshake_timeout", handshake_timeout, 0.001),
        ):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")
        self.channel = channel
        self.write_only = write_only
        self.logger = logger
        self.json = json if json is not None else Packet.json
        self.host_id = uuid.uuid4().hex
        self.max_disconnection_duration = max_disconnection_duration
        self.skip_connect_handler = skip_connect_handler
        self.offset_for = offset_for
        self.max_length = max_length
        self.window_bytes = window_bytes
        self.max_queue = max_queue
        self.heartbeat_interval = heartbeat_interval
        self.publish_timeout = publish_timeout
        self.handshake_timeout = handshake_timeout

        self._client = client_for(url, redis_options or {}, channel) if isinstance(url, str) else url
        self._link(publish_timeout)  # a client of the wrong kind is an error here, not later
        self._keys = Keys(channel)
        self._started = False
        self._closed = False
        self._background: list[asyncio.Task[None]] = []
        #: Callbacks of events that clients may still acknowledge: id -> (room, since when, callback).
        self._pending: dict[int, tuple[Room, float, Callable[..., Any]]] = {}
        self._callback_ids = count(1)
        self._beats = True
        self._failing: set[str] = set()  # background tasks that failed just now
        self._codec: Codec = JsonCodec(self.json)
        self._log: Log
        self._sessions: Sessions
        self._delivery: Delivery
        self._handshake: Handshake
        self._orphans: Orphans

    def _link(self, timeout: float) -> Link:
        return Link(self._client, timeout)

    # -- starting and stopping ----------------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        """Called by the server that this manager is given to.

        :raises ValueError: if the server's serializer is one of the application's own.
        """
        if self.write_only:
            raise ValueError("a write_only manager can't serve clients: leave write_only out for a server")
        super().set_server(server)
        self.json = server.packet_class.json
        self._codec = codec_for(server.packet_class, self.json)
        logger = self._get_logger()
        pings = server.eio.ping_interval + server.eio.ping_interval_grace_period
        # The longest a dead client can go unnoticed: a ping, its timeout, and Engine.IO looks once per timeout.
        unnoticed = pings + 2 * server.eio.ping_timeout
        ttl = self.max_disconnection_duration + unnoticed + 3 * self.heartbeat_interval
        retention = _ms(self.max_disconnection_duration + 2 * (unnoticed + 2 * self.heartbeat_interval))
        self._tasks = Ordered(logger)
        self._delivery = Delivery(
            Window(retention, self.window_bytes),
            self.host_id,
            self.max_queue,
            lambda socket: abort(socket, self._tasks),
            logger,
        )
        self._delivery.codecs = [self._codec, JsonCodec(self.json)]
        with suppress(ImportError):  # without msgpack nobody can have written it
            from socketio.msgpack_packet import MsgPackPacket

            self._delivery.codecs.append(MsgpackCodec(MsgPackPacket))
        self._log = Log(self._keys, self._link, retention, self.max_length, self.publish_timeout, logger)
        self._log.when_dispatched = self._delivery.when
        self._delivery.backwards = self._log.backwards
        self._sessions = Sessions(
            Calls(self._link(self.publish_timeout)),
            self._keys,
            self.host_id,
            _ms(self.max_disconnection_duration),
            _ms(ttl),
            _ms(3 * self.heartbeat_interval + 3),  # 3 s: who lost Redis may wait for so long before the next try
            self.handshake_timeout,
        )
        self._handshake = Handshake(
            server,
            self._sessions,
            self._delivery,
            self._tasks,
            lambda sid, namespace: self._request_disconnect(sid, namespace),
            skip_connect_handler=self.skip_connect_handler,
            offset_for=self.offset_for,
            timeout=self.handshake_timeout,
            logger=logger,
        )
        self._orphans = Orphans(
            self._sessions, self._handshake.run_orphan, self._tasks, self.heartbeat_interval, logger
        )
        self._delivery.on_disconnect = self._handshake.start_disconnect
        self._delivery.on_evict = lambda connection: abort(connection.socket, self._tasks)
        self._delivery.on_callback = self._start_callback

    def initialize(self) -> None:
        """Called by python-socketio when the first client connects."""
        self._start()
        self._get_logger().info(self.name + " backend initialized.")

    def _start(self) -> None:
        """Starts the background tasks, once; there may be no event loop before the first use."""
        if self._started:
            return
        if self._closed:
            raise RuntimeError("this manager is closed")
        if self.server is None and not self.write_only:
            raise RuntimeError("no server has this manager: pass it as client_manager, or use write_only=True")
        self._started = True
        logger = self._get_logger()
        if self.write_only:
            self._log = Log(self._keys, self._link, 0, self.max_length, self.publish_timeout, logger)
            work = [("writer", self._log.write)]
        else:
            work = [
                ("writer", self._log.write),
                ("reader", lambda: self._log.follow(self._delivery.start, self._delivery.dispatch)),
                ("heartbeat", self._beat),
                ("watch for orphans", self._orphans.watch),
            ]
        for name, run in work:
            task = asyncio.create_task(supervise(name, run, self._failing, logger), name=f"socketio_recovery {name}")
            self._background.append(task)

    async def start(self) -> None:
        """Starts to follow the log, and waits until this node does.

        The first client, or the first ``emit``, starts it too. For an application that wants to be ready
        before, or to fail early; and until then this node does not look after the clients of dead nodes.

        :raises RedisUnavailable: if Redis does not answer within ``publish_timeout`` seconds.
        """
        self._start()
        if self.write_only:
            return
        try:
            async with asyncio.timeout(self.publish_timeout):
                while not self._delivery.started:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise RedisUnavailable(f"Redis did not answer within {self.publish_timeout:g} s") from None

    async def drain(self, over: float = 0, timeout: float = 30) -> None:
        """Sends this node's clients elsewhere, before it stops: closes their transports, keeps their sessions.

        :param over: spreads the closing over this many seconds, so that the other nodes are not hit at once.

        :param timeout: how long to wait for handlers after that, in seconds.

        Clients that connect meanwhile are closed too: a load balancer should know by then (:attr:`healthy`).
        Returns when all are gone and their ``disconnect`` handlers are done.
        """
        if not self._started or self.write_only:
            return
        self._handshake.draining = self._orphans.paused = True
        sockets = {connection.transport: connection.socket for connection in self._delivery.connections()}
        for socket in sockets.values():
            abort(socket, self._tasks)
            if over:
                await asyncio.sleep(over / len(sockets))
        try:
            async with asyncio.timeout(timeout):
                while connections := list(self._delivery.connections()):
                    for connection in connections:  # those that were in their handshake
                        if not connection.socket.closing:
                            abort(connection.socket, self._tasks)
                    await asyncio.sleep(0.01)
                await self._tasks.drained()
        except TimeoutError:
            self._get_logger().warning("draining, handlers are not done after %g s; going on without them", timeout)

    async def close(self) -> None:
        """Stores what is still to be stored, and closes the connections to Redis.

        Sessions stay: clients recover elsewhere. To tell clients first, :meth:`drain`; without it, other nodes
        take this one for dead, and run the ``disconnect`` handlers of clients that do not come back.
        """
        self._closed = True
        if not self._started:
            return
        self._started = False
        try:
            async with asyncio.timeout(self.publish_timeout):
                while not self._log.idle:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            self._get_logger().error("closing, though entries are not stored yet: Redis does not take them")
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background.clear()
        if not self.write_only:
            await self._tasks.cancel()
            with suppress(RedisUnavailable):
                await self._handshake.settle()
            await self._sessions.calls.close()

    async def __aenter__(self) -> AsyncRedisStreamsManager:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def healthy(self) -> bool:
        """Whether this node follows the log now and takes clients; for a readiness probe."""
        if not self._started or self.write_only:
            return self._started and not self._failing
        read_at = self._log.read_at
        now = asyncio.get_running_loop().time()
        reads = read_at is not None and now - read_at < 2 * READ_BLOCK + 1
        works = reads and self._log.writes and self._beats and not self._failing
        return works and not self._handshake.draining

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_interval)
            self._drop_callbacks()
            connections = [c for c in self._delivery.connections() if c.epoch and not c.forgotten]
            beats = []
            now = asyncio.get_running_loop().time()
            for connection in connections:
                changed = connection.confirmed != connection.stored_confirmed
                confirmed = connection.confirmed if changed else None
                beats.append(Beat(connection.sid, connection.token, confirmed, tuple(connection.closed_rooms)))
            try:
                await self._handshake.settle()
                lost = await self._sessions.heartbeat([*beats, *self._orphans.beats])
            except RedisUnavailable as error:
                self._get_logger().warning("sessions could not be refreshed, will try again: %s", error)
                self._beats = False
                continue
            self._beats = True
            for i, (connection, beat) in enumerate(zip(connections, beats, strict=True)):
                del connection.closed_rooms[: len(beat.closed_rooms)]
                connection.stored_confirmed = beat.confirmed or connection.stored_confirmed
                if i not in lost:
                    connection.kept_at = now
                    continue
                connection.adopted = lost[i]
                if not (connection.muted or connection.gone or connection.forgotten):
                    self._get_logger().warning("session %s is gone; closing its connection", connection.sid)
                    self._delivery.mute(connection)
                    abort(connection.socket, self._tasks)

    def _drop_callbacks(self) -> None:
        limit = asyncio.get_running_loop().time() - CALLBACK_LIFETIME
        while self._pending:
            id, (_, since, _) = next(iter(self._pending.items()))  # the oldest
            if since > limit:
                break
            del self._pending[id]

    # -- recovery -----------------------------------------------------------------------------------

    def recovered(self, sid: str, namespace: str | None = None) -> bool:
        """Whether the client came back to the session it had: same ``sid``, rooms, data; missed events follow.

        Known from the ``connect`` handler on; ``False`` for a client that is not connected to this node.
        """
        connection = self._find(sid, namespace or "/")
        return connection is not None and connection.recovered

    def recovery_reason(self, sid: str, namespace: str | None = None) -> str | None:
        """Why the client has a new session; ``None`` if it is recovered, or not connected to this node.

        - ``"new"``: it did not ask for one it had.
        - ``"client"``: it can't use recovery; see :func:`offset_for`.
        - ``"unknown"``: no such session, or not its secret: forgotten by a disconnect, long expired, or Redis was
          wiped.
        - ``"expired"``: it came back later than ``max_disconnection_duration``.
        - ``"epoch"``: Redis lost the end of the log since, in a failover or a crash.
        - ``"trimmed"``: the log no longer holds all it missed.
        - ``"limit"``: what it missed does not fit into ``window_bytes``.
        - ``"offset"``: it claims an offset that no event has had, or only one that Redis has lost since.
        - ``"damaged"``: its record in Redis is not as this library writes it.
        - ``"malformed"``: its ``pid`` or offset is not one of ours.
        """
        connection = self._find(sid, namespace or "/")
        return connection.reason if connection is not None else None

    @property
    def outcomes(self) -> dict[str, int]:
        """How often clients connected to this node with which outcome: ``"recovered"``, or why not.

        The reasons are those of :meth:`recovery_reason`.
        """
        return {} if self.server is None else dict(self._handshake.outcomes)

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
        :raises TypeError: for data or a room that can't be serialised.

        With ``ignore_queue=True`` it goes to this node's clients only, past the log; with a callback it goes
        through the log all the same.
        """
        namespace = namespace or "/"
        room = to or room
        if hasattr(room, "__len__") and not isinstance(room, str):
            if not room:
                return  # a list of no rooms
            rooms: list[Room] = [check_room(r) for r in room]
        else:
            rooms = [] if room is None else [check_room(room)]
        skip = skip_sid if isinstance(skip_sid, (list, tuple)) else [] if skip_sid is None else [skip_sid]
        arguments = data if isinstance(data, tuple) else () if data is None else (data,)
        payload = self._codec.encode((event, *arguments))
        self._start()
        waits: tuple[str, int] | None = None
        if callback is not None:
            if self.server is None:
                raise RuntimeError("Callbacks can only be issued from the context of a server.")
            if not rooms:
                raise ValueError("Cannot use callback without a room set.")
            waits = (self.host_id, self._keep_callback(rooms[0], callback))
        elif kwargs.get("ignore_queue") and self.server is not None:
            self._delivery.send_local(namespace, rooms, skip, payload)
            return
        head = event_head(namespace, rooms, skip, payload, volatile, waits)
        try:
            await self._log.append(Append(head, payload_fields(payload)))
        except BaseException:
            if waits:
                self._pending.pop(waits[1], None)
            raise

    def _keep_callback(self, room: Room, callback: Callable[..., Any]) -> int:
        id = next(self._callback_ids)
        self._pending[id] = (room, asyncio.get_running_loop().time(), callback)
        return id

    async def trigger_callback(self, sid: str, id: int, data: Sequence[Any]) -> None:
        """A client acknowledged an event; whoever emitted it, on any node, is told."""
        connection = self._find(sid, None)
        waits = connection.acks.pop(id, None) if connection is not None and isinstance(id, int) else None
        if waits is None:
            self._get_logger().info("%s acknowledges an event that nobody waits for", sid)
            return
        if not isinstance(data, (list, tuple)):
            data = ()  # the protocol has a list there; a client may send anything
        node, callback_id = waits
        if node == self.host_id:
            await self._run_callback(callback_id, data)
        else:
            payload = self._codec.encode(data)
            await self._log.append(Append(callback_head(node, callback_id, payload), payload_fields(payload)))

    def _start_callback(self, id: int, payload: Payload) -> None:
        async def run() -> None:
            await self._run_callback(id, self._codec.decode(payload))

        kept = self._pending.get(id)
        if kept is not None:
            self._tasks.start(("callback", kept[0]), run)

    async def _run_callback(self, id: int, data: Sequence[Any]) -> None:
        kept = self._pending.pop(id, None)
        if kept is not None:
            result = kept[2](*data)
            if asyncio.iscoroutine(result):
                await result

    # -- rooms --------------------------------------------------------------------------------------

    async def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Adds a client to a room, whatever node it is on, or between two connections.

        :raises ValueError: if the room is another session's own (its ``sid``).
        :raises TypeError: if ``room`` can't be a room.
        """
        await self._move(ENTER, sid, namespace or "/", room)

    async def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Removes a client from a room, whatever node it is on, or between two connections."""
        await self._move(LEAVE, sid, namespace or "/", room)

    async def _move(self, kind: Literal["enter", "leave"], sid: str, namespace: str, room: Any) -> None:
        check_room(room)
        if room is None or room == sid:
            return  # every client is in these, always
        self._start()
        session = (self._keys.session(sid),)
        room_session = (self._keys.session(room),) if kind == ENTER and isinstance(room, str) else None
        action = Action(kind, (session, namespace, dump(room), room_session))
        refused = await self._log.append(Append(control_head(kind, namespace, sid, room), (), action))
        if refused == "sid":
            raise ValueError(f"cannot enter a sid room: {room!r} is the id of another client")
        if refused == "unknown":
            level = logging.INFO if self._find(sid, namespace) is None else logging.WARNING
            self._get_logger().log(level, "%s has no session: it can't %s room %r", sid, kind, room)

    async def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Removes all clients from a room, on all nodes.

        :raises ValueError: if the room is a session's own (its ``sid``).
        """
        namespace = namespace or "/"
        check_room(room)
        if room is None or (isinstance(room, str) and self._find(room, namespace)):
            raise ValueError("cannot close a sid room")
        self._start()
        await self._log.append(Append(control_head(CLOSE, namespace, room), (), Action(CLOSE, (namespace, dump(room)))))

    # -- what python-socketio asks ------------------------------------------------------------------

    def _find(self, sid: str | None, namespace: str | None) -> Connection | None:
        if self.server is None or sid is None:
            return None
        if namespace is None:  # a sid is of one namespace
            return next((c for n in self._delivery.namespaces() if (c := self._handshake.find(n, sid))), None)
        return self._handshake.find(namespace, sid)

    async def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        self._start()
        return await self._handshake.pre_connect(eio_sid, namespace)

    async def connect(self, sid: str, namespace: str) -> str:
        connection = self._find(sid, namespace)
        if connection is not None and not connection.announced:
            await self._handshake.go_live(connection)
        return sid

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        connection = self._find(sid, namespace)
        return connection is not None and not connection.announced

    def is_connected(self, sid: str | None, namespace: str) -> bool:
        connection = self._find(sid, namespace)
        return connection is not None and connection.announced and not connection.closing

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        if self.is_connected(sid, namespace):
            return True
        await self._request_disconnect(sid, namespace)
        return False

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        connection = self._find(sid, namespace)
        if connection is None:
            return None
        self._handshake.pre_disconnect(connection)
        return connection.transport

    async def disconnect(self, sid: str, namespace: str | None = None, **kwargs: Any) -> None:
        """Ends a client's session, whatever node it is on, or between two connections."""
        namespace = namespace or "/"
        if not kwargs.get("ignore_queue"):
            if self.is_connected(sid, namespace):
                await self.server.disconnect(sid, namespace=namespace)
            else:
                await self._request_disconnect(sid, namespace)
            return
        connection = self._find(sid, namespace)
        if connection is not None:
            await self._handshake.leave(connection)

    async def _request_disconnect(self, sid: str, namespace: str) -> None:
        """The session ends now; the node that has its client tells it."""
        self._start()
        action = Action("end", ((self._keys.session(sid),),))
        await self._log.append(Append(control_head(DISCONNECT, namespace, sid), (), action))

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        connection = self._delivery.by_transport(eio_sid).get(namespace)
        return connection.sid if connection is not None else None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        connection = self._find(sid, namespace)
        return connection.transport if connection is not None else None

    def get_namespaces(self) -> Iterable[str]:
        """The namespaces that have clients on this node."""
        return list(self._delivery.namespaces()) if self.server is not None else ()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """The clients of this node in a room, or in any of a list of rooms: ``(sid, eio_sid)``."""
        if hasattr(room, "__len__") and not isinstance(room, str):
            rooms: Sequence[Room] = list(room)
        else:
            rooms = () if room is None else (room,)
        for connection in list(self._delivery.members(namespace, rooms)):
            yield connection.sid, connection.transport

    def get_rooms(self, sid: str, namespace: str) -> list[Room]:
        """The rooms of a client of this node, its own included."""
        connection = self._find(sid, namespace)
        return [sid, *connection.rooms] if connection is not None else []

    def is_sid_room(self, namespace: str, room: Any) -> bool:
        return self._find(room, namespace) is not None

    @property
    def rooms(self) -> dict[str, dict[Room, dict[str, str]]]:
        """``rooms[namespace][room][sid] = eio_sid`` for this node's clients: a copy, for inspection."""
        if self.server is None:
            return {}
        return {
            namespace: {
                room: {c.sid: c.transport for c in members} for room, members in self._delivery.rooms(namespace).items()
            }
            for namespace in self._delivery.namespaces()
        }

    @rooms.setter
    def rooms(self, value: object) -> None:
        """The base class sets its own, which is not used here."""


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
