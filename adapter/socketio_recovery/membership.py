"""Who is in which room at position n: a pure function of the log.  No I/O.

Entering, leaving and closing a room are entries of the log, in one order with the events. So whether a
client gets event n does not depend on which node it is connected to, or whether it is connected at all:
it gets it if it was in one of the event's rooms at n. :func:`replay` computes for a client that returns
exactly what dispatching gave to a twin that never left.

A session is always in two rooms: ``None``, which is everybody in its namespace, and the one named by
its own ``sid``. They are not written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import NamedTuple

from .entries import CLOSE, DISCONNECT, ENTER, EVENT, LEAVE, Entry, Room
from .window import Window

#: The rooms a session is in, each with the position at which it entered.
Rooms = dict[Room, int]


class Stay(NamedTuple):
    """A session is in ``room`` at every n with ``entered <= n < left`` (``left`` None: still there)."""

    room: Room
    entered: int
    left: int | None = None


def rooms_at(stays: Iterable[Stay], n: int) -> Rooms:
    """The rooms of a session just after entry ``n``."""
    return {s.room: s.entered for s in stays if s.entered <= n and (s.left is None or n < s.left)}


def changed(rooms: Rooms, kind: str, moved: Iterable[Room]) -> None:
    """Applies to a session's rooms what is not in the log, or not yet: it enters or leaves rooms."""
    for room in moved:
        if kind == ENTER:
            rooms.setdefault(room, 0)
        else:
            rooms.pop(room, None)


def move(rooms: Rooms, entry: Entry) -> None:
    """Applies an entry that concerns the session to its rooms: it enters or leaves, or a room closes."""
    if entry.kind == ENTER:
        rooms[entry.room] = entry.n  # who is in the room already writes no entry
    elif entry.kind in (LEAVE, CLOSE):
        rooms.pop(entry.room, None)


class Replay(NamedTuple):
    """A slice of what a session missed."""

    events: list[Entry]  #: to be sent, in order
    upto: int  #: everything up to this number is accounted for
    done: bool  #: the slice reaches the end of the window, or of the session
    ended: bool  #: the application disconnected the session at ``upto``


def replay(window: Window, namespace: str, sid: str, rooms: Rooms, after: int, limit: int, size: int) -> Replay:
    """The next events after number ``after`` for session ``sid``, which is in ``rooms`` there.

    :param rooms: changed to what they are at ``upto`` of the result.
    :param limit: at most this many events.
    :param size: stop before an event with which they would take more than so many bytes, but for the first.
    :raises LookupError: if the window no longer reaches back to ``after``.

    Every room has a sorted list of the entries that concern it. They are merged by a heap that holds, for
    each room, its next entry and those after it. When the session enters a room, that room joins the merge there;
    a room that it has left meanwhile goes out of it.
    """
    if after < window.floor:
        raise LookupError(after)

    heap: list[tuple[int, int, Room, Iterator[int]]] = []
    ties = count()  # they decide between rooms of one entry: rooms themselves need not be comparable

    def follow(room: Room, after: int) -> None:
        numbers = window.numbers(namespace, room, after)
        for n in numbers:
            heappush(heap, (n, next(ties), room, numbers))
            break

    for room in (None, sid, *rooms):
        follow(room, after)
    events: list[Entry] = []
    done_to = after
    while heap:
        n, tie, room, numbers = heap[0]
        if room is not None and room != sid and room not in rooms:
            heappop(heap)  # left meanwhile
            continue
        for following in numbers:
            heapreplace(heap, (following, tie, room, numbers))
            break
        else:
            heappop(heap)
        if n == done_to:
            continue  # addressed to two of the session's rooms
        entry = window[n]
        assert entry is not None
        if entry.kind == EVENT:
            if sid not in entry.skip:
                size -= entry.size
                if len(events) == limit or (size < 0 and events):
                    return Replay(events, done_to, False, False)
                events.append(entry)
        elif entry.kind == DISCONNECT:
            return Replay(events, n, True, True)
        else:
            entering = entry.kind == ENTER and entry.room not in rooms
            move(rooms, entry)
            if entering:
                follow(entry.room, n)
        done_to = n
    return Replay(events, window.last, True, False)


def forward(window: Window, namespace: str, sid: str, rooms: Rooms, after: int) -> list[Room] | None:
    """Moves ``rooms`` from number ``after`` to the end of the window.

    :returns: which of them were closed; ``None`` if the application disconnected the session meanwhile.

    As :func:`replay`, without the events: only what concerns the session itself, and closings.
    """
    for entry in window.between(namespace, sid, after, window.last):
        if entry.kind == DISCONNECT:
            return None
        move(rooms, entry)
    closed: list[Room] = []
    for room, entered in list(rooms.items()):
        for entry in window.between(namespace, room, max(after, entered), window.last):
            if entry.kind == CLOSE:
                rooms.pop(room, None)
                closed.append(room)
                break
    return closed
