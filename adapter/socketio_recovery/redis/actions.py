"""What an entry does to session records, in the step that stores it: arguments and reply of ``lua/append.lua``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ..entries import CLOSE, ENTER, Position, Room, dump
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


class Appended(NamedTuple):
    """What the script says of a batch. Entries are counted from 1."""

    #: The last entry of the log.
    last: Position
    #: When the script stored the batch (Redis's time, ms); 0 if it stored nothing.
    ms: int
    #: Why an entry was refused; 0 stands for the whole batch.
    refused: dict[int, str]
    #: The rooms, as JSON, in which a session without a connection was when an entry ended it.
    left: dict[int, Sequence[str]]


def appended(reply: Sequence[Any]) -> Appended:
    """Reads the script's reply."""
    epoch, n, ms, *remarks = reply
    refused: dict[int, str] = {}
    left: dict[int, Sequence[str]] = {}
    for i, remark in zip(map(int, remarks[::2]), remarks[1::2], strict=True):
        text = remark.decode(errors="replace")
        if text.startswith(_LEFT):
            left[i] = text.removeprefix(_LEFT).split("\x1f")
        else:
            refused[i] = text
    return Appended(Position(int(epoch), int(n)), int(ms), refused, left)
