"""Transports of a synchronous server; see ``aio/upstream/engineio_transport.py`` for what they are to the core."""

from __future__ import annotations

import asyncio
from typing import Any

from engineio.packet import PING

from ...aio.tasks import KeyedQueue
from ...aio.upstream.engineio_transport import LINGER, Transports
from ...connections import NodeConnections
from ..bridge import Bridge
from ..send_queue import ThreadSendQueue
from .websocket import SharedSocket, WholeWebSocket, shared_socket


class _Sockets(dict[str, Any]):
    """The sockets of a server by their ids. Threads may remove one at the same time: to remove it twice is no error."""

    def __delitem__(self, sid: str) -> None:
        self.pop(sid, None)


class ThreadTransports(Transports):
    """The transports of one synchronous Engine.IO server. All but :meth:`watch` is for the event loop.

    :param server: the core's view of an :class:`engineio.Server`, whose sockets get send queues from now on.
    :param connections: are told of pings and pongs.
    """

    def __init__(self, server: Any, connections: NodeConnections, tasks: KeyedQueue, bridge: Bridge) -> None:
        empty = server.get_queue_empty_exception()
        super().__init__(server.real, connections, tasks, lambda: ThreadSendQueue(bridge.mode, empty, bridge.soon))
        self.server.sockets = _Sockets(self.server.sockets)
        self.bridge = bridge
        self._sockets: dict[str, SharedSocket] = {}

    def watches(self, socket: Any) -> bool:
        """Whether an Engine.IO socket is as :meth:`watch` has left it."""
        return isinstance(socket.queue, ThreadSendQueue) and "schedule_ping" in vars(socket)

    def close(self, socket: Any) -> None:
        """Closes an Engine.IO socket so that its client comes back, at once and on either transport."""

        async def close() -> None:
            socket.queue.put(None)  # ends the WebSocket's writer: the client need not wait for handlers
            await self.bridge.call(socket.close, wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
            socket.queue.put(None)  # ends a poll that waits
            self.server.sockets.pop(socket.sid, None)  # a POST that is on its way would be an error of the server

        self.tasks.start(("transport", socket.sid), close)

    def lost(self, transport: str) -> None:
        """A transport is lost: replays that wait for its client end, and its WebSocket is cut after a while."""
        socket = self.socket(transport)
        if socket is not None and isinstance(socket.queue, ThreadSendQueue):
            socket.queue.wake()
        if transport in self._sockets:
            asyncio.get_running_loop().call_later(LINGER, self._cut, transport)

    def _cut(self, transport: str) -> None:
        if (shared := self._sockets.get(transport)) is not None:
            shared.cut()

    def watch(self, socket: Any) -> None:
        """Notes what was sent before each ping, and when its pong comes; opens the fast path for a WebSocket.

        Called before the client is told of its transport. What it sets is called in the client's threads.
        """
        send, schedule_ping, serve = socket.send, socket.schedule_ping, socket._websocket_handler

        def watched_websocket(websocket: Any) -> Any:
            queue = socket.queue
            shared = shared_socket(websocket) if isinstance(queue, ThreadSendQueue) else None
            if shared is None:
                return serve(websocket)
            twice = socket.sid in self._sockets  # a client upgrades twice at once: which one it goes on with?
            queue.open(socket, None if twice else shared)
            self._sockets[socket.sid] = shared
            try:
                return serve(WholeWebSocket(websocket))
            finally:
                if self._sockets.get(socket.sid) is shared:
                    del self._sockets[socket.sid]
                queue.close()
                shared.close()

        def watched_send(packet: Any) -> None:
            if packet.packet_type == PING:
                self.bridge.do(self.connections.pinged, socket.sid)
            send(packet)

        def watched_schedule_ping() -> None:  # python-engineio calls it when a pong comes
            if socket.last_ping:
                self.bridge.soon(self.connections.ponged, socket.sid)
            schedule_ping()

        socket.send, socket.schedule_ping = watched_send, watched_schedule_ping
        socket._websocket_handler = watched_websocket
