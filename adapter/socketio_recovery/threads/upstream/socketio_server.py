"""python-socketio's synchronous server: as the asyncio core sees it, and the hooks that are set in it.

The core is written for :class:`socketio.AsyncServer`. :class:`Facade` looks like one: what the core awaits of it runs
in the threads of the real server (:mod:`..bridge`). The core sets its hooks in the facade. :class:`ThreadHooks` sets
functions in the real server that call those on the event loop, or do at once what needs no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import socketio
from socketio.packet import ACK, BINARY_ACK, CONNECT, DISCONNECT

from ...aio import scope
from ...aio.membership_log import Move
from ...aio.node import Node
from ...aio.scope import Scope
from ...connections import Connection, State
from ...continuity import requested
from ...errors import HooksReplaced
from ..bridge import Bridge
from .table import HOOKS, verify

_ENGINEIO_EVENTS = {
    "connect": "_handle_eio_connect",
    "message": "_handle_eio_message",
    "disconnect": "_handle_eio_disconnect",
}


class EngineIOFacade:
    """An :class:`engineio.Server` as the core sees it: handlers that are set here are the core's."""

    def __init__(self, server: Any) -> None:
        self.real = server
        self.handlers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def on(self, event: str, handler: Any) -> None:
        self.handlers[event] = handler


class Facade:
    """A :class:`socketio.Server` as the core sees it.

    What the core sets in it are its hooks. What the core calls of it are the methods of the real server: as they were
    at first, until hooks are set; then as they are, with all that others have put around them.

    :param original: the server's own methods, if hooks are set in it already.
    :raises UnsupportedVersion: if the installed packages lack what this library relies on.
    """

    real: socketio.Server
    eio: EngineIOFacade
    #: The real server's own methods.
    original: dict[str, Any]
    #: The hooks that the core has set.
    hooks: dict[str, Callable[..., Coroutine[Any, Any, Any]]]
    _bridge: Bridge

    def __init__(self, server: socketio.Server, bridge: Bridge, original: dict[str, Any] | None = None) -> None:
        verify()
        original = original or {hook.name: getattr(server, hook.name) for hook in HOOKS}
        eio = EngineIOFacade(server.eio)
        vars(self).update(real=server, eio=eio, original=original, hooks={}, _bridge=bridge)

    def __setattr__(self, name: str, value: Any) -> None:
        self.hooks[name] = value

    def __getattr__(self, name: str) -> Any:
        if name not in self.original:
            return getattr(self.real, name)
        return self._bridge.awaitable(getattr(self.real, name) if self.hooks else self.original[name])


class ThreadHooks:
    """What is called in place of the real server's own methods, in its threads.

    :param core: the node and the facade that it has set its hooks in, as they are in this process.
    """

    def __init__(
        self, server: socketio.Server, original: dict[str, Any], bridge: Bridge, core: Callable[[], tuple[Node, Facade]]
    ) -> None:
        self.server = server
        self.original = original
        self.bridge = bridge
        self.core = core
        self._checked = False

    def install(self) -> None:
        """Sets the hooks."""
        for hook in HOOKS:
            name = hook.name.removeprefix("_")
            setattr(self.server, hook.name, getattr(self, name, None) or self._on_the_loop(hook.name))
        for event, name in _ENGINEIO_EVENTS.items():
            self.server.eio.on(event, getattr(self.server, name))

    def _on_the_loop(self, name: str) -> Callable[..., Any]:
        def hook(*arguments: Any, **options: Any) -> Any:
            return self.bridge.run(self.core()[1].hooks[name], *arguments, **options)

        return hook

    def check(self) -> None:
        """Looks, when the first client connects, whether the hooks are still in place.

        :raises HooksReplaced: names those that are not.
        """
        if self._checked:
            return
        lost = [
            name for name, original in self.original.items() if getattr(self.server, name, None) in (None, original)
        ]
        lost += [
            f"the Engine.IO handler of {event!r}"
            for event, name in _ENGINEIO_EVENTS.items()
            if self.server.eio.handlers.get(event) in (None, self.original[name])
        ]
        if lost:
            raise HooksReplaced(
                f"recovery can't work: {', '.join(lost)} of the Socket.IO server was replaced after the client manager "
                "was set. Wrap what is there and call it, or wrap before the server is made"
            )
        self._checked = True

    # -- the handshake --------------------------------------------------------------------------------
    #
    # It is the walk of ``aio/connecting.py``. But python-socketio takes its steps in the client's thread, and only what
    # needs Redis, or changes what the core knows, runs on the event loop. Each such call costs two switches between
    # threads, which are busy with other clients as well.

    def handle_eio_connect(self, transport: str, environ: dict[str, Any]) -> Any:
        """A transport opens; see :meth:`Hooks.handle_eio_connect`."""
        self.bridge.check()
        result = self.original["_handle_eio_connect"](transport, environ)
        transports = self.core()[0].transports
        socket = transports.socket(transport)
        if socket is not None:
            transports.watch(socket)
        return result

    def handle_connect(self, transport: str, namespace: str | None, data: Any) -> None:
        """A client sent CONNECT; see :meth:`Connecting.handle`."""
        node = self.core()[0]
        connecting = node.shards.of(namespace or "/").connecting
        if connecting.draining:
            self.bridge.soon(connecting.transports.close_transport, transport)
            return
        request, auth = requested(data)
        with Scope(request=request) as here:
            try:
                self.original["_handle_connect"](transport, namespace or "/", auth)
            except Exception as error:
                if not self.bridge.run(connecting.failed, error, here.connection, transport):
                    raise
            except BaseException as error:  # the thread is told to end: it can't wait
                failed = partial(connecting.failed, error, here.connection, transport)
                self.bridge.soon(node.tasks.start, ("thread", transport), failed)
                raise
        if here.connection is not None and not connecting.is_over(here.connection):
            self.bridge.run(connecting.over, here.connection)

    def _connect_handler(self, here: Scope, namespace: str, arguments: Sequence[Any]) -> Any:
        """Runs the ``connect`` handler; see :meth:`Hooks._connect_handler`."""
        settle = self.core()[0].shards.of(namespace).membership.settle
        moves: list[Move] = []
        here.moves = moves
        try:
            result = self.original["_trigger_event"]("connect", namespace, *arguments)
        except BaseException as error:
            here.moves = None
            if moves and isinstance(error, Exception):  # else the thread is told to end: it can't wait
                with suppress(Exception):  # what the handler raised counts
                    self.bridge.run(settle, moves)
            raise
        here.moves = None
        if moves:
            self.bridge.run(settle, moves)
        return result

    # -- a lost transport -----------------------------------------------------------------------------

    def handle_eio_disconnect(self, transport: str, reason: str) -> None:
        """A transport is lost; see :meth:`Hooks.handle_eio_disconnect`, and :meth:`Leaving.transport_lost`.

        In a process whose core has ended, other nodes deal with that.
        """
        node = self.core()[0]
        try:
            for connection in self.bridge.do(self._lost, node, transport):
                self._see_off(node, connection, reason)
            self.server._binary_packet.pop(transport, None)
            with Scope(lost=transport):
                self.original["_handle_eio_disconnect"](transport, reason)
        except RuntimeError:
            if self.bridge.error is None:
                raise

    @staticmethod
    def _lost(node: Node, transport: str) -> list[Connection]:
        node.transports.lost(transport)
        return [connection for shard in node.shards for connection in shard.leaving.to_see_off(transport)]

    def _see_off(self, node: Node, connection: Connection, reason: str) -> None:
        """Has python-socketio run the ``disconnect`` handler; see :meth:`Leaving._run_handler`."""
        leaving = node.hooks.of(connection).leaving
        with Scope(connection):
            try:
                self.original["_handle_disconnect"](connection.transport, connection.namespace, reason)
            except Exception:  # of one namespace's handler; the others have theirs
                self.bridge.check()
                node.logger.exception("disconnect handler error in namespace %s", connection.namespace)
            except BaseException:  # the thread is told to end: it can't wait
                leave = partial(leaving.leave, connection)
                self.bridge.soon(node.tasks.start, ("thread", connection.transport), leave)
                raise
            if connection.state is not State.GONE:  # the handler raised
                self.bridge.run(leaving.leave, connection)

    def handle_disconnect(self, transport: str, namespace: str | None, reason: str | None = None) -> None:
        """A client left, or python-socketio looks for what a lost transport has left; see :class:`Hooks`."""
        if self.core()[0].connections.of(namespace or "/").by_transport(transport).get(namespace or "/") is not None:
            self.bridge.run(self.core()[1].hooks["_handle_disconnect"], transport, namespace, reason)

    # -- what needs no event loop ---------------------------------------------------------------------

    def handle_event(self, transport: str, namespace: str | None, id: Any, data: Any) -> None:
        """An event from a client; see :meth:`Hooks.is_event`."""
        if self.core()[0].hooks.is_event(data):
            self.original["_handle_event"](transport, namespace, id, data)

    def handle_eio_message(self, transport: str, data: str | bytes) -> None:
        """A message from a client; see :meth:`Hooks.bounds`."""
        self.original["_handle_eio_message"](transport, data)
        hooks = self.core()[0].hooks
        if hooks.exceeds(transport, data):
            self.bridge.soon(hooks.transports.close_transport, transport)

    def trigger_event(self, event: str, namespace: str, *arguments: Any) -> Any:
        """Runs an event handler."""
        node = self.core()[0]
        if event == "disconnect":
            connection = scope.find(node.connections, namespace, arguments[0])
            if connection is None or node.hooks.of(connection).leaving.is_ours(connection, self.bridge.time()):
                return self.original["_trigger_event"](event, namespace, *arguments)
            return self.bridge.run(self.core()[1].hooks["_trigger_event"], event, namespace, *arguments)
        if event == "connect":
            here, connection = scope.current(), scope.own(namespace, arguments[0])
            if here is not None and here.request is not None and connection is not None:
                if node.hooks.skips(connection):
                    return None
                return self._connect_handler(here, namespace, arguments)
        return self.original["_trigger_event"](event, namespace, *arguments)

    def send_packet(self, transport: str, packet: Any) -> None:
        """Sends a packet to a client. Some change what the core knows of it."""
        kind = packet.packet_type
        waits = kind == DISCONNECT
        if kind in (CONNECT, ACK, BINARY_ACK):
            node = self.core()[0]
            namespace = packet.namespace or "/"
            connection = node.connections.of(namespace).by_transport(transport).get(namespace)
            if kind == CONNECT:
                if connection is not None and node.hooks.greets(connection, packet):
                    return
            else:
                waits = connection is not None and connection.catching_up is not None
        if waits:
            self.bridge.run(self.core()[1].hooks["_send_packet"], transport, packet)
        else:
            self.original["_send_packet"](transport, packet)

    def get_session(self, sid: str, namespace: str | None = None) -> Any:
        """See :meth:`socketio.Server.get_session`."""
        node = self.core()[0]
        connection = scope.find(node.connections, namespace or "/", sid)
        if connection is not None:
            return node.hooks.of(connection).session_data.get(connection)
        return self.original["get_session"](sid, namespace=namespace)

    def emit(
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
        """``Server.emit``, with ``volatile``: an event that need not be replayed to clients that missed it."""
        if not volatile:
            self.original["emit"](event, data, to, room, skip_sid, namespace, callback, ignore_queue)
            return
        self.server.manager.emit(
            *(event, data, namespace or "/"),
            room=to or room,
            skip_sid=skip_sid,
            callback=callback,
            ignore_queue=ignore_queue,
            volatile=True,
        )
