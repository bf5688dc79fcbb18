"""Entries to stream fields and back; positions, offsets and rooms."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    SERVER,
    Entry,
    Offset,
    Payload,
    Position,
    audience,
    callback_head,
    check_event,
    check_namespace,
    check_room,
    check_rooms,
    control_head,
    dump,
    event_head,
    parse_entry,
    payload_fields,
    server_head,
    skipped,
)

# -- offsets and rooms ------------------------------------------------------------------------------


@given(epoch=st.integers(0, 2**48 - 1), n=st.integers(0, 2**52 - 1), ms=st.integers(0, 2**48 - 1))
def test_an_offset_is_read_back(epoch: int, n: int, ms: int) -> None:
    position = Position(epoch, n)
    assert Offset.parse(str(Offset(position, ms))) == Offset(position, ms)


def test_an_offset_with_a_time_names_a_stream_id() -> None:
    assert Offset(Position(5, 7), 1234).id == "1234-7"
    assert Offset(Position(5, 7), 0).id == ""


@pytest.mark.parametrize(
    "text",
    [
        None,
        0,
        7.5,
        True,
        b"1-2",
        ["1-2"],
        {},
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-",
        "1-2-3-4",
        "1-2-" + "f" * 13,
        "1--2",
        "+1-2",
        " 1-2",
        "1-2\n",
        "1-2 ",
        "0x1-2",
        "1_0-2",
        "A-B",
        "g-1",
        "\u0661-\u0662",
        "\uff11-2",
        "1-2\x00",
        "f" * 13 + "-1",
        "1-" + "f" * 14,
        "f" * 10**6,
    ],
)
def test_a_hostile_offset_is_none(text: Any) -> None:
    assert Offset.parse(text) is None


def test_positions_are_in_the_order_of_the_log() -> None:
    assert Position(1, 10) < Position(1, 11) < Position(2, 0)


@pytest.mark.parametrize("room", [None, "", "red", 0, 7, -1, 10**30])
def test_rooms(room: Any) -> None:
    assert check_room(room) is room


@pytest.mark.parametrize("room", [True, 2.5, math.nan, b"red", ("red",), ["red"], {"red"}, {}, object(), 1j])
def test_what_can_not_be_a_room(room: Any) -> None:
    with pytest.raises(TypeError, match=type(room).__name__):
        check_room(room)


def test_rooms_that_are_equal_are_stored_alike() -> None:
    """Else Redis and the nodes would not agree on who is in ``1`` and ``True``."""
    equal = []
    for room in (1, True, 1.0):
        with suppress(TypeError):
            equal.append(dump(check_room(room)))
    assert equal == ["1"]


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    SEVEN = 7


def test_a_room_is_a_plain_str_or_int() -> None:
    """An enum's hash is not that of its value: a node would not find the room."""
    for room, plain in ((Colour.RED, "red"), (Number.SEVEN, 7)):
        assert check_room(room) == plain
        assert type(check_room(room)) is type(plain)
    assert type(check_namespace(Colour.RED)) is str


@pytest.mark.parametrize(
    ("room", "rooms"),
    [
        (None, []),
        ("red", ["red"]),
        ("", [""]),
        (0, [0]),
        (["red", 7], ["red", 7]),
        (("red", "red", 7), ["red", 7]),
        ({"red"}, ["red"]),
        (frozenset({7}), [7]),
        (deque(["red"]), ["red"]),
        ({"red": 1}.keys(), ["red"]),
        ([None], []),
        (("red", None), []),
        ([], None),
        ((), None),
        (set(), None),
    ],
)
def test_who_gets_an_event(room: Any, rooms: Any) -> None:
    """No rooms are everybody, ``None`` is nobody."""
    assert audience(room) == rooms


@pytest.mark.parametrize(
    "room", [b"red", bytearray(b"red"), {"red": 1}, ["red", 2.5], ("red", ["blue"]), {True}, iter([])]
)
def test_what_can_not_be_rooms(room: Any) -> None:
    for rule in (audience, check_rooms):
        with pytest.raises(TypeError, match="a room must be a str or an int"):
            rule(room)


@pytest.mark.parametrize(
    ("skip_sid", "sids"),
    [
        (None, []),
        ("s1", ["s1"]),
        (["s1", None, "s2"], ["s1", "s2"]),
        ((None,), []),
        ({"s1"}, ["s1"]),
        ([7, True, b"s1", ["s1"], object()], []),
        (7, []),
        (b"s1", []),
        ({"s1": 1}, []),
    ],
)
def test_who_is_left_out(skip_sid: Any, sids: list[str]) -> None:
    assert skipped(skip_sid) == sids


def test_namespaces_and_names_of_events() -> None:
    assert check_namespace("/n") == "/n"
    for name in ("e", "", 7):
        check_event(name)
    wrong: Any
    for wrong in (None, True, 2.5, b"e", ["e"], {}):
        with pytest.raises(TypeError, match=f"the name of an event must be a str, not {type(wrong).__name__}"):
            check_event(wrong)
    for wrong in ("connect", "disconnecting"):
        with pytest.raises(ValueError, match="is reserved"):
            check_event(wrong)
    for wrong in (None, 7, b"/n", ["/n"], {}):
        with pytest.raises(TypeError, match=f"a namespace must be a str, not {type(wrong).__name__}"):
            check_namespace(wrong)


# -- to and from the stream -------------------------------------------------------------------------


def stored(head: str, payload: Payload | None = None) -> Entry:
    """An entry as it comes back from Redis."""
    fields: list[str | bytes] = ["head", head, *(payload_fields(payload) if payload else ())]
    return parse_entry(5, 77, [f.encode() if isinstance(f, str) else f for f in fields])


rooms = st.lists(st.text(max_size=5) | st.integers(), max_size=3)
payloads = st.builds(
    lambda data, attachments, msgpack, arity: (
        Payload(MSGPACK, data, (), arity) if msgpack else Payload(JSON, b"[" + data + b"]", tuple(attachments), 0)
    ),
    st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode),
    st.lists(st.binary(max_size=8), max_size=3),
    st.booleans(),
    st.integers(0, 20),
)


@given(
    namespace=st.text(min_size=1, max_size=8),
    rooms=rooms,
    skip=st.lists(st.text(max_size=5), max_size=3),
    payload=payloads,
    volatile=st.booleans(),
    callback=st.none() | st.tuples(st.text(max_size=5), st.integers(1, 2**40)),
)
def test_an_event_comes_back_as_it_was(
    namespace: str,
    rooms: list[Any],
    skip: list[str],
    payload: Payload,
    volatile: bool,
    callback: tuple[str, int] | None,
) -> None:
    entry = stored(event_head(namespace, rooms, skip, payload, volatile, callback), payload)
    assert (entry.kind, entry.n, entry.ms, entry.namespace) == (EVENT, 5, 77, namespace)
    assert (list(entry.rooms), list(entry.skip)) == (rooms, skip)
    assert (entry.volatile, entry.callback) == (volatile, callback)
    assert entry.payload == payload
    assert entry.replayed == (not volatile and callback is None)


@given(node=st.text(max_size=8), id=st.integers(1, 2**40), payload=payloads)
def test_a_callback_comes_back_as_it_was(node: str, id: int, payload: Payload) -> None:
    entry = stored(callback_head(node, id, payload), payload)
    assert (entry.kind, entry.callback, entry.payload) == (CALLBACK, (node, id), payload)
    assert (entry.by, entry.replayed) == ("", False)
    answer = stored(callback_head(node, id, payload, "s1"), payload)
    assert (answer.callback, answer.payload, answer.by) == ((node, id), payload, "s1")


@given(node=st.text(max_size=8), id=st.integers(0, 2**40), event=st.text(max_size=8), payload=payloads)
def test_an_event_between_nodes_comes_back_as_it_was(node: str, id: int, event: str, payload: Payload) -> None:
    entry = stored(server_head(node, id, event, payload), payload)
    assert (entry.kind, entry.callback, entry.event, entry.payload) == (SERVER, (node, id), event, payload)
    assert not entry.replayed


ROOMS = ["red", "", "ünï\n\"'😀", "\ud800", 7]


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("kind", [ENTER, LEAVE])
def test_a_move_comes_back_as_it_was(kind: str, room: Any) -> None:
    entry = stored(control_head(kind, "/n", "s1", room))
    assert (entry.kind, entry.namespace, entry.sid, entry.room) == (kind, "/n", "s1", room)
    assert type(entry.room) is type(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_closing_comes_back_as_it_was(room: Any) -> None:
    entry = stored(control_head(CLOSE, "/n", room))
    assert (entry.kind, entry.namespace, entry.room, entry.sid) == (CLOSE, "/n", room, "")


def test_the_other_kinds_come_back_as_they_were() -> None:
    entry = stored(control_head(DISCONNECT, "/n", "s1"))
    assert (entry.kind, entry.namespace, entry.sid) == (DISCONNECT, "/n", "s1")
    entry = stored(control_head(EVICT, "/n", "s1", "node", "transport"))
    assert (entry.kind, entry.namespace, entry.sid) == (EVICT, "/n", "s1")
    assert (entry.node, entry.transport) == ("node", "transport")
    entry = stored('["epoch"]')
    assert (entry.kind, entry.n, entry.replayed) == (EPOCH, 5, False)


@pytest.mark.parametrize(
    "fields",
    [
        [b"data", b"x"],
        [b"head", b'["a kind of a later version"]'],
        [b"head", b"not JSON"],
        [b"head", b'["event","/","room"]', b"data", b"[]"],
        [b"head", b'["event","/",[],"sid"]', b"data", b"[]"],
        [b"head", b'["event",7]', b"data", b"[]"],
        [b"head", b'["event","/",[1.5]]', b"data", b"[]"],
        [b"head", b'["event","/",[],[],{"cb":["node"]}]', b"data", b"[]"],
        [b"head", b'["event","/",[],[],{"f":["m",-1]}]', b"data", b""],
        [b"head", b'["event","/",[],[],{"f":["x",0]}]', b"data", b"[]"],
        [b"head", b'["enter","/",7,"red"]'],
        [b"head", b'["close","/",true]'],
        [b"head", b'["callback","node",1,["j",0],7]', b"data", b"[]"],
        [b"head", b'["server","node",1,["j",0]]', b"data", b"[]"],
        [b"head", b'["server","node",1,["j",0],7]', b"data", b"[]"],
        [b"head", b'["server",7,1,["j",0],"e"]', b"data", b"[]"],
        [b"head", b'["server","node",1,["x",0],"e"]', b"data", b"[]"],
        [b"head", b'["server","node",1,["j",0],"e"]', b"data", b"{}"],
        [b"head", b'["event","/"]', b"data", b"{}"],
        [b"head", b'["event","/"]', b"data", b'["\xff"]'],
    ],
)
def test_what_this_library_did_not_write_is_an_error(fields: list[bytes]) -> None:
    with pytest.raises(ValueError):
        parse_entry(1, 1, fields)


def test_heads_are_short() -> None:
    payload = Payload(JSON, b"[]", (), 0)
    assert event_head("/", [], [], payload) == '["event","/"]'
    assert event_head("/", ["red"], [], payload) == '["event","/",["red"]]'
