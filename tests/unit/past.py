"""Random logs, and what sessions got that were there all the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from socketio_recovery import membership
from socketio_recovery.codec import CLOSE, DISCONNECT, ENTER, EVENT, EVICT, JSON, LEAVE, Entry, Payload, Room
from socketio_recovery.membership import Stay
from socketio_recovery.window import Window

SIDS = ("s1", "s2", "s3")
ROOMS: tuple[Room, ...] = ("red", "blue", 7, -1)
NAMESPACES = ("/", "/other")


@dataclass
class Twin:
    """A session that never dropped: it looks at every entry, one after the other."""

    namespace: str
    sid: str
    rooms: membership.Rooms = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    #: Volatile events and those with a callback, which are for who is connected.
    fleeting: list[int] = field(default_factory=list)
    ended: int | None = None
    #: The rooms after each entry.
    history: list[membership.Rooms] = field(default_factory=list)

    def see(self, entry: Entry) -> None:
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
        return [*self.stays, *(Stay(room, entered) for room, entered in self.rooms.items())]


class Past:
    """A log, and what each session would have got that was there from its beginning."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.twins = {(namespace, sid): Twin(namespace, sid) for namespace in NAMESPACES for sid in SIDS}

    def add(self, kind: str, namespace: str) -> Entry:
        entry = Entry(kind, len(self.entries) + 1, 1000 + len(self.entries))
        entry.namespace = namespace
        self.entries.append(entry)
        return entry

    def seen(self) -> None:
        for twin in self.twins.values():
            twin.see(self.entries[-1])

    def window(self, floor: int = 0) -> Window:
        window = Window(10**9, 10**9)
        window.reset(floor, 0)
        for entry in self.entries[floor:]:
            window.append(entry)
        return window


def event(entry: Entry, rooms: Sequence[Room], skip: Sequence[str] = ()) -> None:
    entry.rooms, entry.skip = rooms, skip
    entry.payload = Payload(JSON, b'["e"]', (), 0)


KINDS = (EVENT,) * 6 + (ENTER,) * 4 + (LEAVE,) * 2 + (CLOSE,) * 2 + (DISCONNECT, EVICT)


def past_of(choices: bytes) -> Past:
    """The log that some bytes stand for, as the append script writes it: nobody enters a room that he is in."""
    past = Past()
    for where, kind, whom, which in zip(*(choices[i::4] for i in range(4)), strict=True):
        namespace = NAMESPACES[where < 40]
        kind, room = KINDS[kind % len(KINDS)], ROOMS[which % len(ROOMS)]
        twin = past.twins[namespace, SIDS[whom % len(SIDS)]]
        if kind == EVENT:
            entry = past.add(kind, namespace)
            rooms: list[Room] = [place for i, place in enumerate((*ROOMS, "s1")) if which >> i & 1]
            event(entry, rooms if which < 200 else [], [twin.sid] if whom > 200 else [])
            entry.volatile = whom % 11 == 0
            entry.callback = ("node", 1) if whom % 13 == 0 else None
        elif kind == CLOSE:
            past.add(kind, namespace).room = room
        elif kind in (ENTER, LEAVE):
            if twin.ended is not None or (room in twin.rooms) == (kind == ENTER):
                continue  # refused
            entry = past.add(kind, namespace)
            entry.sid, entry.room = twin.sid, room
        elif which < 60 or kind == EVICT:
            past.add(kind, namespace).sid = twin.sid
        else:
            continue
        past.seen()
    return past


def pasts() -> st.SearchStrategy[Past]:
    return st.integers(0, 60).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)).map(past_of)


def rooms_after(twin: Twin, n: int) -> membership.Rooms:
    return dict(twin.history[n - 1]) if n else {}
