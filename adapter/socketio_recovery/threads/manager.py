"""``RedisStreamsManager``: what synchronous servers and applications call. The work is the asyncio manager's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import socketio

from ..aio import scope
from ..aio.life import keep
from ..aio.log import Append, Log
from ..aio.manager import AsyncRedisStreamsManager
from ..aio.node import Node
from ..aio.participant_changes import Observer
from ..aio.server_side import ServerSideHandler
from ..aio.upstream.admin_ui import KeepsTimestamps, is_admin_ui
from ..answers import Answers
from ..entries import Room
from ..metrics import Metrics
from ..participants import Count, Participant
from ..reasons import Outcome
from ..settings import Options
from .bridge import Bridge
from .modes import mode_of, mode_of_process
from .upstream.engineio_transport import ThreadTransports
from .upstream.flask_socketio import FlaskSessions
from .upstream.socketio_server import Facade, ThreadHooks

#: How long :meth:`RedisStreamsManager.close` waits for the thread to end, in seconds.
ENDS = 5.0


class _Core(AsyncRedisStreamsManager):
    """The asyncio manager behind a synchronous one.

    :param outer: the synchronous one. ``sio.instrument()`` wraps its methods, to be told of changes of rooms.
    """

    name = "redisstreams"

    def __init__(self, outer: Any, bridge: Bridge, *arguments: Any, **options: Any) -> None:
        self._outer = outer
        self._bridge = bridge
        self._transports = partial(ThreadTransports, bridge=bridge)
        super().__init__(*arguments, **options)

    def entry(
        self, event: str, data: Any, namespace: str | None, room: Any, skip_sid: Any, volatile: bool
    ) -> Append | None:
        """The entry of an event without a callback; ``None`` if it is for nobody. Any thread can call it."""
        encoded = self._encoded(event, data, namespace, room, skip_sid)
        if encoded is None:
            return None
        namespace, rooms, skip, payload = encoded
        if self._life is None:
            self._tracing.look()
        return self._append(event, namespace, rooms, skip, payload, volatile)

    def log(self, namespace: str | None) -> Log:
        """The log of a namespace. It is for the event loop, and starts what is not started."""
        return self._start().shards.use(namespace or "/").log

    async def connect(self, sid: str, namespace: str) -> str:
        """The client has its CONNECT. Unless its handler is yet to run, that is the end of its handshake."""
        await super().connect(sid, namespace)
        connection = scope.own(namespace, sid)
        if connection is not None and self.node is not None and not self.server.always_connect:
            self.node.shards.of(namespace).connecting.accept(connection)
        return sid

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        self._tell("basic_enter_room", sid, namespace, room, eio_sid)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        self._tell("basic_leave_room", sid, namespace, room)

    def _tell(self, name: str, sid: str, *arguments: Any) -> None:
        observer = vars(self._outer).get(name)
        if observer is not None and self.node is not None:  # in a thread, in order for each client
            self.node.tasks.start(("rooms", sid), partial(self._bridge.call, observer, sid, *arguments))


class RedisStreamsManager(KeepsTimestamps, socketio.Manager):  # type: ignore[misc]
    """A client manager for :class:`socketio.Server` that lets clients recover, on any node.

    Use it in place of :class:`socketio.RedisManager`, in the modes ``threading`` and ``gevent``, and with
    Flask-SocketIO::

        manager = RedisStreamsManager("redis://localhost:6379/0", max_disconnection_duration=120)
        sio = socketio.Server(async_mode="threading", client_manager=manager)
        socketio_ = flask_socketio.SocketIO(app, client_manager=manager)

    Or in a process without a server, from any of its threads::

        RedisStreamsManager("redis://localhost:6379/0", write_only=True).emit("news", "text", room="lobby")

    The parameters are those of :class:`AsyncRedisStreamsManager`, and so are the methods, but they are not awaited:
    each returns, or raises, when that of the asyncio manager would. Handlers run in the threads in which
    python-socketio runs them. Synchronous and asyncio nodes can be in one cluster.

    One more thread, with an event loop, does the work for all threads of the application. It starts with the first use,
    and in each process that is forked from this one anew.

    :raises ValueError: for a URL that can't be used, or a number that can't be.
    :raises TypeError: if ``url`` is not a URL.
    :raises RuntimeError: if the package that the URL needs is not installed.
    """

    name = "redisstreams"

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = False,
        logger: logging.Logger | None = None,
        json: Any = None,
        redis_options: dict[str, Any] | None = None,
        *,
        metrics: Metrics | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        if not isinstance(url, str):
            raise TypeError(f"RedisStreamsManager takes a URL of Redis, not {type(url).__name__}")
        self.logger = logger
        self.write_only = write_only
        self._bridge = Bridge(mode_of_process(), self._get_logger, self._begin_anew)
        arguments = (url, channel, write_only, logger, json, redis_options)
        self._new_core: Callable[[], _Core] = lambda: _Core(self, self._bridge, *arguments, metrics=metrics, **options)
        self._core = self._new_core()  # what is wrong with the arguments is an error here, not later
        self._facade: Facade | None = None
        self._watches: list[tuple[Any, str | None, Observer]] = []
        self._server_side: dict[str, ServerSideHandler] = {}
        self._hooks: ThreadHooks | None = None

    @property
    def host_id(self) -> str:
        """This process's name in the cluster. A process that was forked from this one has another."""
        return self._core.host_id

    # -- starting and stopping ----------------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        """Called by the server that this manager is given to.

        :raises TypeError: if the server is an asyncio one.
        :raises ValueError: for a mode other than ``threading`` and ``gevent``, and as the asyncio manager does.
        :raises UnsupportedVersion: if python-socketio or python-engineio lacks what this library relies on.
        """
        if not isinstance(server, socketio.Server):
            raise TypeError("RedisStreamsManager is for synchronous servers: use AsyncRedisStreamsManager in its place")
        self._bridge.mode = mode_of(server.eio.async_mode)
        super().set_server(server)
        FlaskSessions(server, self._bridge, lambda: self._parts()[0], self._get_logger).install()
        self._facade = Facade(server, self._bridge)
        self._core.set_server(self._facade)
        self._hooks = ThreadHooks(server, self._facade.original, self._bridge, self._parts)
        self._hooks.install()

    def _parts(self) -> tuple[Node, Facade]:
        assert self._core.node is not None
        assert self._facade is not None
        return self._core.node, self._facade

    def _begin_anew(self) -> None:
        """This process was forked from one in which the core had begun: it needs a core of its own."""
        keep(self._core, self._facade)
        self._core = self._new_core()
        if self._facade is not None:
            self._facade = Facade(self._facade.real, self._bridge, self._facade.original)
            self._core.set_server(self._facade)
        for watch in self._watches:
            self._watch(*watch)
        for event, handler in self._server_side.items():
            self._handle(event, handler)

    def initialize(self) -> None:
        """Called by python-socketio when the first client connects."""
        self._bridge.do(lambda: self._core.initialize())

    def start(self) -> None:
        """Starts to follow the log, and waits until this node does: :meth:`AsyncRedisStreamsManager.start`."""
        self._bridge.run(self._core.start)

    def raise_format(self) -> None:
        """Raises the log in Redis to the newest format: :meth:`AsyncRedisStreamsManager.raise_format`."""
        self._bridge.run(self._core.raise_format)

    def change_shards(self) -> None:
        """Gives the cluster as many partitions as this manager has: :meth:`AsyncRedisStreamsManager.change_shards`."""
        self._bridge.run(self._core.change_shards)

    def drain(self, over: float = 0, timeout: float = 30) -> None:
        """Sends this node's clients elsewhere before it stops: :meth:`AsyncRedisStreamsManager.drain`."""
        self._bridge.run(self._core.drain, over, timeout)

    def close(self) -> None:
        """Stores what is still to be stored, closes the connections to Redis, and ends the thread.

        See :meth:`AsyncRedisStreamsManager.close`. A second call does nothing.
        """
        if self._bridge.running:
            self._bridge.run(self._core.close)
        self._bridge.stop(ENDS)

    def __enter__(self) -> RedisStreamsManager:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def healthy(self) -> bool:
        """Whether this node follows the log now and takes clients: :attr:`AsyncRedisStreamsManager.healthy`.

        Asked before anything else, it starts the node. It raises nothing.
        """
        return not self.unhealthy_reasons

    @property
    def unhealthy_reasons(self) -> list[str]:
        """Why this node is not healthy: :attr:`AsyncRedisStreamsManager.unhealthy_reasons`."""
        try:
            return self._bridge.do(lambda: self._core.unhealthy_reasons)
        except RuntimeError as error:  # closed, or the thread has died, which is logged
            return [str(error)]

    @property
    def log_lag(self) -> float:
        """How far this node is behind the log, in seconds: :attr:`AsyncRedisStreamsManager.log_lag`."""
        return self._core.log_lag

    # -- recovery -----------------------------------------------------------------------------------

    def recovered(self, sid: str, namespace: str | None = None) -> bool:
        """Whether the client came back to the session it had: :meth:`AsyncRedisStreamsManager.recovered`."""
        return self._core.recovered(sid, namespace)

    def recovery_reason(self, sid: str, namespace: str | None = None) -> Outcome | None:
        """Why the client has a new session: :meth:`AsyncRedisStreamsManager.recovery_reason`."""
        return self._core.recovery_reason(sid, namespace)

    @property
    def outcomes(self) -> dict[str, int]:
        """How often clients connected with which outcome: :attr:`AsyncRedisStreamsManager.outcomes`."""
        return self._core.outcomes

    # -- events and rooms ---------------------------------------------------------------------------

    def emit(
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
        """Emits an event to one client, to rooms, or to everybody: :meth:`AsyncRedisStreamsManager.emit`.

        A callback runs in a thread of the application.
        """
        if callback is None and not kwargs.get("ignore_queue") and not is_admin_ui(self.server, namespace or "/"):
            entry = self._core.entry(event, data, namespace, to or room, skip_sid, volatile)
            if entry is not None:
                self._bridge.append(partial(self._core.log, namespace), entry)
            return
        if callable(callback):
            callback = self._bridge.awaitable(callback)
        self._bridge.run(self._core.emit, event, data, namespace, room, skip_sid, callback, to, volatile, **kwargs)

    def emit_with_ack(
        self,
        event: str,
        data: Any = None,
        room: Any = None,
        namespace: str | None = None,
        skip_sid: Any = None,
        timeout: float = 60,
        to: Any = None,
    ) -> Answers:
        """Emits an event, and gathers what clients acknowledge: :meth:`AsyncRedisStreamsManager.emit_with_ack`."""
        return self._bridge.run(self._core.emit_with_ack, event, data, room, namespace, skip_sid, timeout, to)

    def trigger_callback(self, sid: str, id: int, data: Sequence[Any]) -> None:
        """A client acknowledged an event; the emitter, on whatever node, is told."""
        self._bridge.run(self._core.trigger_callback, sid, id, data)

    def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Adds a client to a room, whatever node it is on: :meth:`AsyncRedisStreamsManager.enter_room`."""
        self._bridge.run(self._core.enter_room, sid, namespace, room, eio_sid)

    def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Removes a client from a room, whatever node it is on: :meth:`AsyncRedisStreamsManager.leave_room`."""
        self._bridge.run(self._core.leave_room, sid, namespace, room)

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        """Removes all clients from a room, on all nodes: :meth:`AsyncRedisStreamsManager.close_room`."""
        self._bridge.run(self._core.close_room, room, namespace)

    # -- participants -------------------------------------------------------------------------------

    def participants(self, room: Any = None, namespace: str | None = None) -> list[Participant]:
        """Who is in a room, or in a namespace, on all nodes: :meth:`AsyncRedisStreamsManager.participants`."""
        return self._bridge.run(self._core.participants, room, namespace)

    def count(self, room: Any = None, namespace: str | None = None) -> Count:
        """How many are in a room, or in a namespace, on all nodes: :meth:`AsyncRedisStreamsManager.count`."""
        return self._bridge.run(self._core.count, room, namespace)

    def on_participants(
        self, room: Any = None, namespace: str | None = None, observer: Observer | None = None
    ) -> Callable[[Observer], Observer]:
        """Registers a function that is told who joins, leaves, loses its connection and returns, on all nodes.

        See :meth:`AsyncRedisStreamsManager.on_participants`. The function runs in a thread of the application.
        """

        def register(observer: Observer) -> Observer:
            self._watch(room, namespace, observer)
            self._watches.append((room, namespace, observer))  # for the core of a forked process
            return observer

        if observer is not None:
            register(observer)
        return register

    def _watch(self, room: Any, namespace: str | None, observer: Observer) -> None:
        self._register(lambda: self._core.on_participants(room, namespace, self._bridge.awaitable(observer)))

    def _register(self, register: Callable[[], object]) -> None:
        """Registers something with the core: on its event loop, if that runs."""
        if self._bridge.running:
            self._bridge.do(register)
        else:
            register()

    # -- operations on many -------------------------------------------------------------------------

    def sockets_join(self, rooms: Any, to: Any = None, namespace: str | None = None, skip_sid: Any = None) -> int:
        """Adds clients to rooms, wherever they are: :meth:`AsyncRedisStreamsManager.sockets_join`."""
        return self._bridge.run(self._core.sockets_join, rooms, to, namespace, skip_sid)

    def sockets_leave(self, rooms: Any, to: Any = None, namespace: str | None = None, skip_sid: Any = None) -> int:
        """Removes clients from rooms, wherever they are: :meth:`AsyncRedisStreamsManager.sockets_leave`."""
        return self._bridge.run(self._core.sockets_leave, rooms, to, namespace, skip_sid)

    def disconnect_sockets(self, to: Any = None, namespace: str | None = None, skip_sid: Any = None) -> int:
        """Ends the sessions of clients, wherever they are: :meth:`AsyncRedisStreamsManager.disconnect_sockets`."""
        return self._bridge.run(self._core.disconnect_sockets, to, namespace, skip_sid)

    def fetch_sockets(self, to: Any = None, namespace: str | None = None) -> list[Participant]:
        """The clients in rooms, or in a namespace: :meth:`AsyncRedisStreamsManager.fetch_sockets`."""
        return self._bridge.run(self._core.fetch_sockets, to, namespace)

    # -- events between nodes -----------------------------------------------------------------------

    def on_server_side(
        self, event: str, handler: ServerSideHandler | None = None
    ) -> Callable[[ServerSideHandler], ServerSideHandler]:
        """Registers a function that runs when another process emits an event to the nodes.

        See :meth:`AsyncRedisStreamsManager.on_server_side`. The function runs in a thread of the application.
        """

        def register(handler: ServerSideHandler) -> ServerSideHandler:
            self._handle(event, handler)
            self._server_side[event] = handler  # for the core of a forked process
            return handler

        if handler is not None:
            register(handler)
        return register

    def _handle(self, event: str, handler: ServerSideHandler) -> None:
        self._register(lambda: self._core.on_server_side(event, self._bridge.awaitable(handler)))

    def server_side_emit(self, event: str, *args: Any) -> None:
        """Emits an event to all other nodes: :meth:`AsyncRedisStreamsManager.server_side_emit`."""
        self._bridge.run(self._core.server_side_emit, event, *args)

    def server_side_call(self, event: str, *args: Any, timeout: float = 5) -> Answers:
        """Emits an event to all other nodes, and gathers answers: :meth:`AsyncRedisStreamsManager.server_side_call`."""
        return self._bridge.run(self._core.server_side_call, event, *args, timeout=timeout)

    def basic_enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        """Called when a client of this node has entered a room, if somebody has wrapped it."""

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Called when a client of this node has left a room, if somebody has wrapped it."""

    # -- what python-socketio asks ------------------------------------------------------------------

    def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        assert self._hooks is not None
        self._hooks.check()
        return self._bridge.run(self._core.pre_connect, eio_sid, namespace)

    def connect(self, sid: str, namespace: str) -> str:
        return self._bridge.run(self._core.connect, sid, namespace)

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        return self._core.is_pre_connected(sid, namespace)

    def is_connected(self, sid: str | None, namespace: str) -> bool:
        return self._core.is_connected(sid, namespace)

    def can_disconnect(self, sid: str, namespace: str) -> bool:
        return self._bridge.run(self._core.can_disconnect, sid, namespace)

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        return self._bridge.do(self._core.pre_disconnect, sid, namespace)

    def disconnect(self, sid: str, namespace: str | None = None, **kwargs: Any) -> None:
        """Ends a client's session, whatever node it is on, or between two connections."""
        self._bridge.run(self._core.disconnect, sid, namespace, **kwargs)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return self._core.sid_from_eio_sid(eio_sid, namespace)

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        return self._core.eio_sid_from_sid(sid, namespace)

    def get_namespaces(self) -> Iterable[str]:
        """The namespaces that have clients on this node."""
        return self._core.get_namespaces()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """The clients of this node in a room, or in any of a list of rooms: ``(sid, eio_sid)``."""
        yield from self._bridge.do(lambda: list(self._core.get_participants(namespace, room)))

    def get_rooms(self, sid: str, namespace: str) -> list[Room]:
        """The rooms of a client of this node: :meth:`AsyncRedisStreamsManager.get_rooms`."""
        return self._bridge.do(self._core.get_rooms, sid, namespace)

    def is_sid_room(self, namespace: str, room: Any) -> bool:
        return self._core.is_sid_room(namespace, room)

    @property
    def rooms(self) -> Mapping[str, Mapping[Room, Mapping[str, str]]]:
        """``rooms[namespace][room][sid] = eio_sid`` for this node's clients, as it is now: a copy."""
        if not hasattr(self, "_core") or self._core.node is None:
            return {}
        view = self._core.rooms
        return self._bridge.do(
            lambda: {
                namespace: {room: dict(members) for room, members in rooms.items()} for namespace, rooms in view.items()
            }
        )

    @rooms.setter
    def rooms(self, value: object) -> None:
        """The base class sets its own, which is not used here."""
