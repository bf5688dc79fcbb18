"""What other programs may put into the inbox, and why the rest is refused."""

from __future__ import annotations

import base64
import builtins
import json
from typing import Any

import msgpack
import pytest
from socketio_recovery.entries import Entry, parse_entry
from socketio_recovery.inbox import read_inbox
from socketio_recovery.outside_event import MOST_ATTACHMENTS, Malformed


def raw(said: dict[str, str | bytes]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.encode() for pair in said.items() for part in pair]


def read(**said: str | bytes) -> Entry:
    """The entry of the log, as nodes will read it."""
    fields = read_inbox(raw(said))
    return parse_entry(1, 1, [part if isinstance(part, bytes) else part.encode() for part in fields])


def arguments(entry: Entry) -> Any:
    assert entry.payload is not None
    return json.loads(entry.payload.data)


def why_not(*fields: bytes, **said: str | bytes) -> str:
    with pytest.raises(Malformed) as error:
        read_inbox([*fields, *raw(said)])
    return str(error.value)


def test_an_event_with_everything() -> None:
    entry = read(event="news", namespace="/a", rooms='["lobby",5,"lobby"]', data='{"n":1}', skip='["s1"]', volatile="1")
    assert (entry.namespace, list(entry.rooms), list(entry.skip)) == ("/a", ["lobby", 5], ["s1"])
    assert entry.volatile
    assert arguments(entry) == ["news", {"n": 1}]


def test_an_event_with_little() -> None:
    entry = read(event="news")
    assert (entry.namespace, list(entry.rooms), list(entry.skip), entry.volatile) == ("/", [], [], False)
    assert arguments(entry) == ["news"]


@pytest.mark.parametrize("rooms", ["lobby", "5", '{"a"', " [", "房间"])
def test_one_room_is_named_as_it_is(rooms: str) -> None:
    assert list(read(event="e", rooms=rooms).rooms) == [rooms]


def test_several_arguments() -> None:
    assert arguments(read(event="e", args='[1, "two", null]')) == ["e", 1, "two", None]
    assert arguments(read(event="e", args="[]")) == ["e"]
    assert arguments(read(event="e", data="[1, 2]")) == ["e", [1, 2]]


@pytest.mark.parametrize(("volatile", "is_volatile"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_volatile(volatile: str, is_volatile: bool) -> None:
    assert read(event="e", volatile=volatile).volatile is is_volatile


MALFORMED: list[tuple[dict[str, str | bytes], str]] = [
    ({}, "no field event"),
    ({"event": ""}, "event must be a name"),
    ({"event": "connect"}, "reserved"),
    ({"event": "e", "room": "lobby"}, "no field room"),
    ({"event": "e", "rooms": ""}, "leave it out if you mean everybody"),
    ({"event": "e", "rooms": "[]"}, "leave it out if you mean everybody"),
    ({"event": "e", "rooms": "[null]"}, "a room must be"),
    ({"event": "e", "rooms": "[true]"}, "a room must be"),
    ({"event": "e", "rooms": "[1.5]"}, "a room must be"),
    ({"event": "e", "rooms": '["a"'}, "rooms is not JSON"),
    ({"event": "e", "rooms": '["\\ud800"]'}, "surrogates not allowed"),
    ({"event": "e", "skip": ""}, "leave it out if you mean nobody"),
    ({"event": "e", "skip": "[1]"}, "skip must name"),
    ({"event": "e", "volatile": "yes"}, "volatile must be 1 or 0"),
    ({"event": "e", "namespace": "a"}, "namespace must begin with /"),
    ({"event": "e", "namespace": ""}, "namespace must begin with /"),
    ({"event": "e", "data": "hello"}, "text must be in quotes"),
    ({"event": "e", "data": ""}, "data is not JSON"),
    ({"event": "e", "data": '{"a":NaN}'}, "data has NaN"),
    ({"event": "e", "args": "[Infinity]"}, "args has Infinity"),
    ({"event": "e", "data": "1e999"}, "JSON"),
    ({"event": "e", "data": "9" * 5000}, "data is not JSON"),
    ({"event": "e", "data": "[" * 100_000}, "nested too deeply"),
    ({"event": "e", "data": '"\\ud800"'}, "surrogates not allowed"),
    ({"event": "e", "data": "{"}, "data is not JSON"),
    ({"event": "e", "args": "{}"}, "args must be a JSON list"),
    ({"event": "e", "data": "1", "args": "[1]"}, "both data"),
    ({"event": "e", "data": b"\xff"}, "not UTF-8"),
    ({"event": b"\xff"}, "not UTF-8"),
]


@pytest.mark.parametrize(("said", "reason"), MALFORMED, ids=[reason for _, reason in MALFORMED])
def test_malformed(said: dict[str, str | bytes], reason: str) -> None:
    text = why_not(**said)
    assert reason in text
    assert len(text) < 300


def test_a_field_that_comes_twice_or_is_not_utf8() -> None:
    assert "two fields event" in why_not(b"event", b"a", b"event", b"b")
    assert "is not UTF-8" in why_not(b"\xff", b"a")


def emitted(data: Any, **more: str) -> dict[str, str | bytes]:
    text = data if isinstance(data, str) else json.dumps(data)
    return {"uid": "emitter", "nsp": "/", "type": "3", "data": text, **more}


def broadcast(*arguments: Any, **options: Any) -> dict[str, Any]:
    """What redis-streams-emitter puts into ``data``; recorded from 0.1.1."""
    return {
        "packet": {"type": 2, "data": list(arguments), "nsp": "/"},
        "opts": {"rooms": [], "flags": {}, "except": [], **options},
    }


#: Recorded from redis-streams-emitter 0.1.1: io.to("room").volatile.emit("bytes", Buffer.from([1, 2, 255]), {n: 1})
RECORDED = (
    "gqZwYWNrZXSDpHR5cGUCpGRhdGGTpWJ5dGVzxAMBAv+BoW4Bo25zcKEvpG9w"
    "dHODpXJvb21zkaRyb29tpWZsYWdzgah2b2xhdGlsZcOmZXhjZXB0kA=="
)


def test_an_event_of_redis_streams_emitter() -> None:
    sid = "A" * 20
    data = broadcast("news", 1, "two", rooms=["lobby"], **{"except": [sid]}, flags={"volatile": True, "compress": True})
    entry = read(**emitted(data, nsp="/a"))
    assert (entry.namespace, list(entry.rooms), list(entry.skip), entry.volatile) == ("/a", ["lobby"], [sid], True)
    assert arguments(entry) == ["news", 1, "two"]
    assert list(read(**emitted(broadcast("all"))).rooms) == []


def test_binary_data_of_redis_streams_emitter() -> None:
    entry = read(**emitted(RECORDED))
    assert list(entry.rooms) == ["room"]
    assert entry.volatile
    assert entry.payload is not None
    assert list(entry.payload.attachments) == [b"\x01\x02\xff"]
    assert arguments(entry) == ["bytes", {"_placeholder": True, "num": 0}, {"n": 1}]


def packed(data: Any) -> str:
    return base64.b64encode(msgpack.packb(data)).decode()


PLACEHOLDER = {"_placeholder": True, "num": 7}
NOT_FROM_EMITTER: list[tuple[dict[str, str | bytes], str]] = [
    (emitted(broadcast("e"), type="4"), "socketsJoin() is not supported"),
    (emitted(broadcast("e"), type="9"), "serverSideEmit() is not supported"),
    (emitted(broadcast("e"), type="x"), "a message of type x"),
    (emitted({**broadcast("e"), "requestId": "1"}), "acknowledgement"),
    (emitted({}), "it is not what"),
    (emitted({"packet": {"data": []}, "opts": {}}), "it is not what"),
    (emitted(broadcast("e", flags=1)), "it is not what"),
    (emitted(broadcast("e", rooms={})), "must be lists"),
    (emitted(broadcast("e", **{"except": ["a room"]})), "only the ids of clients"),
    (emitted(broadcast("e", **{"except": [1]})), "only the ids of clients"),
    (emitted(broadcast("disconnect")), "reserved"),
    (emitted(broadcast({})), "name of an event"),
    (emitted(broadcast(5)), "event must be a name"),
    (emitted("{"), "data is not JSON"),
    (emitted('{"packet":NaN}'), "data has NaN"),
    (emitted(""), "neither JSON nor MessagePack"),
    (emitted("!"), "neither JSON nor MessagePack"),
    (emitted(base64.b64encode(b"\xc1").decode()), "neither JSON nor MessagePack"),
    (emitted(packed([1])), "it is not what"),
    (emitted(packed(broadcast("e", msgpack.Timestamp(1), b"x"))), "not JSON serializable"),
    (emitted(packed(broadcast("e", *[b"x"] * (MOST_ATTACHMENTS + 1)))), "binary attachments"),
    (emitted(packed(broadcast("e", PLACEHOLDER, b"x"))), "_placeholder"),
]


@pytest.mark.parametrize(("said", "reason"), NOT_FROM_EMITTER)
def test_malformed_for_redis_streams_emitter(said: dict[str, str | bytes], reason: str) -> None:
    assert reason in why_not(**said)


def test_binary_data_without_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "msgpack":
            raise ImportError(name)
        return imports(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install socketio-recovery[msgpack]" in why_not(**emitted(RECORDED))
