"""Looking back: what clients missed and the window no longer holds is read from the stream.  No I/O.

The stream is read forwards in slices, and each slice is dispatched once more, to an *audience*: connections that have
got everything up to the same number. So one reading serves all who wait, whatever each of them missed. Nothing of a
slice is kept, and entries that concern none of them are not even parsed. When an audience reaches the place where the
window begins, its connections go on from the window, and from there they go live (``delivery.py``).

Who is read for next.  The audience that is furthest behind: on its way it meets the others and takes them along. So
clients that come one after the other share nearly everything. If clients kept coming, those who came first would wait
for ever; so every fourth slice is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from .connections import Connection, Flow, RoomIndex
from .entries import CLOSE, DISCONNECT, ENTER, EVENT, LEAVE, Entry, Head, parse_head
from .log_cursor import Stamped
from .membership import move

#: One slice of so many is for those who have waited for the longest time.
TURNS = 4


class Audience:
    """Connections that have got everything up to the same number.

    :param after: that number.
    :param since: when the first of them came; smaller is earlier.
    """

    def __init__(self, after: int, since: int) -> None:
        self.after = after
        self.since = since
        #: The stream id of entry ``after``; empty if it is not known.
        self.id = ""
        self.connections: dict[Connection, None] = {}
        self._index = RoomIndex()

    def add(self, connection: Connection) -> None:
        """Takes a connection in that has got everything up to ``after``."""
        self.connections[connection] = None
        self._index.add(connection, connection.rooms_then)

    def remove(self, connection: Connection) -> None:
        """Lets a connection go."""
        del self.connections[connection]
        self._index.remove(connection, connection.rooms_then)

    def absorb(self, other: Audience) -> None:
        """Takes along the connections of another audience that is at the same place."""
        for connection in other.connections:
            self.add(connection)
        self.since = min(self.since, other.since)

    def concerns(self, head: Head) -> bool:
        """Whether an entry with this head is for any of the connections, as far as they are now."""
        rooms = self._index.rooms(head.namespace)
        if not rooms:
            return False
        if head.kind == EVENT:
            replayed = not head.volatile and head.callback is None
            return replayed and (not head.rooms or any(room in rooms for room in head.rooms))
        if head.kind == CLOSE:
            return head.room in rooms
        return head.kind in (ENTER, LEAVE, DISCONNECT) and head.sid in rooms

    def concerned(self, entry: Entry) -> list[Connection]:
        """The connections that an event is for, whose session an entry is about, or that are in a room that closes.

        Those that are over are left out.
        """
        if entry.kind == EVENT:
            rooms, skip = entry.rooms, entry.skip
        else:
            rooms, skip = (entry.room if entry.kind == CLOSE else entry.sid,), ()
        members = self._index.members(entry.namespace, rooms)
        closes = entry.kind == CLOSE  # a session's own room can't be closed
        return [
            c
            for c in members
            if c.flow is Flow.BEHIND and c.sid not in skip and not (closes and entry.room not in c.rooms_then)
        ]

    def move(self, connection: Connection, entry: Entry) -> None:
        """Applies an entry to the rooms in which a connection was then."""
        move(connection.rooms_then, entry)
        (self._index.enter if entry.kind == ENTER else self._index.leave)(connection, entry.room)


class Audiences:
    """All connections of a node that wait for what is not in the window."""

    def __init__(self) -> None:
        self._audiences: list[Audience] = []
        self._count = count()
        self._turn = 0

    def add(self, connection: Connection) -> None:
        """A connection waits for what comes after its ``after``."""
        audience = next((a for a in self._audiences if a.after == connection.after), None)
        if audience is None:
            audience = Audience(connection.after, next(self._count))
            self._audiences.append(audience)
        audience.add(connection)

    def remove(self, connection: Connection) -> None:
        """A connection does not wait any more; nothing happens if it did not."""
        for audience in self._audiences:
            if connection in audience.connections:
                audience.remove(connection)

    def next(self) -> Audience | None:
        """For whom to read next; ``None`` if nobody waits."""
        self._audiences = [audience for audience in self._audiences if audience.connections]
        if not self._audiences:
            return None
        self._turn += 1
        if self._turn % TURNS == 0:
            return min(self._audiences, key=lambda audience: audience.since)
        return min(self._audiences, key=lambda audience: audience.after)

    def slice(self, audience: Audience, items: Sequence[Any], epoch: int, upto: int) -> Iterator[Stamped]:
        """The entries among ``items`` that concern an audience, which moves on with them.

        Each must be dispatched to it before the next is asked for: it may have met another audience by then.

        :param items: what Redis returned: pairs (id, fields), from the entry after the audience on.
        :param epoch: of the log as this node follows it.
        :param upto: this node has dispatched entries up to this number; later ones are left out.
        :raises LookupError: if what follows the audience is missing: the log was trimmed past it, or begun anew.
        """
        text = str(epoch).encode()
        ahead = sorted((a for a in self._audiences if a.after > audience.after), key=lambda a: -a.after)
        last, last_id = audience.after, audience.id
        try:
            for id, fields in items:
                if fields[0] != b"epoch":  # something else wrote it
                    last_id = id.decode()
                    continue
                ms, _, number = id.partition(b"-")
                n = int(number)
                if n > upto:
                    break
                if n != last + 1 or fields[1] != text:
                    raise LookupError(f"the log holds entry {n} of epoch {fields[1]!r} in the place of {last + 1}")
                while ahead and ahead[-1].after < n:
                    self._meet(audience, ahead.pop())
                last, last_id = n, id.decode()
                if _concerns(audience, fields):
                    yield Stamped(epoch, n, int(ms), fields[2:])
        finally:
            audience.after, audience.id = last, last_id
        while ahead and ahead[-1].after <= last:
            self._meet(audience, ahead.pop())

    def _meet(self, audience: Audience, other: Audience) -> None:
        audience.absorb(other)
        self._audiences.remove(other)


def _concerns(audience: Audience, fields: Sequence[bytes]) -> bool:
    try:
        return fields[2] == b"head" and audience.concerns(parse_head(fields[3]))
    except Exception:  # it could not be read when it was dispatched, either
        return False
