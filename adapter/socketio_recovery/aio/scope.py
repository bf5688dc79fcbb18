"""Which connection a ``sid`` means in the task that asks.

python-socketio and applications name a client by its ``sid`` alone. Two connections of one node can have the same one
for a moment: the old connection's ``disconnect`` handler still runs, and the client is back already. In a handler the
``sid`` means the connection that the handler was called for, elsewhere the newest one.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from ..connections import Connection, NodeConnections, State
from ..continuity import Request
from .membership_log import Move


class Scope:
    """What this library has called python-socketio for, in this task and in tasks that it starts: used by ``with``.

    :param connection: the connection whose handler runs.
    :param request: what the client asks for, if it is connecting. Then ``connection`` follows.
    :param lost: the transport that is lost, if that is what python-socketio is told.
    """

    __slots__ = ("_token", "connection", "lost", "moves", "over", "request")

    def __init__(
        self, connection: Connection | None = None, request: Request | None = None, lost: str | None = None
    ) -> None:
        self.connection = connection
        self.request = request
        self.lost = lost
        self.over = False  # tasks that the application starts in a handler outlive it
        #: While the ``connect`` handler runs: the changes of rooms of its client that are queued.
        self.moves: list[Move] | None = None
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Scope:
        self._token = _scope.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over = True
        assert self._token is not None
        _scope.reset(self._token)


_scope: ContextVar[Scope | None] = ContextVar("socketio_recovery_scope", default=None)


def current() -> Scope | None:
    """The scope of this task."""
    scope = _scope.get()
    return None if scope is None or scope.over else scope


def connecting() -> Connection | None:
    """The connection whose handshake this task carries out."""
    scope = current()
    return scope.connection if scope is not None and scope.request is not None else None


def own(namespace: str, sid: str | None) -> Connection | None:
    """The connection whose handler runs in this task, if ``sid`` is its."""
    scope = current()
    own = scope.connection if scope is not None else None
    if own is not None and own.state is not State.GONE and (own.namespace, own.sid) == (namespace, sid):
        return own
    return None


def meant(connections: NodeConnections, namespace: str, sid: str | None) -> Connection | None:
    """The connection that python-socketio means when it sees one off; ``None`` if that is gone.

    Another connection may have the ``sid`` by then, which stays.
    """
    scope = current()
    connection = scope.connection if scope is not None else None
    if connection is not None and (connection.namespace, connection.sid) == (namespace, sid):
        return connection if connection.state is not State.GONE else None
    return connections.by_sid(namespace, sid)


def moves_of_handler() -> list[Move] | None:
    """What the ``connect`` handler that runs in this task has queued."""
    scope = current()
    return scope.moves if scope is not None else None


def moves(namespace: str, sid: str | None) -> list[Move] | None:
    """The same, if ``sid`` is its client's; else ``None``."""
    return moves_of_handler() if own(namespace, sid) is not None else None


def find(connections: NodeConnections, namespace: str, sid: str | None) -> Connection | None:
    """The connection of this node that ``sid`` means in this task."""
    return own(namespace, sid) or connections.by_sid(namespace, sid)
