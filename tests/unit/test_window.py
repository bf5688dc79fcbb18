"""The window: what it keeps, what it lets go, and that it finds what it keeps."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from socketio_recovery.entries import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EPOCH,
    EVENT,
    EVICT,
    JSON,
    LEAVE,
    Entry,
    Payload,
    Room,
    pack,
    places,
    size_of,
    unpack,
)
from socketio_recovery.window import BLOCK, Window, needed

ROOMS: tuple[Room, ...] = (None, "red", "blue", "s1", 7)


def event(n: int, *rooms: Room, ms: int = 0, namespace: str = "/", size: int = 0, volatile: bool = False) -> Entry:
    entry = Entry(EVENT, n, ms or n)
    entry.namespace, entry.rooms, entry.volatile = namespace, rooms, volatile
    entry.payload = Payload(JSON, b"x" * size, (), 0)
    return entry


def moved(kind: str, n: int, sid: str = "s1", room: Room = "red") -> Entry:
    entry = Entry(kind, n, n)
    entry.namespace = "/"
    entry.sid, entry.room = sid, room
    return entry


def filled(*entries: Entry, retention: int = 10**9, max_bytes: int = 10**9) -> Window:
    window = Window(retention, max_bytes)
    for entry in entries:
        window.append(entry)
    return window


def found(window: Window, room: Room, after: int = 0, upto: int = 10**9, namespace: str = "/") -> list[int]:
    return [entry.n for entry in window.between(namespace, room, after, upto)]


def test_an_event_is_found_under_its_rooms() -> None:
    window = filled(event(1), event(2, "red"), event(3, "red", "blue"), event(4, "red", namespace="/other"))
    assert found(window, None) == [1]
    assert found(window, "red") == [2, 3]
    assert found(window, "blue") == [3]
    assert found(window, "red", namespace="/other") == [4]
    assert found(window, "green") == found(window, "red", namespace="/none") == []


def test_what_moves_a_session_is_found_under_its_sid_and_a_closing_under_the_room() -> None:
    window = filled(*(moved(kind, n) for n, kind in enumerate((ENTER, LEAVE, DISCONNECT, CLOSE), 1)))
    assert found(window, "s1") == [1, 2, 3]
    assert found(window, "red") == [4]


def test_after_and_between_have_their_ends_right() -> None:
    window = filled(*(event(n, "red" if n % 2 else "blue") for n in range(1, 8)))
    assert [window.after("/", "red", n) for n in range(8)] == [1, 3, 3, 5, 5, 7, 7, None]
    assert found(window, "red", 1, 5) == [3, 5]
    assert found(window, "red", 2, 4) == [3]
    assert found(window, "red", 3, 3) == []


def test_what_no_recovery_needs_keeps_its_place_only() -> None:
    with_callback = event(3)
    with_callback.callback = ("node", 1)
    window = filled(event(1), event(2, volatile=True), with_callback, Entry(EVICT, 4, 4), Entry(EPOCH, 5, 5), event(6))
    assert [window[n] is not None for n in range(1, 7)] == [True, False, False, False, False, True]
    assert (window.last, len(window)) == (6, 6)
    assert found(window, None) == [1, 6]
    assert not any(map(needed, (with_callback, Entry(EVICT), Entry(EPOCH), Entry(CALLBACK))))


def test_entries_outside_are_an_error() -> None:
    window = Window(1000, 1000)
    window.reset(5, 0)
    window.append(event(6))
    assert window[6] is not None
    for n in (0, 4, 5, 7):
        with pytest.raises(IndexError):
            window.ms(n)
        with pytest.raises(IndexError):
            window[n]


def test_what_is_too_old_is_trimmed() -> None:
    window = filled(*(event(n, "red", ms=n * 10) for n in range(1, 2001)), retention=5000)
    window.trim()
    assert window.floor == 1499  # 1500 is as old as may be
    assert window.last == 2000
    assert found(window, "red") == list(range(1500, 2001))
    assert window.bytes == sum(size_of(pack(entry)) for n in range(1500, 2001) if (entry := window[n]))


def test_what_is_recent_stays_though_no_recovery_needs_it() -> None:
    """A client at a position within the retention must find the window reaching back to it."""
    window = filled(*(event(n, ms=10_000 + n, volatile=True) for n in range(1, 3 * BLOCK)), retention=5000)
    window.trim()
    assert window.floor == 0
    old = [event(n, ms=n, volatile=n % 2 == 0) for n in range(1, BLOCK + 1)]
    recent = [event(n, ms=10_000 + n, volatile=True) for n in range(BLOCK + 1, 3 * BLOCK)]
    window = filled(*old, *recent, retention=5000)
    window.trim()
    assert window.floor == BLOCK


def test_what_is_to_be_kept_is_not_too_old_but_may_be_too_much() -> None:
    entries = [event(n, "red", ms=n * 10, size=700) for n in range(1, 2001)]
    window = filled(*entries, retention=10)
    window.trim(keep=500)
    assert window.floor == 500
    assert found(window, "red") == list(range(501, 2001))
    window.trim(keep=3000)
    assert window.floor == 1998
    window = filled(*entries, max_bytes=10_000)
    window.trim(keep=500)
    assert window.floor == 1990


def test_trimming_waits_for_a_block() -> None:
    window = filled(*(event(n, ms=n) for n in range(1, BLOCK)), event(BLOCK, ms=10**6), retention=1000)
    window.trim()
    assert window.floor == 0
    window.append(event(BLOCK + 1, ms=10**7))
    window.trim()
    assert window.floor == BLOCK


def test_what_is_too_much_is_trimmed() -> None:
    window = filled(*(event(n, "red", size=700) for n in range(1, 101)), max_bytes=10_000)
    assert window.full
    window.trim()
    assert not window.full
    assert (window.floor, window.last) == (90, 100)
    assert window.bytes == 10 * 1000


def test_attachments_count() -> None:
    entry = event(1)
    entry.payload = Payload(JSON, b"[]", [b"x" * 5000, b"y" * 5000], 0)
    assert 10_000 < filled(entry).bytes < 12_000


def test_nothing_is_left_when_everything_was_dropped() -> None:
    entries = [event(n, "red", "blue", "red") for n in range(1, 50)]
    entries += [moved(kind, 50 + i, f"s{i}") for i, kind in enumerate((ENTER, LEAVE, CLOSE, DISCONNECT))]
    window = filled(*entries, max_bytes=0)
    window.trim()
    assert (len(window), window.bytes, window.floor, window.last) == (0, 0, 53, 53)
    assert window._index == {}


def test_a_reset_forgets_all() -> None:
    window = filled(event(1, "red"), event(2))
    window.reset(100, 5)
    assert (window.floor, window.last, window.bytes, window.floor_ms, len(window)) == (100, 100, 0, 5, 0)
    assert found(window, "red") == []
    window.append(event(101, "red"))
    assert found(window, "red") == [101]


def test_prepending() -> None:
    window = Window(10**9, 10**9)
    window.reset(5, 50)
    window.append(event(6, "red", ms=60))
    window.prepend([event(4, "red", ms=40), event(5, "blue", ms=50)])
    window.prepend([moved(ENTER, 2), event(3, volatile=True)])
    assert (window.floor, window.last) == (1, 6)
    assert found(window, "red") == [4, 6]
    assert found(window, "blue") == [5]
    assert found(window, "s1") == [2]
    assert [window[n] is None for n in range(2, 7)] == [False, True, False, False, False]
    assert window.bytes == sum(size_of(pack(entry)) for n in range(2, 7) if (entry := window[n]))


def test_the_time_of_the_floor_is_not_before_its_entry() -> None:
    window = Window(10**9, 10**9)
    window.reset(5, 500)
    assert window.floor_ms == 500
    window.append(event(6, ms=600, volatile=True))
    assert 500 <= window.floor_ms <= 600
    window.append(event(7, ms=700))
    assert 500 <= window.floor_ms <= 700


def test_the_garbage_collector_passes_over_what_the_window_holds() -> None:
    window = Window(10**9, 1 << 30)
    entries = [event(1, "red", "blue"), event(2), moved(ENTER, 3)]
    entries[0].skip = ["s1"]
    entries[0].payload = Payload(JSON, b"[]", [b"attached"], 0)
    for entry in entries:
        window.append(entry)
    for _ in range(3):
        gc.collect()
    assert not any(gc.is_tracked(packed) for packed in window._entries)


def test_a_packed_entry_is_the_same_again() -> None:
    entry = event(7, "red", ms=70)
    again = unpack(7, pack(entry))
    assert (again.n, again.ms, again.rooms, again.payload) == (7, 70, ("red",), entry.payload)
    closed = moved(CLOSE, 8)
    again = unpack(8, pack(closed))
    assert (again.kind, again.n, again.namespace, again.sid, again.room) == (
        *(CLOSE, 8, closed.namespace, closed.sid, closed.room),
    )


@dataclass
class Plain:
    """What a window does, by looking at every entry."""

    floor: int
    entries: list[Entry] = field(default_factory=list)

    def places(self, namespace: str, room: Room, after: int, upto: int) -> list[int]:
        return [
            e.n
            for e in self.entries
            if needed(e) and e.namespace == namespace and room in places(pack(e)) and after < e.n <= upto
        ]


class Compared(RuleBasedStateMachine):
    """Any sequence of steps leaves a window as the plain list has it."""

    @initialize(floor=st.integers(0, 30), retention=st.sampled_from([50, 10**6]), max_bytes=st.integers(0, 400_000))
    def begin(self, floor: int, retention: int, max_bytes: int) -> None:
        self.window = Window(retention, max_bytes)
        self.window.reset(floor, floor)
        self.plain = Plain(floor)
        self.ms = floor

    def entry(self, choice: int, n: int, ms: int) -> Entry:
        kind = (EVENT, EVENT, EVENT, EVENT, ENTER, LEAVE, CLOSE, DISCONNECT, EVICT)[choice % 9]
        entry = event(n, *(room for i, room in enumerate(ROOMS[1:]) if choice >> i & 16), ms=ms, size=choice % 700)
        entry.kind = kind
        entry.namespace = "/" if choice % 5 else "/other"
        entry.volatile = choice % 7 == 0
        entry.sid, entry.room = "s1", ROOMS[1 + choice % 4]
        if kind != EVENT:
            entry.payload = None
        return entry

    @rule(choices=st.lists(st.integers(0, 255), min_size=1, max_size=150), step=st.integers(0, 3))
    def append(self, choices: list[int], step: int) -> None:
        for choice in choices:
            self.ms += step
            entry = self.entry(choice, self.window.last + 1, self.ms)
            self.window.append(entry)
            self.plain.entries.append(entry)

    @precondition(lambda self: self.plain.floor > 0)
    @rule(data=st.data())
    def prepend(self, data: st.DataObject) -> None:
        floor = self.plain.floor
        choices = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=min(floor, 40)))
        first = floor - len(choices) + 1
        oldest = self.plain.entries[0].ms if self.plain.entries else self.ms
        entries = [self.entry(choice, first + i, min(oldest, first + i)) for i, choice in enumerate(choices)]
        self.window.prepend(entries)
        self.plain.entries[:0] = entries
        self.plain.floor -= len(entries)

    @rule(pin=st.none() | st.integers(0, 300))
    def trim(self, pin: int | None) -> None:
        window = self.window
        keep = sys.maxsize if pin is None else window.floor + pin
        before = self.plain.floor
        full = window.full
        window.trim(keep)
        assert not window.full
        gone = window.floor - before
        assert gone >= 0
        dropped, kept = self.plain.entries[:gone], self.plain.entries[gone:]
        limit = window.newest_ms - window.retention
        if not full:
            assert all(entry.ms < limit for entry in dropped), "what is recent stays"
            assert window.floor <= keep
        old = sum(1 for entry in kept if entry.ms < limit and entry.n <= keep)
        assert old < 2 * BLOCK
        self.plain.entries, self.plain.floor = kept, window.floor

    @rule(room=st.sampled_from(ROOMS), namespace=st.sampled_from(["/", "/other"]), data=st.data())
    def look(self, room: Room, namespace: str, data: st.DataObject) -> None:
        floor, last = self.plain.floor, self.window.last
        after = data.draw(st.integers(floor, last))
        upto = data.draw(st.integers(floor, last))
        expected = self.plain.places(namespace, room, after, upto)
        assert found(self.window, room, after, upto, namespace) == expected
        following = self.plain.places(namespace, room, after, last)
        assert self.window.after(namespace, room, after) == (following[0] if following else None)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "window"):
            return
        window, entries = self.window, self.plain.entries
        assert (window.floor, window.last) == (self.plain.floor, self.plain.floor + len(entries))
        assert window.bytes == sum(size_of(pack(entry)) for entry in entries if needed(entry))
        for i, entry in enumerate(entries):
            kept = window[self.plain.floor + 1 + i]
            assert (kept and (kept.n, *pack(kept))) == ((entry.n, *pack(entry)) if needed(entry) else None)


Compared.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestCompared = Compared.TestCase
