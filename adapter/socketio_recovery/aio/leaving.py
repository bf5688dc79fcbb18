"""Leaving: from the end of a connection to its ``disconnect`` handler and what becomes of its session.

There are four ways out, and a value that says which: ``connection.ending``.

* The client sends DISCONNECT (:meth:`Leaving.client_left`): the session is forgotten first, then the handler runs.
* The application disconnects the client, on whatever node (:meth:`Leaving.disconnect`,
  :meth:`Leaving.start_disconnect`): the same.
* The transport is lost (:meth:`Leaving.transport_lost`): the handler runs, then the session is detached.
* The ``connect`` handler refuses the client, or its handshake fails: only :meth:`Leaving.leave` runs.

Each ends in :meth:`Leaving.leave`. What the session's node can't do because it is dead, another node does in its stead:
:meth:`Leaving.run_orphan`.
"""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

from ..connections import Connection, Connections, Hold, State
from ..errors import RedisUnavailable
from ..metrics import Metrics
from ..reasons import NODE_LOST, Ending
from ..session_record import Heartbeat, Orphan
from . import scope
from .membership_log import MembershipLog
from .scope import Scope
from .session_endings import SessionEndings
from .sessions import Sessions
from .tasks import KeyedQueue
from .upstream.engineio_transport import is_open
from .upstream.socketio_server import SocketIOServer


class Leaving:
    """Sees clients off."""

    def __init__(
        self,
        server: SocketIOServer,
        connections: Connections,
        sessions: Sessions,
        endings: SessionEndings,
        membership: MembershipLog,
        tasks: KeyedQueue,
        metrics: Metrics,
        logger: logging.Logger,
    ) -> None:
        self.server = server
        self.connections = connections
        self.sessions = sessions
        self.endings = endings
        self.membership = membership
        self.tasks = tasks
        self.metrics = metrics
        self.logger = logger

    # -- the ways out -------------------------------------------------------------------------------

    async def transport_lost(self, transport: str, reason: str) -> None:
        """A transport is no more, for python-engineio's ``reason``: all its connections end."""
        for namespace, connection in list(self.connections.by_transport(transport).items()):
            try:
                await self.connection_lost(connection, reason)
            except Exception:  # of one namespace's handler; the others have theirs
                self.logger.exception("disconnect handler error in namespace %s", namespace)

    async def connection_lost(self, connection: Connection, reason: str) -> None:
        """The transport of a connection is lost. In its handshake, ``Connecting.handle`` looks again."""
        if connection.state is State.CONNECTED:
            connection.end(Ending.LOST)
            await self._run_handler(connection, reason)

    async def client_left(self, connection: Connection, reason: str | None) -> None:
        """The client sent DISCONNECT. In its handshake, that is passed over."""
        if connection.state is not State.CONNECTED:
            return
        connection.end(Ending.LEFT)
        with Scope(connection):
            await self.endings.forget(connection)
        if connection.state is State.CONNECTED:  # else the application has disconnected it meanwhile
            await self._run_handler(connection, reason)

    def to_see_off(self, transport: str) -> list[Connection]:
        """A transport of a synchronous server is no more: the connections that its thread is to see off.

        That thread does for each of them what :meth:`connection_lost` does.
        """
        found = [c for c in self.connections.by_transport(transport).values() if c.state is State.CONNECTED]
        for connection in found:
            connection.end(Ending.LOST)
        return [connection for connection in found if connection.see_off()]

    async def _run_handler(self, connection: Connection, reason: str | None) -> None:
        """Has python-socketio run the ``disconnect`` handler, and :meth:`leave`; unless somebody does already."""
        if not connection.see_off():
            return
        with Scope(connection):
            try:
                await self.server.leave(connection.transport, connection.namespace, reason)
            finally:
                if connection.state is not State.GONE:  # the handler raised
                    await self.leave(connection)

    async def disconnect(self, sid: str, namespace: str, ignore_queue: bool) -> None:
        """The application disconnects a client, on whatever node it is, unless ``ignore_queue``."""
        connection = scope.find(self.connections, namespace, sid)
        sees_off = False  # else, if it leaves meanwhile, somebody else does
        if connection is not None and connection.state is State.CONNECTED:
            sees_off = connection.see_off()
            if not sees_off:
                if not ignore_queue:  # it is on its way out; that the session ends is news
                    await self.membership.disconnect(sid, namespace)
                return
        with Scope(connection):
            try:
                await self.server.disconnect(sid, namespace, ignore_queue)
            finally:
                if connection is not None and sees_off:
                    await self._after(connection)

    async def _after(self, connection: Connection) -> None:
        """The application has tried to disconnect a connection."""
        if connection.state is State.LEAVING:  # its disconnect handler raised
            await self.leave(connection)
        elif connection.state is State.CONNECTED:  # it stays
            connection.seen_off = False
            if not is_open(connection.socket):
                await self.connection_lost(connection, self.server.TRANSPORT_CLOSE)

    def start_disconnect(self, connection: Connection) -> None:
        """The application has disconnected the session, on any node. Nobody can claim it any more."""

        async def disconnect() -> None:
            if connection.state not in (State.LEAVING, State.GONE):
                await self.disconnect(connection.sid, connection.namespace, ignore_queue=True)

        self.tasks.start((connection.namespace, connection.sid), disconnect)

    # -- what python-socketio calls back for --------------------------------------------------------

    def about_to_leave(self, connection: Connection) -> None:
        """The ``disconnect`` handler of a connection is about to run, or the ``connect`` handler refused it."""
        if scope.connecting() is not connection:
            connection.end(Ending.DISCONNECTED)
        connection.seen_off = True
        connection.note("leaves")
        self.connections.mute(connection)
        connection.socket.queue.wake()

    async def disconnect_packet(self, connection: Connection) -> None:
        """A DISCONNECT packet is about to be sent: before that, the session is forgotten.

        A refused client gets one too (``always_connect``). What becomes of its session is for :meth:`leave`.
        """
        if connection.ending is not None and not await self.endings.forget(connection):
            # Another connection has just claimed it, which is meant as well. This client is told in any case.
            sid, namespace = connection.sid, connection.namespace
            await self.endings.tell(sid, lambda: self.membership.disconnect(sid, namespace))

    async def handler_ran_elsewhere(self, connection: Connection) -> bool:
        """Whether another node took this one for dead, and runs the ``disconnect`` handler in its stead.

        Redis is asked only if no heartbeat has succeeded for so long that this is possible.
        """
        if self._may_be_adopted(connection, asyncio.get_running_loop().time()):
            try:
                lost = await self.sessions.heartbeat([Heartbeat(connection.sid, connection.token, None, ())])
            except RedisUnavailable as error:
                self.logger.warning("can't ask whether session %s was adopted: %s", connection.sid, error)
            else:
                if lost.get(0):
                    connection.note("adopted")
        if connection.hold is not Hold.ADOPTED:
            return False
        self.logger.info("%s was adopted by another node; its disconnect handler has run there", connection.sid)
        return True

    def is_ours(self, connection: Connection, now: float) -> bool:
        """Whether the handler has not run elsewhere, without asking Redis. Any thread may ask.

        :param now: time of the event loop, in seconds.
        """
        return connection.hold is not Hold.ADOPTED and not self._may_be_adopted(connection, now)

    def _may_be_adopted(self, connection: Connection, now: float) -> bool:
        return bool(connection.kept_at) and now - connection.kept_at >= self.sessions.ttl / 1000

    async def leave(self, connection: Connection) -> None:
        """The end of a connection on this node."""
        try:
            await self.endings.end(connection)
        finally:
            if connection.state is not State.GONE:
                self.connections.remove(connection)
                self.metrics.ended(connection.ending)

    # -- for dead nodes -----------------------------------------------------------------------------

    async def run_orphan(self, orphan: Orphan, token: str) -> None:
        """Runs the ``disconnect`` handler for a session whose node died, and forgets the session."""
        socket: Any = SimpleNamespace(session={orphan.namespace: orphan.data})
        connection = Connection.of_orphan(orphan.sid, orphan.namespace, socket, token, orphan.rooms)
        connection.extra = orphan.extra
        try:
            with Scope(connection):
                await self.server.trigger("disconnect", orphan.namespace, orphan.sid, NODE_LOST)
        finally:
            connection.note("removed")
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # else it is not done; python-socketio hides that
                await self.endings.forget(connection)
