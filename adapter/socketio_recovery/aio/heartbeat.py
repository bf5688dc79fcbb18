"""The heartbeat: keeps this node's sessions alive in Redis, and stores how far their clients have received.

Most clients are idle most of the time. A session whose client has received nothing since its last heartbeat, and of
whose rooms none was closed, is refreshed with every third one only. Its record is then older by two heartbeats, for
which sessions live longer (:class:`Durations`); and if its client names no event, or one that the log no longer has, a
recovery begins so much earlier in the log. There is nothing for the client there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..connections import Connection, Connections, Flow, Hold, State
from ..errors import RedisUnavailable
from ..metrics import Metrics
from ..session_record import Heartbeat
from ..settings import IDLE
from .callbacks import Callbacks
from .orphans import Orphans
from .session_endings import SessionEndings
from .sessions import Sessions


class Heartbeats:
    """Sends heartbeats for all sessions that this node holds.

    :param close_transport: closes an Engine.IO socket so that its client comes back.
    :param interval: between heartbeats, in seconds.
    """

    def __init__(
        self,
        connections: Connections,
        sessions: Sessions,
        endings: SessionEndings,
        orphans: Orphans,
        callbacks: Callbacks,
        close_transport: Callable[[Any], None],
        interval: float,
        metrics: Metrics,
        logger: logging.Logger,
    ) -> None:
        self.connections = connections
        self.sessions = sessions
        self.endings = endings
        self.orphans = orphans
        self.callbacks = callbacks
        self.interval = interval
        self.metrics = metrics
        self.logger = logger
        self._close_transport = close_transport
        #: Whether the last one succeeded.
        self.succeeds = True

    async def run(self) -> None:
        """Sends heartbeats, for ever. To be run as a task."""
        while True:
            await asyncio.sleep(self.interval)
            self.callbacks.drop_old()
            loop = asyncio.get_running_loop()
            since = loop.time()
            try:
                await self._send()
            except RedisUnavailable as error:
                self.logger.warning("sessions could not be refreshed, will try again: %s", error)
                self.succeeds = False
            else:
                self.succeeds = True
            self.metrics.heartbeat(loop.time() - since, self.succeeds)

    async def _send(self) -> None:
        now = asyncio.get_running_loop().time()
        connections = [connection for connection in self.connections if self._is_due(connection, now)]
        heartbeats = [self._of(connection) for connection in connections]
        await self.endings.finish()
        lost = await self.sessions.heartbeat([*heartbeats, *self.orphans.heartbeats])
        for i, (connection, heartbeat) in enumerate(zip(connections, heartbeats, strict=True)):
            del connection.closed_rooms[: len(heartbeat.closed_rooms)]
            connection.stored_confirmed = heartbeat.confirmed or connection.stored_confirmed
            if i in lost:
                self._lost(connection, adopted=lost[i])
            else:
                connection.kept_at = now

    def _is_due(self, connection: Connection, now: float) -> bool:
        """Whether the session of a connection is refreshed with this heartbeat."""
        if connection.state is State.ARRIVED or connection.hold in (Hold.FORGOTTEN, Hold.ADOPTED):
            return False
        stored, confirmed = connection.stored_confirmed, connection.confirmed
        news = confirmed is not None and (stored is None or confirmed[1] != stored[1])
        return news or bool(connection.closed_rooms) or now - connection.kept_at > (IDLE - 0.5) * self.interval

    def _of(self, connection: Connection) -> Heartbeat:
        changed = connection.confirmed != connection.stored_confirmed
        confirmed = connection.confirmed if changed else None
        return Heartbeat(connection.sid, connection.token, confirmed, tuple(connection.closed_rooms))

    def _lost(self, connection: Connection, adopted: bool) -> None:
        """The session is gone, or belongs to another connection or to the node that adopted it."""
        over = connection.flow is Flow.MUTED or connection.hold is Hold.FORGOTTEN
        if adopted:
            connection.note("adopted")
        if not over:
            self.logger.warning("session %s is gone; closing its connection", connection.sid)
            self.connections.mute(connection)
            self._close_transport(connection.socket)
