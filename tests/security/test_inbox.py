"""What is put into the inbox is data: hostile entries are set aside, and change nothing but that."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest
from socketio_recovery.inbox import FIELDS
from socketio_recovery.redis.keys import Keys

from tests.security.raw_sessions import connected, serves
from tests.support.node_process import NodeProcess
from tests.support.raw_client import payload
from tests.support.waiting import until

PICKLE = b"cos\nsystem\n(S'touch /tmp/owned'\ntR."
CODE = b'__import__("os")._exit(3)'
VALUES = [PICKLE, CODE, b"9" * 5000, b"[" * 100_000, b"", b"\xff\x00", b"{}", b"null", b"[[]]", b'["\\ud800"]', b"NaN"]
DEEP = base64.b64encode(b"\x91" * 100_000 + b"\xc0")
PACKETS: list[Any] = [
    {},
    {"packet": CODE.decode(), "opts": {}},
    {"packet": {"data": [["event"]]}, "opts": {"rooms": [], "except": []}},
    {"packet": {"data": ["e"]}, "opts": {"rooms": [{}], "except": []}},
    {"packet": {"data": ["e"]}, "opts": {"rooms": [], "except": ["a room"]}},
    {"packet": {"data": ["e"]}, "opts": {"rooms": [], "except": [], "flags": []}},
]


def entries() -> list[dict[Any, Any]]:
    """Entries that are all malformed, whatever else they are."""
    bad: dict[Any, Any] = {"event": "disconnect"}
    found: list[dict[Any, Any]] = [{**bad, field: value} for field in FIELDS[1:] for value in VALUES]
    found += [{"event": value} for value in (b"", b"\xff", b"connect", b"disconnecting", b"newListener")]
    found += [{"event": "e", value: "x"} for value in (b"room", b"__class__", b"\xff", b"", PICKLE)]
    found += [{"event": "e", "data": value} for value in (PICKLE, CODE, b"9" * 5000, b"[" * 100_000, b"NaN", b"1e999")]
    found += [{"event": "e", "data": "1", "rooms": value} for value in (b"", b"[]", b"[{}]", b"[1.5]", b"[" * 10_000)]
    found += [{"nsp": "/", "type": "3", "data": json.dumps(packet)} for packet in PACKETS]
    found += [{"nsp": "/", "type": "3", "data": data} for data in (DEEP, PICKLE, CODE, b"", b"{", b"wQ==")]
    found += [{"nsp": "/", "type": kind, "data": "{}"} for kind in ("1", "4", "6", "9", "", "\n", "9" * 100)]
    found.append({"nsp": "/", "type": "3", "data": base64.b64encode(msgpack.packb(msgpack.ExtType(1, PICKLE)))})
    return found


async def test_malformed_entries(target: NodeProcess, store: Any) -> None:
    keys = Keys(target.config["manager"]["channel"])
    planted = entries()
    async with connected(target) as (client, mine):
        for entry in planted:
            await store.xadd(keys.inbox, entry)
        await store.xadd(keys.inbox, {"event": "end", "rooms": mine["sid"]})
        assert (await client.read()).startswith('42["end"'), "none of them reaches a client"
        await serves(target, client, 1)
    assert await store.xlen(keys.rejected) == len(planted)
    for (_, fields), entry in zip(await store.xrange(keys.rejected), planted, strict=True):
        assert fields[b"reason"], entry
        assert len(fields[b"reason"]) < 1000
    assert "Traceback" not in target.log()


#: JSON that parsers take for different things, and what a client gets for it.
AMBIGUOUS: list[tuple[str, Any]] = [
    ('{"a":1,"a":2}', {"a": 2}),
    ('{"__proto__":{"x":1},"constructor":1}', {"__proto__": {"x": 1}, "constructor": 1}),
    ('{"_placeholder":true,"num":0}', {"_placeholder": True, "num": 0}),
    (" [1 ,\n 2]\t", [1, 2]),
    ('"\\u2028 \\u0000 \\ud83d\\ude00 \u2028"', "\u2028 \x00 \U0001f600 \u2028"),
    ("123456789012345678901234567890", 123456789012345678901234567890),
    ("-0.0", -0.0),
    (r'"\"],42[\"other\""', '"],42["other"'),
]


async def test_json_that_parsers_take_for_different_things(target: NodeProcess, store: Any) -> None:
    keys = Keys(target.config["manager"]["channel"])
    async with connected(target) as (client, mine):
        for text, value in AMBIGUOUS:
            await store.xadd(keys.inbox, {"event": "e", "data": text, "rooms": mine["sid"]})
            event, got, offset = payload(await client.read(), "42")
            assert (event, got) == ("e", value)
            assert offset.count("-") == 2
        await serves(target, client, 1)


@pytest.mark.parametrize("name", ["taker", "inbox", "rejected"])
async def test_keys_of_another_type(target: NodeProcess, store: Any, name: str) -> None:
    """Clients are served; the node says what is wrong, and goes on when it is mended."""
    keys = Keys(target.config["manager"]["channel"])
    key = getattr(keys, name)
    async with connected(target) as (client, mine):
        await store.delete(key)
        try:
            await store.set(key, PICKLE)
            if name == "rejected":
                await store.xadd(keys.inbox, {"event": ""})
            failures = target.log().count("the inbox failed; starting it again")
            await until(lambda: target.log().count("the inbox failed; starting it again") > failures, target.log)
            await target.emit("e", 1, to=mine["sid"])
            assert (await client.read()).startswith('42["e",1')
            await serves(target, client, 1)
        finally:  # also because other tests read all keys of this Redis
            await store.delete(key)
        await store.xadd(keys.inbox, {"event": "end", "rooms": mine["sid"]})
        assert (await client.read()).startswith('42["end"')
