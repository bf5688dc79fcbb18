"""Flask-SocketIO: its session survives recovery, and its handlers run for the clients of dead nodes.

Everything that relies on private parts of Flask-SocketIO is here. Nothing is imported of it, or of Flask, that the
application has not imported.

Flask-SocketIO runs each handler in a request context, which it makes of the ``environ`` that python-socketio keeps for
the client's transport. With ``manage_session``, which is its default, ``environ["saved_session"]`` has a copy of
Flask's session, which is made when the first handler runs and is then changed by handlers alone. That copy is stored in
the session's record when a handler has changed it, and put into the environ of the transport that the client comes back
on, before a handler asks for it. One transport can have connections to several namespaces, and has one copy for all.

Where python-socketio has no ``environ`` (any more), Flask-SocketIO leaves a handler out. A ``disconnect`` handler must
not be left out: it gets the environ of the lost transport, or one without a request if that was a dead node's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ...aio import scope
from ...aio.node import Node
from ...connections import Connection, State
from ...errors import SessionGone
from ..bridge import Bridge
from ..modes import Lock
from ..send_queue import ThreadSendQueue

#: Where Flask-SocketIO keeps its copy of Flask's session, and the application.
SESSION, APP = "saved_session", "flask.app"
#: Where it is kept what is stored of the copy.
KEPT = "socketio_recovery.flask_session"
#: The path of the request that stands in for the one of a dead node's client.
PATH = "/socket.io/"


class _Kept:
    """What is stored of one transport's copy of Flask's session.

    :param lock: for the numbers; nobody waits while it is held.
    """

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        #: What was encoded last; ``None`` if it could not be encoded as a whole.
        self.whole: str | None = None
        #: What can be stored of it.
        self.text: str | None = None
        #: The faults that were logged.
        self.faults: frozenset[str] = frozenset()
        #: How often it was encoded, and which of these is stored.
        self.number = self.stored = 0
        #: Held while it is stored: what was encoded later is stored later.
        self.turn = asyncio.Lock()


class FlaskSessions:
    """Flask's sessions in the records of sessions. Servers without Flask have none.

    :param server: the server, before hooks are set in it.
    :param node: the node, as it is in this process.
    """

    def __init__(
        self, server: Any, bridge: Bridge, node: Callable[[], Node], logger: Callable[[], logging.Logger]
    ) -> None:
        self.server = server
        self.bridge = bridge
        self.node = node
        self.logger = logger
        self._get_environ = server.get_environ
        self._app: Any = None

    def install(self) -> None:
        """Wraps methods of the server, before the hooks wrap them in turn."""
        self.server.get_environ = self.get_environ
        self.server._trigger_event = self._around(self.server._trigger_event)
        handle_eio_connect = self.server._handle_eio_connect

        def opens(transport: str, environ: dict[str, Any]) -> Any:
            self._opens(transport)
            return handle_eio_connect(transport, environ)

        self.server._handle_eio_connect = opens

    def _around(self, trigger_event: Callable[..., Any]) -> Callable[..., Any]:
        """Runs a handler, and stores Flask's session if the handler has changed it.

        A client is told that its event was handled after that. What Redis can't be given is as if the handler had
        raised it; what can't be stored at all is logged. A ``connect`` handler that refuses its client leaves the
        session as it was, and so does a ``disconnect`` handler: what it tidies up is what its client comes back to.
        """

        def trigger(event: str, namespace: str, *arguments: Any) -> Any:
            connection = None
            if arguments and event != "disconnect":
                connection = scope.find(self.node().connections, namespace, arguments[0])
            try:
                result = trigger_event(event, namespace, *arguments)
            except Exception:
                if connection is not None and event != "connect":
                    try:
                        self._store(connection)
                    except Exception as error:
                        self.logger().warning("can't store a Flask session: %s", error)
                raise
            if connection is not None and not (event == "connect" and result is False):
                self._store(connection)
            return result

        return trigger

    def _opens(self, transport: str) -> None:
        """A transport is about to open. One of Flask-SocketIO's ``test_client()`` gets a socket, which it lacks."""
        package = sys.modules.get("flask_socketio")
        if transport in getattr(getattr(package, "SocketIOTestClient", None), "clients", ()):
            self.server.eio.sockets[transport] = _TestSocket(transport, self.server, self.bridge)

    # -- before a handler -----------------------------------------------------------------------------

    def get_environ(self, sid: str, namespace: str | None = None) -> Any:
        """See :meth:`socketio.Server.get_environ`. Flask-SocketIO calls it before each handler."""
        environ = self._get_environ(sid, namespace)
        connection = scope.find(self.node().connections, namespace or "/", sid)
        if connection is None:
            return environ
        if environ is None and connection.state is State.LEAVING:
            environ = connection.environ or self._stand_in()
        if environ is not None and APP in environ:
            connection.environ = environ
            if connection.extra is not None and SESSION not in environ:
                self._restore(connection.extra, environ)
        return environ

    def _restore(self, text: str, environ: dict[str, Any]) -> None:
        package = sys.modules.get("flask_socketio")
        if package is None:
            return
        try:
            session = package._ManagedSession(_serializer(environ[APP]).loads(text))
        except Exception as error:
            self.logger().error("can't read a client's Flask session, it gets a new one: %r", error)
        else:
            environ.setdefault(SESSION, session)  # another handler may have been faster

    def _stand_in(self) -> dict[str, Any] | None:
        """An environ for the client of a dead node; ``None`` if this is no application of Flask-SocketIO."""
        if self._app is None:
            self._app = self._find_app()
        if self._app is None:
            return None
        from flask.testing import EnvironBuilder

        builder = EnvironBuilder(self._app, PATH)
        try:
            return {**builder.get_environ(), APP: self._app}
        finally:
            builder.close()

    def _find_app(self) -> Any:
        """The Flask application whose handlers the server has: Flask-SocketIO tells the server nothing else of it."""
        package = sys.modules.get("flask_socketio")
        if package is None:
            return None
        for extension in self._extensions():
            if isinstance(extension, package.SocketIO) and hasattr(extension, "sockio_mw"):
                return extension.sockio_mw.flask_app
        return None

    def _extensions(self) -> Iterable[Any]:
        for handlers in list(self.server.handlers.values()):
            for handler in list(handlers.values()):
                if inspect.isfunction(handler):
                    yield inspect.getclosurevars(handler).nonlocals.get("self")
        for namespace in list(self.server.namespace_handlers.values()):
            yield getattr(namespace, "socketio", None)

    # -- after a handler ------------------------------------------------------------------------------

    def _store(self, connection: Connection) -> None:
        environ = connection.environ
        session = environ.get(SESSION) if environ is not None else None
        if environ is None or session is None:
            return
        kept: _Kept = environ.setdefault(KEPT, _Kept(self.bridge.mode.lock()))
        with kept.lock:
            text = self._encode(kept, session, _serializer(environ[APP]), connection.sid)
            kept.number += 1
            number = kept.number
        if text is None:
            return
        here = self.node().connections.by_transport(connection.transport)
        behind = [c for c in list(here.values()) if c.extra != text and (session or c.extra is not None)]
        if behind:
            self.bridge.run(self._save, kept, number, text, behind)

    def _encode(self, kept: _Kept, session: dict[str, Any], serializer: Any, sid: str) -> str | None:
        """What can be stored of a session, as a text."""
        try:
            whole = _dumps(serializer, dict(session))
            if whole is not None and whole == kept.whole:
                return kept.text
            faults = {key: fault for key, value in dict(session).items() if (fault := _fault(serializer, key, value))}
            text = _dumps(serializer, {key: value for key, value in dict(session).items() if key not in faults})
        except RuntimeError:  # another handler changes it at this moment, and stores it when it ends
            return kept.text
        kept.whole, kept.text = whole, text
        for fault in set(faults.values()) - kept.faults:
            self.logger().error("can't store a part of the Flask session of %s for recovery. %s", sid, fault)
        kept.faults = frozenset(faults.values())
        return text

    async def _save(self, kept: _Kept, number: int, text: str, connections: list[Connection]) -> None:
        """Stores a session. On the event loop."""
        async with kept.turn:
            if number < kept.stored:
                return  # a later one is stored
            for connection in connections:
                if connection.state is State.GONE or connection.extra == text:
                    continue
                try:
                    await self.node().hooks.of(connection).session_data.save_extra(connection, text)
                except SessionGone:
                    self.logger().info("session %s is not this node's any more: not stored", connection.sid)
            kept.stored = number


class _TestQueue(ThreadSendQueue):
    """Hands packets to Flask-SocketIO's ``test_client()`` at once."""

    def __init__(self, transport: str, server: Any, bridge: Bridge) -> None:
        super().__init__(bridge.mode, server.eio.get_queue_empty_exception(), bridge.soon)
        self._transport = transport
        self._server = server

    def _put(self, item: Any) -> None:
        if item is not None:
            self._server._send_eio_packet(self._transport, item)


class _TestSocket:
    """Stands for the Engine.IO socket of a client of Flask-SocketIO's ``test_client()``, which has none."""

    closed = closing = upgraded = False
    last_ping = None

    def __init__(self, transport: str, server: Any, bridge: Bridge) -> None:
        self.sid = transport
        self.session: dict[str, Any] = {}
        self.queue = _TestQueue(transport, server, bridge)
        self._server = server

    def send(self, packet: Any) -> None:
        self.queue.put(packet)

    def schedule_ping(self) -> None:
        """It needs none."""

    def check_ping_timeout(self) -> bool:
        return True

    def _websocket_handler(self, websocket: Any) -> None:
        """It never has one."""

    def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        if not self.closed:
            self.closed = True
            self._server.eio.sockets.pop(self.sid, None)
            self._server._handle_eio_disconnect(self.sid, reason)


def _serializer(app: Any) -> Any:
    """What Flask writes sessions into cookies with. The application may have added types to it."""
    from flask.json.tag import TaggedJSONSerializer

    found = getattr(app.session_interface, "serializer", None)
    return found if isinstance(found, TaggedJSONSerializer) else TaggedJSONSerializer()


def _dumps(serializer: Any, value: Any) -> str | None:
    """A value as a text; ``None`` if it can't be one.

    :raises RuntimeError: if it changes meanwhile.
    """
    try:
        text: str = serializer.dumps(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return text


def _fault(serializer: Any, key: Any, value: Any) -> str | None:
    """Why an item of a session would not come back as it is; ``None`` if it would."""
    if type(key) is not str:
        return f"flask.session has the key {key!r}, which would come back as another: use a str"
    place = f"flask.session[{key!r}]"
    text = _dumps(serializer, value)
    if text is not None:
        try:
            changed = _changed(value, serializer.loads(text), place)
        except (TypeError, ValueError, RecursionError) as error:
            changed = place, repr(error)
        if changed is None:
            return None
        place, what = changed
    else:
        what = _type(value)
    return (
        f"{place}: {what} would come back changed, or not at all. These come back as they are: dict with str as keys, "
        "list, tuple, str, int, float, bool, None, bytes, Markup, UUID, and datetime in UTC without microseconds"
    )


def _type(value: Any) -> str:
    return f"a value of the type {type(value).__name__}"


def _changed(value: Any, back: Any, place: str) -> tuple[str, str] | None:
    """The first place in a value that differs from what came back, and what is there."""
    if type(value) is not type(back):
        return place, _type(value)
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or key not in back:
                return place, f"the key {key!r}"
            if found := _changed(item, back[key], f"{place}[{key!r}]"):
                return found
        return None
    if isinstance(value, (list, tuple)):
        if len(value) != len(back):
            return place, _type(value)
        pairs = enumerate(zip(value, back, strict=True))
        return next((found for i, (a, b) in pairs if (found := _changed(a, b, f"{place}[{i}]"))), None)
    return None if value == back else (place, _type(value))
