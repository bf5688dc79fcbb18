"""The twin rule without I/O: what a replay gives is what a walk over the whole log gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio_recovery import membership
from socketio_recovery.entries import CLOSE, DISCONNECT, ENTER, EVENT, JSON, LEAVE, Payload
from socketio_recovery.window import Window

from tests.support.past import Past, event, pasts
from tests.support.twin import rooms_after

#: Bytes of a slice, where they do not matter.
ALL = 10**9


@settings(max_examples=400, deadline=None)
@given(past=pasts(), data=st.data())
def test_a_replay_in_slices_gives_what_the_twin_got(past: Past, data: st.DataObject) -> None:
    floor = data.draw(st.integers(0, len(past.entries)))
    start = data.draw(st.integers(floor, len(past.entries)))
    limit = data.draw(st.integers(1, 8))
    window = past.window(floor)
    for (namespace, sid), twin in past.twins.items():
        if twin.ended is not None and twin.ended <= start:
            continue  # no session to come back to
        rooms = membership.rooms_at(twin.all_stays, start)
        got: list[int] = []
        position, done, ended = start, False, False
        while not done:
            events, after, done, ended = membership.replay(window, namespace, sid, rooms, position, limit, ALL)
            assert len(events) <= limit
            assert len(events) == limit or done
            assert position <= after
            assert events or done, "a slice that gets nowhere"
            got += [entry.n for entry in events]
            assert all(position < entry.n <= after for entry in events)
            position = after
            assert rooms == rooms_after(twin, position)
        assert got == [n for n in twin.got if n > start]
        assert ended == (twin.ended is not None)
        assert position == (twin.ended if twin.ended is not None else len(past.entries))
        assert rooms == twin.rooms


@settings(max_examples=200, deadline=None)
@given(past=pasts())
def test_the_stays_tell_the_rooms_at_every_position(past: Past) -> None:
    for twin in past.twins.values():
        for n in range(len(past.entries) + 1):
            if twin.ended is None or n < twin.ended:
                assert membership.rooms_at(twin.all_stays, n) == rooms_after(twin, n)


@settings(max_examples=300, deadline=None)
@given(past=pasts(), data=st.data())
def test_forward_ends_in_the_rooms_of_the_twin(past: Past, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(past.entries)))
    window = past.window(data.draw(st.integers(0, start)))
    for (namespace, sid), twin in past.twins.items():
        if twin.ended is not None and twin.ended <= start:
            continue
        rooms = rooms_after(twin, start)
        closed = membership.forward(window, namespace, sid, rooms, start)
        assert (closed is None) == (twin.ended is not None)
        if closed is not None:
            assert rooms == twin.rooms
            # How the last stay in each room ended: stays are in the order in which they began.
            ends = {s.room: past.entries[s.left - 1] for s in twin.all_stays if s.left is not None and s.left > start}
            assert set(closed) == {room for room, end in ends.items() if end.kind == CLOSE and room not in rooms}


@given(sizes=st.lists(st.integers(0, 30), max_size=30), limit=st.integers(1, 10), size=st.integers(0, 100))
def test_a_slice_ends_before_the_event_with_which_it_would_be_too_large(
    sizes: list[int], limit: int, size: int
) -> None:
    """But for its first event: a client must get on."""
    past = Past()
    for length in sizes:
        entry = past.add(EVENT, "/")
        entry.payload = Payload(JSON, b"x" * length, [b"y" * length], 0)
    position, done, got = 0, False, []
    while not done:
        events, upto, done, _ = membership.replay(past.window(), "/", "s1", {}, position, limit, size)
        bytes = [entry.size for entry in events]
        assert sum(bytes) <= size or len(events) == 1
        if not done:
            following = 2 * sizes[upto]
            assert len(events) == limit or sum(bytes) + following > size
        got += [entry.n for entry in events]
        position = upto
    assert got == list(range(1, len(sizes) + 1))


def test_a_position_before_the_window_is_an_error() -> None:
    window = Window(1000, 1000)
    window.reset(5)
    with pytest.raises(LookupError):
        membership.replay(window, "/", "s1", {}, 4, 10, ALL)
    assert membership.replay(window, "/", "s1", {}, 5, 10, ALL) == ([], 5, True, False)


def test_an_event_for_two_of_the_rooms_comes_once() -> None:
    past = Past()
    event(past.add(EVENT, "/"), ["red", "blue", "s1"])
    rooms: membership.Rooms = {"red": 0, "blue": 0}
    assert [e.n for e in membership.replay(past.window(), "/", "s1", rooms, 0, 10, ALL).events] == [1]


def test_coming_back_to_a_room_does_not_double_its_events() -> None:
    past = Past()
    for kind in (LEAVE, ENTER, LEAVE, ENTER):
        entry = past.add(kind, "/")
        entry.sid, entry.room = "s1", "red"
    for _ in range(3):
        event(past.add(EVENT, "/"), ["red"])
    rooms: membership.Rooms = {"red": 0}
    assert [e.n for e in membership.replay(past.window(), "/", "s1", rooms, 0, 10, ALL).events] == [5, 6, 7]
    assert rooms == {"red": 4}


def test_other_sessions_and_namespaces_do_not_move_a_session() -> None:
    past = Past()
    for namespace, sid in (("/", "s2"), ("/other", "s1")):
        entry = past.add(LEAVE, namespace)
        entry.sid, entry.room = sid, "red"
    past.add(CLOSE, "/other").room = "red"
    past.add(DISCONNECT, "/other").sid = "s1"
    event(past.add(EVENT, "/other"), [])
    event(past.add(EVENT, "/"), ["red"])
    rooms: membership.Rooms = {"red": 0}
    assert [e.n for e in membership.replay(past.window(), "/", "s1", rooms, 0, 10, ALL).events] == [6]
    assert rooms == {"red": 0}


def test_nothing_comes_after_the_session_was_disconnected() -> None:
    past = Past()
    event(past.add(EVENT, "/"), [])
    past.add(DISCONNECT, "/").sid = "s1"
    event(past.add(EVENT, "/"), [])
    replay = membership.replay(past.window(), "/", "s1", {}, 0, 10, ALL)
    assert ([e.n for e in replay.events], replay.upto, replay.done, replay.ended) == ([1], 2, True, True)


def test_changes_that_are_not_in_the_log_yet() -> None:
    rooms: membership.Rooms = {"red": 3}
    membership.changed(rooms, ENTER, ["red", 7])
    assert rooms == {"red": 3, 7: 0}
    membership.changed(rooms, LEAVE, ["red", "blue"])
    assert rooms == {7: 0}
