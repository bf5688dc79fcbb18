"""What comes from Redis is data: hostile values are refused or left out, said so, and the node goes on."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.security.raw_sessions import connected, serves, state
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import payload, raw
from tests.support.waiting import until

#: What Python would run if anybody let it.
PICKLE = b"cos\nsystem\n(S'touch /tmp/owned'\ntR."
CODE = b'__import__("os")._exit(3)'
HUGE = b"9" * 5000
NESTED = b"[" * 100_000 + b"]" * 100_000

Keys = dict[str, Any]


def key(node: NodeProcess, name: str) -> str:
    return "{" + str(node.config["manager"]["channel"]) + "}:" + name


RECORDS: list[tuple[str, bytes | None]] = [
    *[("data", value) for value in (PICKLE, CODE, HUGE, NESTED, b"", b"null", b"[1]", b'"text"', b"{", b"\xff", None)],
    *[("claims", value) for value in (CODE, b"x", b"", None)],
    *[("birth", value) for value in (CODE, b"x", b"1e999", b"nan", b"-1" * 10, None)],
    *[("confirmed", value) for value in (CODE, HUGE, b"x", None)],
    *[("sent", value) for value in (CODE, b"", None)],
    *[("deadline", value) for value in (CODE, b"x", None)],
    *[("epoch", value) for value in (CODE, b"x", None)],
    *[("holder", value) for value in (CODE, PICKLE, None)],
    *[("token", value) for value in (None,)],
    *[("ns", value) for value in (CODE, b"\xff", None)],
    *[("hash", value) for value in (CODE, b"", None)],
    ("r:" + "[" * 10, b"1"),
    ("r:{}", b"1"),
    ("r:[[]]", b"1"),
    ("r:" + CODE.decode(), b"1"),
    ('r:"room"', b"x"),
    ('r:"room"', HUGE),
    ('g:1:"room"', b"x"),
    ("g:1", b"1"),
    ("g:x:1", b"1"),
    ("g:99:{}", b"1"),
    ("unheard of", CODE),
]


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "connected"])
async def test_a_record(target: NodeProcess, store: Any, detached: bool) -> None:
    """A client whose record can't be read gets a new session, once, and no longer waits for the old one."""
    async with connected(target) as (bystander, _):
        for i, (field, value) in enumerate(RECORDS):
            async with connected(target) as (client, mine):
                if not detached:
                    await plant(store, key(target, "session:" + mine["sid"]), field, value)
                    async with raw(target) as client:
                        await check(client, mine, field, value)
            if detached:
                await until(partial(_detached, store, key(target, "session:" + mine["sid"])))
                await plant(store, key(target, "session:" + mine["sid"]), field, value)
                async with raw(target) as client:
                    await check(client, mine, field, value)
            await serves(target, bystander, i)


async def _detached(store: Any, record: str) -> bool:
    return bool(await store.hget(record, "token") == b"")


async def plant(store: Any, record: str, field: str, value: bytes | None) -> None:
    if value is None:
        await store.hdel(record, field)
    else:
        await store.hset(record, field, value)


async def check(client: Any, mine: Any, field: str, value: bytes | None) -> None:
    await client.send("40" + json.dumps({"pid": mine["pid"]}))
    answer = await client.read()
    assert answer.startswith("40"), (field, value)
    found = await state(client)
    assert found["session"] == {}
    got = payload(answer, "40")
    if got["sid"] == mine["sid"]:
        assert found["recovered"]
    else:
        assert found["reason"] in ("damaged", "unknown", "expired", "epoch"), (field, value)


@pytest.mark.parametrize("kind", ["string", "list", "set", "zset", "stream"])
async def test_a_record_of_another_type(target: NodeProcess, store: Any, kind: str) -> None:
    async with connected(target) as (bystander, _):
        async with connected(target) as (client, mine):
            pass
        record = key(target, "session:" + mine["sid"])
        await until(lambda: _detached(store, record))
        await store.delete(record)
        try:
            await {
                "string": lambda: store.set(record, PICKLE),
                "list": lambda: store.rpush(record, CODE),
                "set": lambda: store.sadd(record, CODE),
                "zset": lambda: store.zadd(record, {CODE: 1}),
                "stream": lambda: store.xadd(record, {"data": CODE}),
            }[kind]()
            async with connected(target, {"pid": mine["pid"]}) as (client, got):
                assert got["sid"] != mine["sid"]
                assert (await state(client))["reason"] == "damaged"
            await serves(target, bystander, 1)
            assert f"the record of session {mine['sid']} can't be read" in target.log()
        finally:  # other tests read all keys of this Redis
            await store.delete(record)


def planted(epoch: str, head: Any, *data: bytes) -> dict[bytes, bytes]:
    """The fields of an entry; ``head`` as bytes, or what JSON can hold."""
    raw_head = head if isinstance(head, bytes) else json.dumps(head).encode()
    fields = {b"epoch": epoch.encode(), b"head": raw_head}
    for i, value in enumerate(data):
        fields[b"data" if not i else str(i - 1).encode()] = value
    return fields


ROOMS: list[Any] = [1, "text", {}, {"a": 1}, [[]], [{}], [None], [1.5], [True], [["$me"]]]
SKIPS: list[Any] = [1, "text", {}, [[]], [None]]
CALLBACKS: list[Any] = [1, [], ["a"], [[], {}], ["target", []], ["a", "b", "c"]]
OPTIONS: list[Any] = [1, [], "f", {"f": 1}, {"f": ["x", 1]}, {"f": ["m", "x"]}, *({"cb": cb} for cb in CALLBACKS)]
HEADS: list[Any] = [
    *(PICKLE, CODE, HUGE, NESTED, b"", b"\xff", b"null", b"{}", b"[]", b"1", b"[[]]", b'["event"]', b'["nothing"]'),
    *(["event", None], ["event", 1], ["event", []], ["event", {}], ["event", "/"], ["event", "/other"]),
    *(["event", namespace, rooms] for namespace in ("/", "/nobody") for rooms in ROOMS),
    *(["event", "/", [], skip] for skip in SKIPS),
    *(["event", "/", [], [], options] for options in OPTIONS),
    *(["enter"], ["enter", 1, 2, 3], ["enter", "/", [], "r"], ["enter", "/", "$me", []]),
    *(["leave"], ["leave", 1, 2, 3], ["leave", "/", [], "r"], ["leave", "/", "$me", []]),
    *(["close"], ["close", "/"], ["close", [], "r"], ["close", "/", {}], ["close", "/", None], ["close", 1, 1]),
    *(["disconnect"], ["disconnect", "/"], ["disconnect", [], []], ["disconnect", "/", {}], ["disconnect", None, None]),
    *(["evict"], ["evict", "/", "$me"], ["evict", [], [], [], []], ["evict", "/", "$me", "$node", []]),
    *(["callback"], ["callback", "$node", []], ["callback", "$node", 1, 1], ["callback", "$node", [], ["j", 0]]),
    *(["callback", 1, 1, ["x", 0]], ["callback", "$node", 1, ["j", 0], 1], ["callback", "$node", 1, ["j", 0], []]),
    *(["server"], ["server", "a", 1, ["j", 0]], ["server", 1, 1, ["j", 0], "e"], ["server", "a", [], ["j", 0], "e"]),
    *(["server", "a", 1, ["j", 0], []], ["server", "a", 1, ["x", 0], "e"], ["server", "a", 1, ["j", 0], "e", 1]),
]
BODIES: list[tuple[bytes, ...]] = [
    (b'["planted"]',),
    (),
    (b"",),
    (b"\xff\xfe",),
    (PICKLE, PICKLE),
    (b"[" * 10_000,),
]


async def test_the_log(start_node: StartNode, store: Any) -> None:
    """Entries that this library would not write are left out, for those who are here and those who recover."""
    a = await start_node()
    meta, log = key(a, "meta"), key(a, "log")

    async def append(head: Any, *body: bytes) -> None:
        """As ``append.lua`` would: a number too many, and there would be a hole."""
        epoch, n, ms = (value.decode() for value in await store.hmget(meta, "epoch", "n", "ms"))
        # In one step: else a heartbeat between them finds the log's end behind what the node has read.
        async with store.pipeline(transaction=True) as step:
            step.xadd(log, planted(epoch, head, *body), id=f"{ms}-{int(n) + 1}")
            step.hincrby(meta, "n", 1)
            await step.execute()

    async with connected(a) as (client, mine), connected(a) as (bystander, _):
        await a.emit("e", 0)
        offset = payload(await client.read(), "42")[-1]
        await bystander.read()
        node = (await a.do(("host_id",), on="manager"))[0]
        for head in HEADS:
            if not isinstance(head, bytes):
                head = json.loads(json.dumps(head).replace("$me", mine["sid"]).replace("$node", node))
            for body in BODIES if head == ["event", "/"] else BODIES[:1]:
                await append(head, *body)
        await a.emit("end", to=mine["sid"])
        seen = [await client.read()]
        while not seen[-1].startswith(('42["end"', "<")):
            seen.append(await client.read())
        assert all(packet.startswith('42["planted","') for packet in seen[:-1]), seen
        assert seen[-1].startswith('42["end"')
    assert "this node lost its place" not in a.log(), "no connection was closed for it"
    b = await start_node()  # one that reads all that backwards
    for node_ in (a, b):
        async with connected(node_, {"pid": mine["pid"], "offset": offset}) as (client, again):
            assert again == mine
            replayed = [await client.read()]
            while not replayed[-1].startswith(('42["end"', "<")):
                replayed.append(await client.read())
            await serves(node_, client, 1)
        assert "can't be read" in a.log()
