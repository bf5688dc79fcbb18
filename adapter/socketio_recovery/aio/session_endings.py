"""Tells Redis what becomes of a session when its connection ends, again if Redis can't be told at once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ..connections import Connection, Hold
from ..entries import Room, dump
from ..errors import RedisUnavailable
from ..reasons import Ending
from .participants import Participants
from .sessions import Sessions

T = TypeVar("T")


def _named(connection: Connection) -> tuple[str, str, str, list[Room]]:
    """What Redis is told of a connection: sid, token, namespace, rooms. A call that waits keeps no connection."""
    return connection.sid, connection.token, connection.namespace, list(connection.rooms)


class SessionEndings:
    """Detaches, gives back and forgets sessions."""

    def __init__(self, sessions: Sessions, participants: Participants, logger: logging.Logger) -> None:
        self.sessions = sessions
        self.participants = participants
        self.logger = logger
        #: Calls that Redis did not take.
        self._unfinished: deque[Callable[[], Awaitable[Any]]] = deque()

    async def end(self, connection: Connection) -> None:
        """The connection is over. What becomes of its session depends on what it holds and on how it ends."""
        if connection.hold is Hold.CLAIMED:
            await self.give_back(connection)
        elif connection.hold is Hold.CREATED:
            await self.forget(connection)
        elif connection.hold is Hold.ACCEPTED:
            if connection.ending is Ending.LOST and connection.pid is not None:
                await self._detach(connection, failed=False)
            else:
                await self.forget(connection)

    async def place(self, connection: Connection) -> None:
        """A session has a connection again: it counts as connected in its rooms, too."""
        sid, _, namespace, rooms = _named(connection)
        await self.tell(sid, lambda: self.participants.place(sid, namespace, map(dump, rooms)))

    async def give_back(self, connection: Connection) -> None:
        """A claim did not end in a recovery: the session is as it was before, until the deadline it had."""
        await self._detach(connection, failed=True)

    async def _detach(self, connection: Connection, failed: bool) -> None:
        sid, token, namespace, rooms = _named(connection)
        await self.tell(sid, lambda: self.sessions.detach(sid, token, namespace, rooms, failed))

    async def forget(self, connection: Connection) -> bool:
        """The session is over: its ``pid`` is of no use from now on. False if another connection owns it."""
        if connection.hold in (Hold.FORGOTTEN, Hold.ADOPTED):
            return True
        connection.note("forgets")
        sid, token, namespace, rooms = _named(connection)
        return await self.tell(sid, lambda: self.sessions.forget(sid, token, namespace, rooms)) is not False

    async def damaged(self, connection: Connection) -> None:
        """The record does not agree with the log: nobody can go on with the session any more."""
        sid, token = connection.sid, connection.token
        await self.tell(sid, lambda: self.sessions.damaged(sid, token))

    async def tell(self, sid: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Tells Redis something about a session. If that fails, it returns ``None``, and :meth:`finish` tells it."""
        try:
            return await call()
        except Exception as error:  # not only RedisUnavailable: it may be out of memory
            self.logger.warning("%s left, but Redis can't be told yet: %s", sid, error)
            self._unfinished.append(call)
            return None

    async def finish(self) -> None:
        """Tells Redis of the sessions that ended while it could not be told.

        Their ``disconnect`` handlers have run. Until this is done, other nodes may take them for orphans.

        :raises RedisUnavailable: if Redis still can't be reached.
        """
        for _ in range(len(self._unfinished)):
            try:
                await self._unfinished[0]()
            except RedisUnavailable:
                raise
            except Exception:
                self.logger.exception("Redis does not take that a session ended; will try again")
                self._unfinished.rotate(-1)
            else:
                self._unfinished.popleft()
