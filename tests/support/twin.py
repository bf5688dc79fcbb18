"""The twin of a session: a session that sees the whole log, with which a recovered one is compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from socketio_recovery import membership
from socketio_recovery.entries import CLOSE, DISCONNECT, ENTER, EVENT, LEAVE, Entry
from socketio_recovery.membership import Stay


@dataclass
class Twin:
    """A session that never lost its connection: it sees every entry of the log, one after the other.

    A recovered client must have received the same events as its session's twin, in the same order.
    """

    namespace: str
    sid: str
    rooms: membership.Rooms = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    #: Volatile events and events with a callback: only connected clients get them, they are not replayed.
    fleeting: list[int] = field(default_factory=list)
    ended: int | None = None
    #: The rooms that it was in after each entry.
    history: list[membership.Rooms] = field(default_factory=list)

    def see(self, entry: Entry) -> None:
        """Takes the next entry of the log into account."""
        if entry.namespace == self.namespace and self.ended is None:
            if entry.kind == EVENT:
                self._event(entry)
            elif entry.kind == ENTER and entry.sid == self.sid:
                self.rooms[entry.room] = entry.n
            elif entry.kind == CLOSE or (entry.kind == LEAVE and entry.sid == self.sid):
                entered = self.rooms.pop(entry.room, None)
                if entered is not None:
                    self.stays.append(Stay(entry.room, entered, entry.n))
            elif entry.kind == DISCONNECT and entry.sid == self.sid:
                self.ended = entry.n
        self.history.append(dict(self.rooms))

    def _event(self, entry: Entry) -> None:
        member = not entry.rooms or any(room == self.sid or room in self.rooms for room in entry.rooms)
        lasting = not entry.volatile and entry.callback is None
        if member and self.sid not in entry.skip:
            (self.got if lasting else self.fleeting).append(entry.n)

    @property
    def all_stays(self) -> list[Stay]:
        """Returns all stays in rooms, past and present."""
        return [*self.stays, *(Stay(room, entered) for room, entered in self.rooms.items())]


def rooms_after(twin: Twin, n: int) -> membership.Rooms:
    """Returns the rooms that a twin was in after entry ``n``; it was in none before the first entry."""
    return dict(twin.history[n - 1]) if n else {}
