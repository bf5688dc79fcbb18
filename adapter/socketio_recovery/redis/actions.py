"""What an entry does to session records, in the step that stores it: the arguments of ``lua/append.lua``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..entries import CLOSE, ENTER, Room, dump
from .keys import Keys

#: What the script says of a session without a connection that it ended begins with this; the names of the rooms follow.
_LEFT: Final = "left\x1f"


class Action(NamedTuple):
    """What an entry does to session records. See ``lua/append.lua``."""

    name: str = ""
    #: Script arguments; a ``(key,)`` stands for that key's index, ``None`` for no key.
    arguments: tuple[str | tuple[str] | None, ...] = ()


NO_ACTION: Final = Action()


def moves(kind: str, keys: Keys, namespace: str, sid: str, room: Room) -> Action:
    """A session enters or leaves a room.

    :param kind: ``ENTER`` or ``LEAVE``.
    """
    own = (keys.session(room),) if kind == ENTER and isinstance(room, str) else None
    sets = (keys.everyone(namespace),), (keys.members(namespace, room),)
    return Action(kind, ((keys.session(sid),), namespace, dump(room), own, *sets))


def closes(keys: Keys, namespace: str, room: Room) -> Action:
    """All sessions leave a room."""
    return Action(CLOSE, (namespace, dump(room), (keys.members(namespace, room),)))


def ends(keys: Keys, namespace: str, sid: str) -> Action:
    """A session is over. If it has a connection, its node ends that first."""
    return Action("end", ((keys.session(sid),), (keys.everyone(namespace),)))


def left_rooms(remark: str) -> Sequence[str] | None:
    """The rooms, as JSON, that a session without a connection was in when it was ended.

    :param remark: what the script said of an entry.
    :returns: ``None`` if the remark is another: why an entry was refused.
    """
    return remark.removeprefix(_LEFT).split("\x1f") if remark.startswith(_LEFT) else None
