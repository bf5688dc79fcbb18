"""Transports: python-engineio's sockets, their pings, their WebSockets, and how they are closed.

A transport that is closed so that its client comes back must not send an Engine.IO CLOSE or a Socket.IO DISCONNECT.
JavaScript clients do not come back from the latter, and only after seconds from the former.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from engineio.packet import PING

from ...connections import NodeConnections
from ..send_queue import SendQueue
from ..tasks import KeyedQueue
from .asgi_transport import Wire
from .asgi_transport import wire as asgi_wire

#: How long a WebSocket may take to close before its TCP connection is cut, in seconds.
LINGER = 1.0


def is_open(socket: Any) -> bool:
    """Whether packets can still reach the client of an Engine.IO socket."""
    return not (socket.closed or socket.closing)


def _wire(websocket: Any) -> Wire | None:
    """What is below a WebSocket of one of python-engineio's drivers; ``None`` if that can't be told."""
    request = getattr(websocket, "environ", {}).get("aiohttp.request")
    if request is None:
        return asgi_wire(websocket)
    if request.transport is None:  # the client has gone
        return None
    return Wire(request.transport, lambda: True, lambda: bool(websocket._sock.compress))


class Transports:
    """The transports of one Engine.IO server.

    :param server: an :class:`engineio.AsyncServer`; its sockets get send queues from now on.
    :param connections: are told of pings and pongs.
    :param queue: makes a send queue.
    """

    def __init__(
        self, server: Any, connections: NodeConnections, tasks: KeyedQueue, queue: Callable[[], Any] = SendQueue
    ) -> None:
        self.server = server
        self.connections = connections
        self.tasks = tasks
        self._websockets: dict[str, tuple[Any, Wire | None]] = {}
        server.create_queue = queue

    def socket(self, transport: str) -> Any:
        """The Engine.IO socket of a transport; ``None`` if it is gone."""
        return self.server.sockets.get(transport)

    def watches(self, socket: Any) -> bool:
        """Whether an Engine.IO socket is as :meth:`watch` has left it."""
        return isinstance(socket.queue, SendQueue) and isinstance(socket, _Watched)

    def close(self, socket: Any) -> None:
        """Closes an Engine.IO socket so that its client comes back, at once and on either transport."""

        async def close() -> None:
            socket.queue.put_nowait(None)  # ends the WebSocket's writer: the client need not wait for handlers
            await socket.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
            socket.queue.put_nowait(None)  # ends a poll that waits
            self.server.sockets.pop(socket.sid, None)  # a POST that is on its way would be an error of the server

        self.tasks.start(("transport", socket.sid), close)

    def close_transport(self, transport: str) -> None:
        """Closes a transport by its Engine.IO session id, if it is still there."""
        socket = self.socket(transport)
        if socket is not None:
            self.close(socket)

    def lost(self, transport: str) -> None:
        """A transport is lost: replays that wait for its client end.

        If the client does not read, its WebSocket would stay open until TCP gives up. So it is cut after a while.
        """
        socket = self.socket(transport)
        if socket is not None and isinstance(socket.queue, SendQueue):
            socket.queue.wake()  # also for a replay whose connection is not registered any more
        _, wire = self._websockets.get(transport, (None, None))
        if wire is not None:
            # Also when the server is done with the WebSocket: what it wrote last may wait for the client for ever.
            asyncio.get_running_loop().call_later(LINGER, wire.tcp.abort)

    def watch(self, socket: Any) -> None:
        """Notes what was sent before each ping, and when its pong comes; opens the fast path for a WebSocket."""
        kind: Any = type(socket)
        socket.__class__ = _watched(kind)
        socket.transports = self

    async def serve(self, socket: Any, websocket: Any, serve: Callable[[Any], Awaitable[Any]]) -> Any:
        """Serves a WebSocket of a socket, with the fast path open."""
        queue, wire = socket.queue, _wire(websocket)
        if not isinstance(queue, SendQueue):  # something replaced create_queue; Hooks.check says so
            return await serve(websocket)
        if socket.sid in self._websockets:  # a client upgrades twice at once: which one it goes on with is not known
            queue.close()
        elif wire is not None:
            queue.open(socket, wire.tcp, wire.is_open, wire.compresses)
        mine = self._websockets[socket.sid] = (websocket, wire)
        try:
            return await serve(websocket)
        finally:
            if self._websockets.get(socket.sid) is mine:
                del self._websockets[socket.sid]
            queue.close()


class _Watched:
    """What a watched Engine.IO socket does, beside what its own class does.

    The class of a socket is changed once it is there. Functions on each socket in place of methods would take 1 kB for
    each client, and keep what a client leaves behind until the garbage collector comes.
    """

    sid: str
    last_ping: float | None
    transports: Transports

    async def send(self, pkt: Any) -> None:
        if pkt.packet_type == PING:
            self.transports.connections.pinged(self.sid)
        await super().send(pkt)  # type: ignore[misc]

    def schedule_ping(self) -> None:  # python-engineio calls it when a pong comes
        if self.last_ping:
            self.transports.connections.ponged(self.sid)
        super().schedule_ping()  # type: ignore[misc]

    async def _websocket_handler(self, ws: Any) -> Any:
        return await self.transports.serve(self, ws, super()._websocket_handler)  # type: ignore[misc]


@functools.cache
def _watched(kind: type) -> type:
    """The class of watched sockets, for those of a class."""
    return type(kind.__name__, (_Watched, kind), {})
