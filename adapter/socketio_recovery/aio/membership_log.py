"""Appends the entries that change membership: entering, leaving and closing rooms, and the end of a session."""

from __future__ import annotations

from typing import Literal

from ..entries import CLOSE, DISCONNECT, ENTER, Room, control_head, dump
from ..reasons import AppendResult
from ..redis.keys import Keys
from .log import Action, Append, Log


class MembershipLog:
    """Changes membership by way of the log, wherever the client is.

    Each method returns once the entry is stored and this node has dispatched it, and raises :class:`PublishTimeout` if
    Redis does not take it in time.
    """

    def __init__(self, log: Log, keys: Keys) -> None:
        self.log = log
        self.keys = keys

    async def move(self, kind: Literal["enter", "leave"], sid: str, namespace: str, room: Room) -> AppendResult:
        """A session enters or leaves a room.

        :returns: ``STORED``, or why the entry was refused.
        """
        session = (self.keys.session(sid),)
        room_session = (self.keys.session(room),) if kind == ENTER and isinstance(room, str) else None
        action = Action(kind, (session, namespace, dump(room), room_session))
        return await self.log.append(Append(control_head(kind, namespace, sid, room), (), action))

    async def close(self, room: Room, namespace: str) -> None:
        """All sessions leave a room."""
        action = Action(CLOSE, (namespace, dump(room)))
        await self.log.append(Append(control_head(CLOSE, namespace, room), (), action))

    async def disconnect(self, sid: str, namespace: str) -> None:
        """A session ends now. The node that has its client tells it."""
        action = Action("end", ((self.keys.session(sid),),))
        await self.log.append(Append(control_head(DISCONNECT, namespace, sid), (), action))
