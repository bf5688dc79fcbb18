"""A session's data, as applications read and save it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from ..connections import Connection, Flow, Hold
from ..errors import SessionGone
from .sessions import Sessions


class SessionData:
    """Keeps a session's data in its connection, and in its record in Redis."""

    def __init__(self, sessions: Sessions, logger: logging.Logger) -> None:
        self.sessions = sessions
        self.logger = logger

    def get(self, connection: Connection) -> Any:
        """The data as this node has it. What the application changes in it is stored by :meth:`save`."""
        return connection.socket.session.setdefault(connection.namespace, {})

    async def save(self, connection: Connection, data: Any) -> None:
        """Stores the data, also of a client that can't recover: if its node dies, another one's handler reads it.

        :raises TypeError: for data that would come back changed; the message names the key. Nothing is stored.
        :raises SessionGone: if the session has another owner by now.
        """
        await self._store(connection, self.sessions.save(connection.sid, connection.token, data))
        connection.socket.session[connection.namespace] = data

    async def save_extra(self, connection: Connection, extra: str) -> None:
        """Stores what else the server keeps with the session.

        :raises SessionGone: if the session has another owner by now.
        """
        await self._store(connection, self.sessions.save_extra(connection.sid, connection.token, extra))
        connection.extra = extra

    async def _store(self, connection: Connection, call: Coroutine[Any, Any, None]) -> None:
        if connection.hold is Hold.FORGOTTEN:
            call.close()
            return
        try:
            await call
        except SessionGone:
            if connection.flow is not Flow.MUTED:
                raise
            self.logger.info("session %s has gone on elsewhere; its old data is not stored", connection.sid)
