"""Messages of python-socketio's own managers, to and from entries of the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from socketio_recovery.entries import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EVENT,
    LEAVE,
    Entry,
    Payload,
    callback_head,
    control_head,
    event_head,
    parse_entry,
    payload_fields,
)
from socketio_recovery.outside_event import Malformed
from socketio_recovery.packets import JsonCodec
from socketio_recovery.pubsub_messages import (
    OURS,
    Crossing,
    came_from_message,
    entry_of,
    mark_message,
    mark_of,
    message_of,
    move_message,
    read_message,
)
from socketio_recovery.redis import actions
from socketio_recovery.redis.keys import Keys

KEYS = Keys("c")
CODEC = JsonCodec()


def raw(head: str, data: Sequence[str | bytes]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.encode() for part in ("head", head, *data)]


def entered(message: dict[str, Any]) -> tuple[Entry, Crossing]:
    """The entry that a message becomes, as nodes read it."""
    crossing = entry_of(message, KEYS)
    assert crossing is not None
    fields = raw(crossing.head, crossing.data)
    entry = parse_entry(1, 1, fields)
    assert came_from_message(fields) is (entry.kind != CALLBACK)
    return entry, crossing


def published(head: str, data: Sequence[str | bytes] = ()) -> dict[str, Any] | None:
    """The message that an entry becomes."""
    fields = raw(head, data)
    assert not came_from_message(fields)
    text = message_of(parse_entry(1, 1, fields), lambda payload: payload)
    if text is None:
        return None
    message = read_message(text.encode())
    assert OURS in message
    return message


def emit(**more: Any) -> dict[str, Any]:
    """As ``AsyncPubSubManager.emit`` publishes it."""
    message = {"method": "emit", "event": "e", "data": [1], "binary": False, "namespace": "/", "room": None}
    return {**message, "skip_sid": None, "callback": None, "host_id": "h", **more}


def arguments(payload: Payload | None) -> list[Any]:
    assert payload is not None
    return CODEC.decode(payload)


@pytest.mark.parametrize(
    ("data", "expected"), [([1], [1]), ([1, "a"], [1, "a"]), ([None], []), ([], []), ("old", ["old"]), ([[1]], [[1]])]
)
def test_the_arguments_of_an_event(data: Any, expected: list[Any]) -> None:
    entry, _ = entered(emit(data=data))
    assert arguments(entry.payload) == ["e", *expected]


def test_an_event_to_rooms() -> None:
    entry, _ = entered(emit(room=["a", 5], skip_sid="s", namespace="/n"))
    assert (entry.kind, entry.namespace, list(entry.rooms), list(entry.skip)) == (EVENT, "/n", ["a", 5], ["s"])
    assert list(entered(emit(room="a", skip_sid=["s", "t"]))[0].skip) == ["s", "t"]
    assert entry_of(emit(room=[]), KEYS) is None, "it is for nobody"


def test_an_event_with_binary_data_there_and_back() -> None:
    data = [[{"_placeholder": True, "num": 0}, {"a": {"_placeholder": True, "num": 1}}], "AQI=", "Aw=="]
    entry, _ = entered(emit(data=data, binary=True))
    assert arguments(entry.payload) == ["e", b"\x01\x02", {"a": b"\x03"}]
    payload = CODEC.encode(["e", b"\x01\x02", {"a": b"\x03"}])
    message = published(event_head("/", [], [], payload), payload_fields(payload))
    assert message is not None
    assert (message["binary"], message["data"]) == (True, data)


def test_an_event_of_a_node() -> None:
    payload = CODEC.encode(["e", 1, "two"])
    message = published(event_head("/n", ["a", 5], ["s"], payload, True), payload_fields(payload))
    assert message == {
        "method": "emit",
        "host_id": "",
        "event": "e",
        "data": [1, "two"],
        "binary": False,
        "namespace": "/n",
        "room": ["a", 5],
        "skip_sid": ["s"],
        "callback": None,
        OURS: {},
    }
    message = published(event_head("/", [], [], payload), payload_fields(payload))
    assert message is not None
    assert (message["room"], message["skip_sid"]) == (None, None)


def test_a_callback_of_an_old_process() -> None:
    """Its event has an answer, which goes back to it."""
    entry, _ = entered(emit(callback=["room", "/", 7], room="room", host_id="old"))
    assert entry.callback is not None
    node, id = entry.callback
    payload = CODEC.encode(["yes", 1])
    message = published(callback_head(node, id, payload), payload_fields(payload))
    assert message is not None
    del message[OURS]
    expected = {"method": "callback", "host_id": "old", "sid": "room", "namespace": "/", "id": 7, "args": ["yes", 1]}
    assert message == expected
    payload = CODEC.encode([b"x"])
    assert published(callback_head(node, id, payload), payload_fields(payload)) is None


def test_a_callback_of_a_node() -> None:
    payload = CODEC.encode(["e"])
    message = published(event_head("/", ["room"], [], payload, False, ("node", 9)), payload_fields(payload))
    assert message is not None
    assert message["callback"] == ["room", "/", 9]
    answer = {
        "method": "callback",
        "host_id": message["host_id"],
        "sid": "room",
        "namespace": "/",
        "id": 9,
        "args": [1],
    }
    entry, _ = entered(answer)
    assert (entry.kind, entry.callback) == (CALLBACK, ("node", 9))
    assert arguments(entry.payload) == [1]
    assert published(callback_head("node", 9, payload), payload_fields(payload)) is None
    for other in ({"host_id": "old"}, {"host_id": None}, {"id": "9"}):
        assert entry_of({**answer, **other}, KEYS) is None


def test_rooms_and_disconnects() -> None:
    about = {"sid": "s", "namespace": "/n", "room": "r", "host_id": "h"}
    for kind in (ENTER, LEAVE):
        entry, crossing = entered({"method": f"{kind}_room", **about})
        assert (entry.kind, entry.sid, entry.namespace, entry.room) == (kind, "s", "/n", "r")
        assert crossing.action == actions.moves(kind, KEYS, "/n", "s", "r")
        assert published(control_head(kind, "/n", "s", "r")) is None
        message = json.loads(move_message(kind, "s", "/n", "r"))
        assert {name: message[name] for name in about if name != "host_id"} == {
            **{name: value for name, value in about.items() if name != "host_id"}
        }
        assert message["method"] == f"{kind}_room"
    entry, crossing = entered({"method": "close_room", **about})
    assert (entry.kind, entry.namespace, entry.room) == (CLOSE, "/n", "r")
    assert crossing.action == actions.closes(KEYS, "/n", "r")
    closed = published(control_head(CLOSE, "/n", "r"))
    assert closed is not None
    assert (closed["method"], closed["namespace"], closed["room"]) == ("close_room", "/n", "r")
    entry, crossing = entered({"method": "disconnect", **about})
    assert (entry.kind, entry.namespace, entry.sid) == (DISCONNECT, "/n", "s")
    assert crossing.action == actions.ends(KEYS, "/n", "s")
    ended = published(control_head(DISCONNECT, "/n", "s"))
    assert ended is not None
    assert (ended["method"], ended["namespace"], ended["sid"]) == ("disconnect", "/n", "s")


def test_marks() -> None:
    assert mark_of(read_message(mark_message("m").encode())) == "m"
    others: list[dict[str, Any]]
    others = [{}, {OURS: 1}, {OURS: {}}, {OURS: {"mark": 1}}, {OURS: {"mark": ""}}, {OURS: {"mark": "x" * 100}}]
    for message in others:
        assert mark_of(message) is None


@pytest.mark.parametrize("text", [b"\x80\x04.", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_message(text: bytes) -> None:
    with pytest.raises(Malformed):
        read_message(text)


MALFORMED: list[dict[str, Any]] = [
    {"method": "emit"},
    emit(event="disconnect"),
    emit(event={}),
    emit(event=5),
    emit(room=1.5),
    emit(room={}),
    emit(namespace=5),
    emit(data=[float("nan")]),
    emit(data=[], binary=True),
    emit(data=[[], 5], binary=True),
    emit(data=[[{"_placeholder": True, "num": 9}], "AQI="], binary=True),
    emit(callback=[1, 2]),
    emit(callback=["r", "/", "x"]),
    emit(data=["\ud800"]),
    {"method": "enter_room", "sid": "\ud800", "namespace": "/", "room": "r"},
    {"method": "enter_room", "sid": "s", "namespace": "/"},
    {"method": "enter_room", "sid": "s", "namespace": 5, "room": "r"},
    {"method": "close_room", "namespace": "/", "room": []},
    {"method": "disconnect", "namespace": "/"},
    {"method": "callback"},
]


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed(message: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        entry_of(message, KEYS)


@pytest.mark.parametrize("method", [None, "unheard of", [], {}, 5])
def test_what_has_nothing_to_do_with_the_log(method: Any) -> None:
    assert entry_of({"method": method}, KEYS) is None


def test_an_epoch_is_not_published() -> None:
    assert published('["epoch"]') is None
