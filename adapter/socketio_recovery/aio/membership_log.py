"""Appends the entries that change membership: entering, leaving and closing rooms, and the end of a session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from ..entries import CLOSE, DISCONNECT, Room, control_head
from ..reasons import AppendResult
from ..redis import actions
from ..redis.keys import Keys
from .log import Append, Log


class Move(NamedTuple):
    """A session enters or leaves a room: an entry that is queued."""

    kind: Literal["enter", "leave"]
    sid: str
    room: Room
    append: Append


class MembershipLog:
    """Changes membership by way of the log, wherever the client is.

    Methods that are awaited return once the entry is stored and this node has dispatched it, and raise
    :class:`PublishTimeout` if Redis does not take it in time.

    :param elsewhere: moves clients that have no session here, and may be connected to something else than this cluster.
    """

    def __init__(
        self, log: Log, keys: Keys, elsewhere: Callable[[Sequence[Move]], Awaitable[None]] | None = None
    ) -> None:
        self.log = log
        self.keys = keys
        self.elsewhere = elsewhere

    def move(self, kind: Literal["enter", "leave"], sid: str, namespace: str, rooms: Iterable[Room]) -> list[Move]:
        """A session enters or leaves rooms: queues an entry for each. :meth:`settle` waits for them.

        :raises ValueError: for a text that has no UTF-8 form. Nothing is queued then.
        """
        moves = [Move(kind, sid, room, self._append(kind, sid, namespace, room)) for room in rooms]
        for move in moves:
            self.log.queue(move.append)
        return moves

    def _append(self, kind: Literal["enter", "leave"], sid: str, namespace: str, room: Room) -> Append:
        action = actions.moves(kind, self.keys, namespace, sid, room)
        return Append(control_head(kind, namespace, sid, room), (), action)

    async def settle(self, moves: Sequence[Move], level: int = logging.WARNING) -> set[str]:
        """Waits until moves are stored and dispatched. If some fail, the first error is raised when all are over.

        :param level: how a move of a session that does not exist is logged.
        :returns: the sessions for which something has changed.
        :raises ValueError: if a room is another session's own.
        """
        errors: list[Exception] = []
        unknown: list[Move] = []
        moved: set[str] = set()
        for move, result in zip(moves, await self._answers([move.append for move in moves]), strict=True):
            if isinstance(result, Exception):
                errors.append(result)
            elif result is AppendResult.STORED:
                moved.add(move.sid)
            elif result is AppendResult.SID_ROOM:
                errors.append(not_its_own(move.room))
            elif result is AppendResult.UNKNOWN_SESSION:
                unknown.append(move)
        if unknown and self.elsewhere is not None:
            await self.elsewhere(unknown)
        elif unknown:
            sids = ", ".join(dict.fromkeys(move.sid for move in unknown))
            rooms = ", ".join(dict.fromkeys(repr(move.room) for move in unknown))
            self.log.logger.log(level, "%s has no session: it can't %s room %s", sids, unknown[0].kind, rooms)
        if errors:
            raise errors[0]
        return moved

    async def _answers(self, appends: Sequence[Append]) -> list[AppendResult | Exception]:
        """What became of entries that are queued, or what was raised."""
        answers: list[AppendResult | Exception] = []
        for i, append in enumerate(appends):
            try:
                answers.append(await self.log.answer(append))
            except asyncio.CancelledError:
                for other in appends[i + 1 :]:
                    self.log.abandon(other)
                raise
            except Exception as error:
                answers.append(error)
        return answers

    async def close(self, room: Room, namespace: str) -> None:
        """All sessions leave a room."""
        action = actions.closes(self.keys, namespace, room)
        await self.log.append(Append(control_head(CLOSE, namespace, room), (), action))

    async def disconnect(self, sid: str, namespace: str) -> None:
        """A session ends now. The node that has its client tells it."""
        await self.disconnect_all([sid], namespace)

    async def disconnect_all(self, sids: Sequence[str], namespace: str) -> dict[str, Sequence[str]]:
        """Sessions end now, as by :meth:`disconnect`. If some fail, the first error is raised when all are over.

        :returns: the sessions that had no connection, each with the rooms, as JSON, in which it is still counted.
        :raises ValueError: for a text that has no UTF-8 form. Nothing is queued then.
        """
        appends = [
            Append(control_head(DISCONNECT, namespace, sid), (), actions.ends(self.keys, namespace, sid))
            for sid in sids
        ]
        for append in appends:
            self.log.queue(append)
        for answer in await self._answers(appends):
            if isinstance(answer, Exception):
                raise answer
        return {sid: append.left for sid, append in zip(sids, appends, strict=True) if append.left}


def not_its_own(room: Room) -> ValueError:
    """What is raised when a session should enter the room that is another one's own."""
    return ValueError(f"cannot enter a sid room: {room!r} is the id of another client")
