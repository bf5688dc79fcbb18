"""Connecting: from a CONNECT packet to a client that gets events.

The walk, in the order in which it happens. A new session and a recovered one take the same path; the new one has
nothing to catch up on.

1. python-socketio has read a CONNECT packet and calls :meth:`Connecting.handle`. It takes ``pid`` and offset out of
   what the client sent, and lets python-socketio go on, which calls back for each of the next steps.
2. :meth:`Connecting.pre_connect` gives the client a connection, registered with its transport before anything is
   awaited: a second CONNECT on the same transport is refused, and whoever claims the same session next can evict this
   connection, however far it has come.

   * The client shows a ``pid``: :meth:`Connecting._recover` *claims* the session, finds out where the client goes on,
     waits until this node has dispatched everything up to the claim, and takes the last look. What is decided on the
     way is in ``continuity.py``.
   * It shows none, or can't go on: :meth:`Connecting._create` gives it a new session and a connection of its own.

3. The application's ``connect`` handler runs, unless the client recovers and ``skip_connect_handler`` is set. Events
   for the client are held meanwhile. What the handler does to its client's rooms is queued, and awaited when the
   handler is over (:meth:`Hooks.trigger_event`).
4. The CONNECT packet is sent; :meth:`Connecting.greeting` puts the ``pid`` into it.
5. :meth:`CatchUp.start` sends what the client missed, and makes the connection live.
6. Back in :meth:`Connecting.handle` the connection is *accepted*, and looked at once more: its transport may be gone by
   now, or the application may have disconnected it.

With ``always_connect``, steps 4 and 5 come before 3. If Redis does not answer or the handler raises, the transport is
closed, so that the client tries again. A session that was not accepted is given back as it was, or forgotten if it is
new: nobody gets past the ``connect`` handler by dropping out of it.

Protocol: https://socket.io/docs/v4/socket-io-protocol/ ("Connection to a namespace"; ``pid`` and ``offset`` are those
of connection state recovery, https://socket.io/docs/v4/connection-state-recovery).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..connections import Connection, Connections, Flow, Hold, State
from ..continuity import Request, Start, requested, resume, start_of
from ..entries import Position
from ..errors import RedisUnavailable
from ..membership import forward
from ..metrics import Metrics
from ..reasons import Ending, Outcome
from ..session_record import Pid, Record, Refused
from . import scope
from .leaving import Leaving
from .log import Log
from .scope import Scope
from .session_endings import SessionEndings
from .sessions import Sessions
from .tasks import KeyedQueue
from .upstream.engineio_transport import Transports, is_open
from .upstream.socketio_server import SocketIOServer


class ClientLeft(Exception):
    """The client closed its transport, or went on with another, during its handshake."""


class Connecting:
    """Takes clients in.

    :param can_recover: whether a client, given by its ``environ``, can use recovery.
    :param timeout: how long a handshake may wait for an earlier connection of its transport, or until this node has
        dispatched what it needs, in seconds.
    """

    def __init__(
        self,
        server: SocketIOServer,
        transports: Transports,
        log: Log,
        connections: Connections,
        sessions: Sessions,
        endings: SessionEndings,
        leaving: Leaving,
        tasks: KeyedQueue,
        can_recover: Callable[[Mapping[str, Any]], bool],
        timeout: float,
        metrics: Metrics,
        logger: logging.Logger,
    ) -> None:
        self.server = server
        self.transports = transports
        assert log.partition is not None
        self.log = log
        self.partition = log.partition
        self.connections = connections
        self.sessions = sessions
        self.endings = endings
        self.leaving = leaving
        self.tasks = tasks
        self.can_recover = can_recover
        self.timeout = timeout
        self.metrics = metrics
        self.logger = logger
        #: Set when the node is about to stop: it takes nobody in any more.
        self.draining = False
        #: How often clients connected with which outcome.
        self.outcomes: Counter[Outcome] = Counter()

    async def handle(self, transport: str, namespace: str, data: Any) -> None:
        """A client sent CONNECT for ``namespace``, with ``data``."""
        if self.draining:
            self.transports.close_transport(transport)
            return
        request, auth = requested(data)
        with Scope(request=request) as here:
            try:
                await self.server.connect(transport, namespace, auth)
            except BaseException as error:
                if not await self.failed(error, here.connection, transport):
                    raise
        if here.connection is not None:
            await self.over(here.connection)

    async def failed(self, error: BaseException, connection: Connection | None, transport: str) -> bool:
        """The handshake failed: the client is to try again. A session that it had is kept for that.

        :returns: whether that is all; else the error is one of the application's, for the caller to raise.
        """
        if isinstance(error, ClientLeft):
            self.logger.info("a client left while it connected")
        elif isinstance(error, RedisUnavailable):
            self.logger.warning("a client could not connect, it will try again: %s", error)
        if connection is not None and connection.state is not State.GONE and connection.hold is not Hold.ACCEPTED:
            await self.leaving.leave(connection)  # an accepted one ends with its transport
        self.transports.close_transport(transport)  # whatever it was: the client must not wait for ever
        return isinstance(error, (ClientLeft, RedisUnavailable))

    async def over(self, connection: Connection) -> None:
        """The handshake is over: the connection is accepted, unless that is noted already, and looked at once more."""
        self.accept(connection)
        if connection.state is not State.GONE:
            await self._look_again(connection)

    def accept(self, connection: Connection) -> None:
        """The ``connect`` handler has taken the client."""
        if not _settled(connection):
            connection.note("accepted")

    def is_over(self, connection: Connection) -> bool:
        """Whether :meth:`over` has nothing to do. Any thread may ask when python-socketio has done its part.

        If the client was greeted and accepted, its connection is one like others: whoever ends it from then on sees it
        off. What came before that can be seen here.
        """
        quiet = is_open(connection.socket) and connection.ending is not Ending.DISCONNECTED
        return _settled(connection) and (quiet or connection.state is State.GONE)

    async def pre_connect(self, transport: str, namespace: str) -> str | None:
        """Finds the session that a client returns to, or gives it a new one.

        :returns: its ``sid``; ``None`` if the transport is connected to the namespace already.
        """
        since = asyncio.get_running_loop().time()
        here = scope.current()
        assert here is not None
        request = here.request
        assert request is not None
        if self.draining:  # since the CONNECT packet was looked at, in a server with threads
            raise ClientLeft
        self._check_log()
        if not await self._earlier_is_gone(transport, namespace):
            return None
        socket = self.transports.socket(transport)
        if socket is None:
            return None
        capable = self.can_recover(request.environ(self.server.environ(transport)))
        outcome = request.outcome if capable else Outcome.CLIENT
        connection: Connection | None = None
        if request.pid is not None and capable:
            here.connection = Connection(
                request.pid.sid, namespace, transport, socket, uuid.uuid4().hex, str(request.pid)
            )
            self.connections.arrive(here.connection)
            outcome = await self._recover(here.connection, request, request.pid)
            if outcome is Outcome.RECOVERED:
                connection = here.connection
        if connection is None:
            connection = await self._create(here, namespace, transport, socket, capable)
        connection.outcome, connection.since = outcome, since
        if not is_open(socket):
            raise ClientLeft
        self.outcomes[outcome] += 1
        self.metrics.connected(outcome)
        self.logger.info("%s connects to %s: %s", connection.sid, namespace, outcome)
        return connection.sid

    async def _earlier_is_gone(self, transport: str, namespace: str) -> bool:
        """Waits if the client left the namespace and is back before its ``disconnect`` handler is done.

        :returns: false if the transport has a connection to the namespace, and keeps it.
        """
        if namespace not in self.connections.by_transport(transport):
            return True
        try:
            async with asyncio.timeout(self.timeout):
                while (earlier := self.connections.by_transport(transport).get(namespace)) is not None:
                    if earlier.state is not State.LEAVING:
                        return False
                    removed = asyncio.Event()
                    self.connections.when_removed(removed.set)
                    await removed.wait()
        except TimeoutError:
            return False
        if self.draining:
            raise ClientLeft
        return True

    async def _recover(self, connection: Connection, request: Request, pid: Pid) -> Outcome:
        """Takes the session that the client shows a ``pid`` for; says why not if the client can't go on."""
        await self._follow_from_here(connection)
        connection.kept_at = asyncio.get_running_loop().time()
        connection.note("claims")  # also if the reply is lost
        record = await self.sessions.claim(
            pid, connection.namespace, connection.token, connection.transport, request.offset
        )
        if isinstance(record, Refused):
            connection.note("gives back")
            if record.outcome is Outcome.DAMAGED:
                self.logger.error("the record of session %s can't be read: %.500s", pid.sid, record.detail)
            return record.outcome
        start = start_of(record, request.offset)
        outcome = start if isinstance(start, Outcome) else await self._resume(connection, record, start)
        if outcome is not Outcome.RECOVERED:
            await self.endings.give_back(connection)
            connection.note("gives back")
        return outcome

    async def _resume(self, connection: Connection, record: Record, start: Start) -> Outcome:
        """Adds the client's connection as soon as this node has dispatched what came before the claim."""
        await self._dispatched(record.last)
        self._check(connection, record.last)
        resumption = resume(start, record, self.partition.window, connection.namespace, connection.sid)
        if isinstance(resumption, Outcome):
            return resumption
        connection.rooms, connection.rooms_then, connection.closed_rooms = resumption
        connection.after, connection.sent = start.after, start.seen
        connection.epoch = record.last.epoch
        connection.socket.session[connection.namespace] = record.data
        connection.extra = record.extra
        self.connections.add(connection)
        if connection.rooms:
            self.tasks.start(("place", connection.sid), lambda: self.endings.place(connection))
        return Outcome.RECOVERED

    async def _create(self, here: Scope, namespace: str, transport: str, socket: Any, capable: bool) -> Connection:
        """Gives the client a new session, and a connection in place of one that claimed a session in vain."""
        before = here.connection
        if before is not None and before.flow is Flow.MUTED:
            raise ClientLeft  # evicted
        sid = self.server.generate_sid()
        pid = Pid.new(sid) if capable else None
        connection = Connection(sid, namespace, transport, socket, uuid.uuid4().hex, str(pid) if pid else None)
        self.connections.arrive(connection)
        here.connection = connection
        if before is not None:
            self.connections.remove(before)
        await self._follow_from_here(connection)
        connection.kept_at = asyncio.get_running_loop().time()
        connection.note("creates")
        birth = await self.sessions.create(sid, pid, namespace, connection.token, transport)
        await self._dispatched(birth)
        self._check(connection, birth)
        connection.after = connection.sent = birth.n
        connection.epoch = birth.epoch
        # Others see the session since it was created, and may have had it enter rooms. (If somebody has ended it, the
        # replay comes upon that.)
        closed = forward(self.partition.window, namespace, sid, connection.rooms, birth.n)
        connection.closed_rooms = closed or []
        self.connections.add(connection)
        return connection

    async def _follow_from_here(self, connection: Connection) -> None:
        """From now on the window keeps what is dispatched, until the connection is added: it may concern it."""
        await self._dispatched(Position(0, 0))
        self.partition.pin(connection, self.partition.position.n)

    async def _dispatched(self, position: Position) -> None:
        """Waits until this node has dispatched ``position``.

        :raises RedisUnavailable: if that takes too long.
        """
        if self.partition.has_dispatched(position):
            return
        dispatched = asyncio.Event()
        self.partition.when(position, dispatched.set)
        try:
            async with asyncio.timeout(self.timeout):
                await dispatched.wait()
        except TimeoutError:
            raise RedisUnavailable(f"this node is more than {self.timeout:g} s behind the log") from None

    def _check(self, connection: Connection, position: Position) -> None:
        """The last look before a connection is added; nothing is awaited between the two."""
        if connection.flow is Flow.MUTED:
            raise ClientLeft  # evicted by another connection, which has claimed the session since
        self._check_log()
        partition = self.partition
        if not partition.holds(position):
            raise RedisUnavailable("the log was begun anew just now, or lost entries")

    def _check_log(self) -> None:
        """
        :raises RedisUnavailable: if this node can't use the log: the client is to try again, elsewhere.
        """
        if (why := self.log.refused) is not None:
            raise RedisUnavailable(str(why))

    def greeting(self, connection: Connection, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the CONNECT packet tells the client."""
        return data if connection.pid is None else {**data, "pid": connection.pid}

    async def _look_again(self, connection: Connection) -> None:
        """What python-socketio leaves open: the client may be gone, or disconnected, since it came."""
        if not is_open(connection.socket):
            if connection.state is State.CONNECTED:
                await self.leaving.connection_lost(connection, self.server.TRANSPORT_CLOSE)
            elif connection.state is not State.LEAVING:
                connection.end(Ending.LOST)
                await self.leaving.leave(connection)
        elif connection.ending is Ending.DISCONNECTED and connection.state is not State.LEAVING:
            await self.leaving.disconnect(connection.sid, connection.namespace, ignore_queue=True)


def _settled(connection: Connection) -> bool:
    """Whether the ``connect`` handler has taken the client, or nothing is left of the connection."""
    return connection.state is State.GONE or connection.hold not in (Hold.NONE, Hold.CLAIMED, Hold.CREATED)
