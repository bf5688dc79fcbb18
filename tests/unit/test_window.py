"""The window: what it keeps, what it lets go, and that it finds what it keeps."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
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
    MSGPACK,
    Entry,
    Payload,
    Room,
)
from socketio_recovery.window import BLOCK, MADE, Window, needed

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


def alike(window: Window) -> int:
    """The bytes of a new window with the same entries: they follow from what a window holds, not from what it held."""
    kept = (window[n] for n in range(window.floor + 1, window.last + 1))
    return filled(*(entry for entry in kept if entry)).bytes


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


def test_numbers_and_between_have_their_ends_right() -> None:
    window = filled(*(event(n, "red" if n % 2 else "blue") for n in range(1, 8)))
    assert [[*window.numbers("/", "red", n)] for n in (0, 1, 2, 6, 7)] == [[1, 3, 5, 7], [3, 5, 7], [3, 5, 7], [7], []]
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
    window.reset(5)
    window.append(event(6))
    assert window[6] is not None
    for n in (0, 4, 5, 7):
        with pytest.raises(IndexError):
            window[n]


def test_few_entries_are_kept_as_objects_and_none_that_the_window_has_lost() -> None:
    window = filled(*(event(n) for n in range(1, 2 * MADE)), max_bytes=0)
    last = window.last
    assert all(window[n] is window[n] for n in range(1, last + 1))
    assert 0 < len(window._made) <= MADE
    window.trim()
    with pytest.raises(IndexError):
        window[last]
    window.append(event(last + 1))
    assert window[last + 1] is not None
    window.reset(last)
    with pytest.raises(IndexError):
        window[last + 1]
    window.append(event(last + 1, "red"))
    assert found(window, "red") == [last + 1]


def test_what_is_too_old_is_trimmed() -> None:
    window = filled(*(event(n, "red", ms=n * 10) for n in range(1, 2001)), retention=5000)
    window.trim()
    assert window.floor == 1499  # 1500 is as old as may be
    assert window.last == 2000
    assert found(window, "red") == list(range(1500, 2001))
    assert window.bytes == alike(window)


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


def test_what_is_to_be_kept_is_neither_too_old_nor_too_much() -> None:
    entries = [event(n, "red", ms=n * 10, size=700) for n in range(1, 2001)]
    for window in (filled(*entries, retention=10), filled(*entries, max_bytes=10_000)):
        window.trim(keep=0)
        assert window.floor == 0
        window.trim(keep=500)
        assert window.floor == 500
        assert found(window, "red") == list(range(501, 2001))
        assert window.bytes == alike(window)
        window.trim(keep=400)  # it is gone already
        assert window.floor == 500
        window.trim(keep=3000)
        assert window.floor > 1900


def test_trimming_waits_for_a_block() -> None:
    window = filled(*(event(n, ms=n) for n in range(1, BLOCK)), event(BLOCK, ms=10**6), retention=1000)
    window.trim()
    assert window.floor == 0
    window.append(event(BLOCK + 1, ms=10**7))
    window.trim()
    assert window.floor == BLOCK


def test_what_is_too_much_is_trimmed() -> None:
    window = filled(*(event(n, "red", size=910) for n in range(1, 101)), max_bytes=10_000)
    assert window.bytes > 100 * 910
    window.trim()
    assert window.bytes <= 10_000
    assert (window.floor, window.last) == (91, 100)
    assert window.bytes == alike(window) > 9 * 910


def test_attachments_count() -> None:
    entry = event(1)
    entry.payload = Payload(JSON, b"[]", [b"x" * 5000, b"y" * 5000], 0)
    assert 10_000 < filled(entry).bytes < 12_000


def test_what_entries_share_counts_once() -> None:
    room = "x" * 10_000
    one, two = filled(event(1, room)), filled(event(1, room), event(2, room))
    assert one.bytes > 10_000
    assert two.bytes - one.bytes < 1000
    third = filled(event(1, room), event(2, room), event(3, "y" * 10_000))
    assert third.bytes > 20_000


def test_a_window_of_many_entries_takes_about_the_memory_that_it_counts() -> None:
    """Measured in the objects that it holds, each once."""
    window = Window(10**9, 1 << 30)
    for n in range(1, 5001):
        entry = event(n, "red", "blue" if n % 2 else 7)
        assert entry.payload is not None
        entry.payload = entry.payload._replace(data=b"%d" % n + b"x" * (n % 300))
        if n % 50 == 0:
            entry.payload = entry.payload._replace(attachments=[b"%d" % n + b"y" * 200])
        window.append(entry)
    seen: dict[int, int] = {}
    todo: list[Any] = [window._ms, window._keys, window._bodies, window._shared, window._sharing, window._index]
    while todo:
        value = todo.pop()
        if id(value) not in seen:
            seen[id(value)] = sys.getsizeof(value)
            if isinstance(value, dict):
                todo += [*value, *value.values()]
            elif isinstance(value, (list, tuple)):
                todo += value
    assert 0.5 < sum(seen.values()) / window.bytes < 1.5


def test_nothing_is_left_when_everything_was_dropped() -> None:
    entries = [event(n, "red", "blue", "red") for n in range(1, 50)]
    entries += [moved(kind, 50 + i, f"s{i}") for i, kind in enumerate((ENTER, LEAVE, CLOSE, DISCONNECT))]
    window = filled(*entries, max_bytes=0)
    window.trim()
    assert (len(window), window.bytes, window.floor, window.last) == (0, 0, 53, 53)
    assert window._index == {}


def test_a_reset_forgets_all() -> None:
    window = filled(event(1, "red"), event(2))
    window.reset(100)
    assert (window.floor, window.last, window.bytes, len(window)) == (100, 100, 0, 0)
    assert found(window, "red") == []
    window.trim()
    window.append(event(101, "red"))
    assert found(window, "red") == [101]
    assert window.bytes == filled(event(1, "red")).bytes


def content(entry: Entry | None) -> Any:
    """All that a recovery needs of an entry; ``None`` if it needs nothing."""
    if entry is None or not needed(entry):
        return None
    payload = entry.payload and (*entry.payload[:2], list(entry.payload.attachments), entry.payload.arity)
    moved = (entry.sid, entry.room) if entry.kind != EVENT else None
    return entry.kind, entry.n, entry.ms, entry.namespace, list(entry.rooms), list(entry.skip), payload, moved


def test_an_entry_is_the_same_again() -> None:
    entries = [event(1, "red", 7, ms=70), event(2, ms=71), *(moved(kind, 3) for kind in (ENTER,))]
    entries += [moved(kind, n) for n, kind in enumerate((LEAVE, CLOSE, DISCONNECT), 4)]
    entries[0].skip = ["s1"]
    entries[0].payload = Payload(JSON, b"[]", [b"one", b""], 0)
    entries[1].payload = Payload(MSGPACK, b"abc", (), 3)
    window = filled(*entries)
    assert [content(window[entry.n]) for entry in entries] == [content(entry) for entry in entries]


@dataclass
class Plain:
    """What a window does, by looking at every entry."""

    floor: int
    entries: list[Entry] = field(default_factory=list)

    def places(self, namespace: str, room: Room, after: int, upto: int) -> list[int]:
        return [
            e.n
            for e in self.entries
            if needed(e) and e.namespace == namespace and room in places(e) and after < e.n <= upto
        ]


def places(entry: Entry) -> list[Room]:
    """The rooms under which an entry is to be found."""
    if entry.kind == EVENT:
        return list(entry.rooms) or [None]
    return [entry.room if entry.kind == CLOSE else entry.sid]


class Compared(RuleBasedStateMachine):
    """Any sequence of steps leaves a window as the plain list has it."""

    @initialize(floor=st.integers(0, 30), retention=st.sampled_from([50, 10**6]), max_bytes=st.integers(0, 400_000))
    def begin(self, floor: int, retention: int, max_bytes: int) -> None:
        self.window = Window(retention, max_bytes)
        self.window.reset(floor)
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
            entry.payload, entry.rooms = None, ()
        return entry

    @rule(choices=st.lists(st.integers(0, 255), min_size=1, max_size=150), step=st.integers(0, 3))
    def append(self, choices: list[int], step: int) -> None:
        for choice in choices:
            self.ms += step
            entry = self.entry(choice, self.window.last + 1, self.ms)
            self.window.append(entry)
            self.plain.entries.append(entry)

    @rule(pin=st.none() | st.integers(0, 300))
    def trim(self, pin: int | None) -> None:
        window = self.window
        keep = sys.maxsize if pin is None else window.floor + pin
        before = self.plain.floor
        full = window.bytes > window.max_bytes
        window.trim(keep)
        gone = window.floor - before
        assert gone >= 0
        dropped, kept = self.plain.entries[:gone], self.plain.entries[gone:]
        assert window.floor <= keep
        assert window.bytes <= window.max_bytes or not kept or window.floor == keep, "too much stays"
        limit = self.ms - window.retention
        if not full:
            assert all(entry.ms < limit for entry in dropped), "what is recent stays"
        old = sum(1 for entry in kept if entry.ms < limit and entry.n <= keep)
        assert old < BLOCK
        self.plain.entries, self.plain.floor = kept, window.floor

    @rule(room=st.sampled_from(ROOMS), namespace=st.sampled_from(["/", "/other"]), data=st.data())
    def look(self, room: Room, namespace: str, data: st.DataObject) -> None:
        floor, last = self.plain.floor, self.window.last
        after = data.draw(st.integers(floor, last))
        upto = data.draw(st.integers(floor, last))
        expected = self.plain.places(namespace, room, after, upto)
        assert found(self.window, room, after, upto, namespace) == expected
        assert [*self.window.numbers(namespace, room, after)] == self.plain.places(namespace, room, after, last)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "window"):
            return
        window, entries = self.window, self.plain.entries
        assert (window.floor, window.last) == (self.plain.floor, self.plain.floor + len(entries))
        assert window.bytes == filled(*filter(needed, entries)).bytes
        assert [content(window[n]) for n in range(window.floor + 1, window.last + 1)] == [*map(content, entries)]


Compared.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestCompared = Compared.TestCase
