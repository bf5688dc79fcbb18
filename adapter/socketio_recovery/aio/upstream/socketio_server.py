"""python-socketio's server: what this library calls of it, and the hooks that it sets.

python-socketio asks its client manager for little more than a ``sid`` when a client connects, and does not tell it why
one leaves. Recovery needs the client's ``pid`` and offset, a word in the CONNECT packet, and the difference between a
client that left and a transport that was lost. So methods of the server *instance* are wrapped, each around the
original, which still does its work. ``table.py`` lists them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from socketio.packet import ACK, BINARY_ACK, CONNECT, DISCONNECT

from ...connections import Connection, NodeConnections
from ...errors import HooksReplaced
from ...packets import Message
from .. import scope
from ..scope import Scope
from .engineio_transport import Transports
from .redaction import redact
from .table import HOOKS, verify

if TYPE_CHECKING:
    from ..membership_log import Move
    from ..shard import Shard, Shards

#: How large a binary packet may be, with all its attachments, in messages as large as the server takes.
MESSAGES_PER_PACKET = 16

_ENGINEIO_EVENTS = {
    "connect": "_handle_eio_connect",
    "message": "_handle_eio_message",
    "disconnect": "_handle_eio_disconnect",
}


class SocketIOServer:
    """A server as it was before hooks were set.

    :param server: a :class:`socketio.AsyncServer`.
    :raises UnsupportedVersion: if the installed python-socketio or python-engineio lacks what this library relies on.
    """

    def __init__(self, server: Any) -> None:
        verify(server)
        self.server = server
        self.TRANSPORT_CLOSE: str = server.reason.TRANSPORT_CLOSE
        self.original = {hook.name: getattr(server, hook.name) for hook in HOOKS}

    def environ(self, transport: str) -> dict[str, Any]:
        """The WSGI environ of a transport's first request."""
        environ: dict[str, Any] = self.server.environ.get(transport, {})
        return environ

    def generate_sid(self) -> str:
        """A new session id."""
        return str(self.server.eio.generate_id())

    async def connect(self, transport: str, namespace: str, auth: Any) -> None:
        """Has python-socketio take a client in: ``pre_connect``, the ``connect`` handler, CONNECT, ``connect``."""
        await self.original["_handle_connect"](transport, namespace, auth)

    async def leave(self, transport: str, namespace: str, reason: str | None) -> None:
        """Has python-socketio run the ``disconnect`` handler of a connection, then ``manager.disconnect``."""
        await self.original["_handle_disconnect"](transport, namespace, reason)

    async def disconnect(self, sid: str, namespace: str, ignore_queue: bool) -> None:
        """Has python-socketio disconnect a client of this node, or ask the manager to."""
        await self.original["disconnect"](sid, namespace=namespace, ignore_queue=ignore_queue)

    async def trigger(self, event: str, namespace: str, *arguments: Any) -> Any:
        """Runs an event handler of the application, through everything that was put around it."""
        return await self.server._trigger_event(event, namespace, *arguments)


class Hooks:
    """What is called in place of the server's own methods.

    :param skip_connect_handler: whether the ``connect`` handler is left out on recovery.
    """

    def __init__(
        self,
        server: SocketIOServer,
        transports: Transports,
        connections: NodeConnections,
        shards: Shards[Shard],
        skip_connect_handler: bool,
        logger: logging.Logger,
    ) -> None:
        self.server = server.server
        self.original = server.original
        self.transports = transports
        self.connections = connections
        self.shards = shards
        self.skip_connect_handler = skip_connect_handler
        self.logger = logger
        self._checked = False

    def install(self) -> None:
        """Sets the hooks. Only the composition root calls this, when everything else is made."""
        redact(self.server.eio.logger)
        for hook in HOOKS:
            setattr(self.server, hook.name, getattr(self, hook.name.removeprefix("_")))
        for event, name in _ENGINEIO_EVENTS.items():
            self.server.eio.on(event, getattr(self.server, name))

    def check(self, transport: str) -> None:
        """Looks, when the first client connects, whether the hooks are still in place.

        Others may wrap them in turn, as ``sio.instrument()`` does. But they have to be called.

        :raises HooksReplaced: names those that are not.
        """
        if self._checked:
            return
        scope_here = scope.current()
        socket = self.transports.socket(transport)
        lost = [hook.name for hook in HOOKS if self._is_original(getattr(self.server, hook.name, None), hook.name)]
        lost += [
            f"the Engine.IO handler of {event!r}"
            for event, name in _ENGINEIO_EVENTS.items()
            if self._is_original(self.server.eio.handlers.get(event), name)
        ]
        if scope_here is None or scope_here.request is None:
            lost.append("_handle_connect")
        if socket is not None and not self.transports.watches(socket):
            lost.append("create_queue, or the Engine.IO handler of 'connect'")
        if lost:
            raise HooksReplaced(
                f"recovery can't work: {', '.join(dict.fromkeys(lost))} of the Socket.IO server was replaced after the "
                "client manager was set. Wrap what is there and call it, or wrap before the server is made"
            )
        self._checked = True

    def _is_original(self, found: Any, name: str) -> bool:
        return found is None or found == self.original[name]

    # -- connecting ---------------------------------------------------------------------------------

    async def handle_connect(self, transport: str, namespace: str | None, data: Any) -> None:
        namespace = namespace or "/"
        await self.shards.of(namespace).connecting.handle(transport, namespace, data)

    async def send_packet(self, transport: str, packet: Any) -> None:
        kind = packet.packet_type
        if kind in (CONNECT, DISCONNECT, ACK, BINARY_ACK):
            connection = self.connections.by_transport(transport).get(packet.namespace or "/")
            if connection is not None:
                if kind == CONNECT:
                    if self.greets(connection, packet):
                        return
                elif kind == DISCONNECT:
                    await self.of(connection).leaving.disconnect_packet(connection)
                else:
                    await self.of(connection).catch_up.over(connection)  # it comes after what was emitted
        await self.original["_send_packet"](transport, packet)

    def greets(self, connection: Connection, packet: Any) -> bool:
        """Whether a CONNECT packet was for a connection whose handshake this is. Then it is sent. Any thread may call.

        ``send`` of the Engine.IO socket is left out: it logs what it sends, and the ``pid`` is a secret.
        """
        if scope.connecting() is not connection:
            return False
        packet.data = self.of(connection).connecting.greeting(connection, packet.data)
        connection.socket.queue.put_nowait(Message(packet.encode()))
        return True

    def skips(self, connection: Connection) -> bool:
        """Whether a client's ``connect`` handler is left out."""
        return self.skip_connect_handler and connection.recovered

    async def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        if event == "connect":
            here, connection = scope.current(), scope.own(namespace, args[0])
            if here is not None and here.request is not None and connection is not None:
                if self.skips(connection):
                    return None
                return await self._connect_handler(here, namespace, args)
        if event == "disconnect":
            connection = self._find(namespace, args[0])
            if connection is not None and await self.of(connection).leaving.handler_ran_elsewhere(connection):
                return None
        return await self.original["_trigger_event"](event, namespace, *args)

    async def _connect_handler(self, here: Scope, namespace: str, args: Sequence[Any]) -> Any:
        """Runs the ``connect`` handler. What it does to its client's rooms is queued, and awaited when it is over."""
        membership = self.shards.of(namespace).membership
        moves: list[Move] = []
        here.moves = moves
        try:
            result = await self.original["_trigger_event"]("connect", namespace, *args)
        except BaseException:
            here.moves = None
            with suppress(Exception):  # what the handler raised counts
                await membership.settle(moves)
            raise
        here.moves = None
        await membership.settle(moves)
        return result

    def of(self, connection: Connection) -> Shard:
        """The shard of the partition that a connection follows."""
        return self.shards.of(connection.namespace)

    def _find(self, namespace: str, sid: str | None) -> Connection | None:
        return scope.find(self.connections, namespace, sid)

    # -- leaving ------------------------------------------------------------------------------------

    async def handle_disconnect(self, transport: str, namespace: str | None, reason: str | None = None) -> None:
        connection = self.connections.by_transport(transport).get(namespace or "/")
        if connection is None:
            return
        here = scope.current()
        if here is not None and here.lost == transport:  # it was in its handshake when the transport was lost
            leaving = self.of(connection).leaving
            await leaving.connection_lost(connection, reason or self.server.reason.TRANSPORT_CLOSE)
        else:
            await self.of(connection).leaving.client_left(connection, reason)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Disconnects a client, on whatever node it is, unless ``ignore_queue``. See ``AsyncServer``."""
        namespace = namespace or "/"
        await self.shards.of(namespace).leaving.disconnect(sid, namespace, ignore_queue)

    # -- Engine.IO ----------------------------------------------------------------------------------

    async def handle_eio_connect(self, transport: str, environ: dict[str, Any]) -> Any:
        result = await self.original["_handle_eio_connect"](transport, environ)
        socket = self.transports.socket(transport)
        if socket is not None:
            self.transports.watch(socket)
        return result

    async def handle_eio_message(self, transport: str, data: str | bytes) -> None:
        """A message from a client. python-socketio keeps any number of attachments until a packet is complete."""
        await self.original["_handle_eio_message"](transport, data)
        if self.exceeds(transport, data):
            self.transports.close_transport(transport)

    def exceeds(self, transport: str, data: str | bytes) -> bool:
        """Whether the binary packet that a message belongs to has just become too large."""
        packet = self.server._binary_packet.get(transport)
        if packet is None:
            return False
        limit = MESSAGES_PER_PACKET * self.server.eio.max_http_buffer_size
        before: int = getattr(packet, "size", 0)
        packet.size = before + len(data) + 100  # 100: what an empty attachment costs, roughly
        if packet.size <= limit:
            return False
        packet.attachments.clear()  # and those that come until the transport is closed
        if before <= limit:
            self.logger.warning("a client sends a packet with too many attachments; closing its transport")
        return bool(before <= limit)

    async def handle_eio_disconnect(self, transport: str, reason: str) -> None:
        self.transports.lost(transport)
        for shard in self.shards:
            await shard.leaving.transport_lost(transport, reason)
        self.server._binary_packet.pop(transport, None)
        with Scope(lost=transport):
            await self.original["_handle_eio_disconnect"](transport, reason)

    # -- the rest -----------------------------------------------------------------------------------

    async def handle_event(self, transport: str, namespace: str | None, id: Any, data: Any) -> None:
        """An event from a client."""
        if self.is_event(data):
            await self.original["_handle_event"](transport, namespace, id, data)

    def is_event(self, data: Any) -> bool:
        """Whether it is a list that begins with the event's name, which is none of python-socketio's own.

        By those names python-socketio would run the ``connect`` handler with an ``environ`` that the client made, or
        the ``disconnect`` handler of a client that stays.
        """
        name = data[0] if isinstance(data, list) and data else None
        if isinstance(name, (str, int)) and name not in self.server.reserved_events:
            return True
        self.logger.info("a client sends what is no event, or one that only the server may cause: left out")
        return False

    async def get_session(self, sid: str, namespace: str | None = None) -> Any:
        """See ``AsyncServer.get_session``."""
        connection = self._find(namespace or "/", sid)
        if connection is not None:
            return self.of(connection).session_data.get(connection)
        return await self.original["get_session"](sid, namespace=namespace)

    async def save_session(self, sid: str, session: Any, namespace: str | None = None) -> None:
        """Stores the session's data, here and in its record. See ``AsyncServer.save_session``.

        :raises TypeError: for data that would come back changed; the message names the key. Nothing is stored.
        :raises SessionGone: if the session has another owner by now.
        """
        connection = self._find(namespace or "/", sid)
        if connection is not None:
            await self.of(connection).session_data.save(connection, session)
        else:
            await self.original["save_session"](sid, session, namespace=namespace)

    async def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Any = None,
        ignore_queue: bool = False,
        volatile: bool = False,
    ) -> None:
        """``AsyncServer.emit``, with ``volatile``: an event that need not be replayed to clients that missed it."""
        if not volatile:
            await self.original["emit"](event, data, to, room, skip_sid, namespace, callback, ignore_queue)
            return
        await self.server.manager.emit(
            *(event, data, namespace or "/"),
            room=to or room,
            skip_sid=skip_sid,
            callback=callback,
            ignore_queue=ignore_queue,
            volatile=True,
        )
