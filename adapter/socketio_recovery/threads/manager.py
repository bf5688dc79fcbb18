"""``RedisStreamsManager``: what synchronous servers and applications call. The work is the asyncio manager's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import socketio

from ..aio.manager import AsyncRedisStreamsManager
from ..aio.node import Node
from ..connections import Connections, State
from ..continuity import can_recover
from ..entries import Room
from ..metrics import Metrics
from ..reasons import Outcome
from .bridge import Bridge
from .modes import Gevent, Mode, Threading
from .upstream.engineio_transport import ThreadTransports
from .upstream.flask_socketio import FlaskSessions
from .upstream.socketio_server import Facade, ThreadHooks

#: The modes of python-socketio that are supported.
MODES: dict[str, Callable[[], Mode]] = {"threading": Threading, "gevent": Gevent}


class _Core(AsyncRedisStreamsManager):
    """The asyncio manager behind a synchronous one."""

    def __init__(self, bridge: Bridge, *arguments: Any, **options: Any) -> None:
        self.bridge = bridge
        self._transports = partial(ThreadTransports, bridge=bridge)
        super().__init__(*arguments, **options)


class RedisStreamsManager(socketio.Manager):  # type: ignore[misc]
    """A client manager for :class:`socketio.Server` that lets clients recover, on any node.

    Use it in place of :class:`socketio.RedisManager`, with ``async_mode="threading"`` or ``"gevent"``, and with
    Flask-SocketIO::

        manager = RedisStreamsManager("redis://localhost:6379/0", max_disconnection_duration=120)
        sio = socketio.Server(async_mode="threading", client_manager=manager)
        socketio_ = flask_socketio.SocketIO(app, client_manager=manager)

    It takes the same arguments as :class:`AsyncRedisStreamsManager`, and has the same methods, which are not awaited.
    Synchronous and asyncio nodes can be in one cluster. One thread with an event loop does the work for all threads of
    the application. It starts with the first use, and in a process that was forked anew.
    """

    name = "redisstreams"

    def __init__(
        self,
        url: Any = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = False,
        logger: logging.Logger | None = None,
        json: Any = None,
        redis_options: dict[str, Any] | None = None,
        *,
        can_recover: Callable[[Mapping[str, Any]], bool] = can_recover,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.logger = logger
        self.write_only = write_only
        self._bridge = Bridge(Threading(), self._get_logger)
        options |= {"can_recover": can_recover, "metrics": metrics}
        self._new_core = lambda: _Core(
            self._bridge, url, channel, write_only, logger, json, redis_options, **options
        )
        self._core = self._new_core()  # what is wrong with the arguments is an error here, not later
        self._facade: Facade | None = None
        self._hooks: ThreadHooks | None = None

    # -- starting and stopping ----------------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        """Called by the server that this manager is given to."""
        super().set_server(server)
        self._bridge.mode = MODES[server.eio.async_mode]()
        flask = FlaskSessions(server, self._bridge, lambda: self._parts()[0], self._get_logger)
        self._facade = Facade(server, self._bridge, flask.around)
        self._core.set_server(self._facade)
        self._hooks = ThreadHooks(server, self._facade.original, self._bridge, self._parts, flask.opened)
        self._hooks.install()

    def _parts(self) -> tuple[Node, Facade]:
        assert self._core.node is not None
        assert self._facade is not None
        return self._core.node, self._facade

    def initialize(self) -> None:
        """Called by python-socketio when the first client connects."""
        self._bridge.do(self._core.initialize)

    def start(self) -> None:
        """See :meth:`AsyncRedisStreamsManager.start`."""
        self._bridge.run(self._core.start)

    def drain(self, over: float = 0, timeout: float = 30) -> None:
        """See :meth:`AsyncRedisStreamsManager.drain`."""
        self._bridge.run(self._core.drain, over, timeout)

    def close(self) -> None:
        """See :meth:`AsyncRedisStreamsManager.close`."""
        if self._bridge.running:
            self._bridge.run(self._core.close)
        self._bridge.stop(5)

    @property
    def healthy(self) -> bool:
        """See :attr:`AsyncRedisStreamsManager.healthy`."""
        return self._bridge.do(lambda: self._core.healthy)

    # -- recovery -----------------------------------------------------------------------------------

    def recovered(self, sid: str, namespace: str | None = None) -> bool:
        return self._core.recovered(sid, namespace)

    def recovery_reason(self, sid: str, namespace: str | None = None) -> Outcome | None:
        return self._core.recovery_reason(sid, namespace)

    @property
    def outcomes(self) -> dict[str, int]:
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
        """See :meth:`AsyncRedisStreamsManager.emit`."""
        if callable(callback):
            callback = self._bridge.awaitable(callback)
        self._bridge.run(self._core.emit, event, data, namespace, room, skip_sid, callback, to, volatile, **kwargs)

    def trigger_callback(self, sid: str, id: int, data: Sequence[Any]) -> None:
        self._bridge.run(self._core.trigger_callback, sid, id, data)

    def enter_room(self, sid: str, namespace: str, room: Any, eio_sid: str | None = None) -> None:
        self._bridge.run(self._core.enter_room, sid, namespace, room, eio_sid)

    def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        self._bridge.run(self._core.leave_room, sid, namespace, room)

    def close_room(self, room: Any, namespace: str | None = None) -> None:
        self._bridge.run(self._core.close_room, room, namespace)

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
        self._bridge.run(self._core.disconnect, sid, namespace, **kwargs)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return self._core.sid_from_eio_sid(eio_sid, namespace)

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        return self._core.eio_sid_from_sid(sid, namespace)

    def get_namespaces(self) -> Iterable[str]:
        return self._core.get_namespaces()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        yield from self._bridge.do(lambda: list(self._core.get_participants(namespace, room)))

    def get_rooms(self, sid: str, namespace: str) -> list[Room]:
        return self._bridge.do(self._core.get_rooms, sid, namespace)

    def is_sid_room(self, namespace: str, room: Any) -> bool:
        return self._core.is_sid_room(namespace, room)

    @property
    def rooms(self) -> Mapping[str, Mapping[Room, Mapping[str, str]]]:
        return self._core.rooms

    @rooms.setter
    def rooms(self, value: object) -> None:
        """The base class sets its own, which is not used here."""
