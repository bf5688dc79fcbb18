"""Random logs, and the twin of each session in them: what a session received that never dropped."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from socketio_recovery.entries import (
    CLOSE,
    DISCONNECT,
    ENTER,
    EVENT,
    EVICT,
    JSON,
    LEAVE,
    Entry,
    Payload,
    Room,
    control_head,
    event_head,
    payload_fields,
)
from socketio_recovery.window import Window

from .twin import Twin

SIDS = ("s1", "s2", "s3")
ROOMS: tuple[Room, ...] = ("red", "blue", 7, -1)
NAMESPACES = ("/", "/other")


class Past:
    """A log, and a twin for each session that is in it from its beginning."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.twins = {(namespace, sid): Twin(namespace, sid) for namespace in NAMESPACES for sid in SIDS}

    def add(self, kind: str, namespace: str) -> Entry:
        """Adds an entry; the caller fills in its other fields, and then calls :meth:`seen`."""
        entry = Entry(kind, len(self.entries) + 1, 1000 + len(self.entries))
        entry.namespace = namespace
        self.entries.append(entry)
        return entry

    def seen(self) -> None:
        """Shows the last entry to all twins."""
        for twin in self.twins.values():
            twin.see(self.entries[-1])

    def window(self, floor: int = 0) -> Window:
        """Returns a window with all entries after the number ``floor``."""
        window = Window(10**9, 10**9)
        window.reset(floor)
        for entry in self.entries[floor:]:
            window.append(entry)
        return window


def event(entry: Entry, rooms: Sequence[Room], skip: Sequence[str] = ()) -> None:
    """Fills in the fields of an entry that is an event.

    :param rooms: to which rooms; empty for everybody.
    :param skip: sessions that do not get it.
    """
    entry.rooms, entry.skip = rooms, skip
    entry.payload = Payload(JSON, b'["e"]', (), 0)


def stored(entry: Entry, epoch: int) -> tuple[bytes, list[bytes]]:
    """Returns an entry as Redis has it in the stream: its id and its fields.

    :param epoch: of the log.
    """
    kind, namespace, payload = entry.kind, entry.namespace, entry.payload
    if kind == EVENT:
        assert payload is not None
        head = event_head(namespace, entry.rooms, entry.skip, payload, entry.volatile, entry.callback)
    elif kind in (ENTER, LEAVE):
        head = control_head(kind, namespace, entry.sid, entry.room)
    elif kind == CLOSE:
        head = control_head(kind, namespace, entry.room)
    elif kind == DISCONNECT:
        head = control_head(kind, namespace, entry.sid)
    elif kind == EVICT:
        head = control_head(kind, namespace, entry.sid, entry.node, entry.transport)
    else:
        head = control_head(kind)
    fields = ["epoch", str(epoch), "head", head, *(payload_fields(payload) if kind == EVENT and payload else ())]
    return f"{entry.ms}-{entry.n}".encode(), [f.encode() if isinstance(f, str) else f for f in fields]


KINDS = (EVENT,) * 6 + (ENTER,) * 4 + (LEAVE,) * 2 + (CLOSE,) * 2 + (DISCONNECT, EVICT)


def past_of(choices: bytes) -> Past:
    """Makes a log from random bytes, as the append script would write it: a session that is in a room can't enter it.

    Four bytes describe one entry, so that Hypothesis can shorten the log of a failing test.
    """
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
                continue  # the script refuses it
            entry = past.add(kind, namespace)
            entry.sid, entry.room = twin.sid, room
        elif which < 60 or kind == EVICT:
            past.add(kind, namespace).sid = twin.sid
        else:
            continue
        past.seen()
    return past


def pasts() -> st.SearchStrategy[Past]:
    """Returns a Hypothesis strategy for random logs of up to 60 entries."""
    return st.integers(0, 60).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)).map(past_of)
