"""One order: on every node, for every client, and for what a handler does one thing after the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import StartNode
from tests.support.waiting import until


async def test_two_emitters(start_node: StartNode, clients: JsClients) -> None:
    """Events of two nodes, emitted at the same time: every client sees the same order, cut or not."""
    a, b = await start_node(), await start_node()
    steady = [await clients.open(node, options=o) for node in (a, b) for o in (WEBSOCKET, POLLING)]
    shaky = [await clients.open(node, options=o) for node in (a, b) for o in (WEBSOCKET, POLLING)]

    async def emit(node: Any, count: int) -> None:
        for i in range(0, count, 20):
            await node.do(*[("emit", ["e", [node.name, j]]) for j in range(i, i + 20)])

    async def shake() -> None:
        for turn in range(4):
            for client in shaky:
                await client.move((a, b)[turn % 2])
                await client.run("cut")
            for client in shaky:
                await client.connected(turn + 2)

    await asyncio.gather(emit(a, 400), emit(b, 400), shake())
    expected = await steady[0].received(800)
    assert sorted(e[1] for e in expected) == sorted([name, i] for name in "ab" for i in range(400))
    for client in steady[1:] + shaky:
        assert await client.received(800) == expected
    assert all(c["recovered"] for client in shaky for c in client.connects()[1:])


@pytest.mark.parametrize("where", ["own node", "other node"])
async def test_one_thing_after_the_other(start_node: StartNode, clients: JsClients, where: str) -> None:
    a, b = await start_node(), await start_node()
    node = a if where == "own node" else b
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    for i in range(10):
        await node.do(
            ("emit", ["no", i], {"to": "room"}),
            ("enter_room", [sid, "room"]),
            ("emit", ["yes", i], {"to": "room"}),
            ("leave_room", [sid, "room"]),
            ("emit", ["no", i], {"to": "room"}),
        )
    await node.do(("emit", ["last"], {"to": sid}), ("disconnect", [sid]), ("emit", ["no"], {"to": sid}))
    await until(lambda: client.of("disconnect"))
    assert client.events() == [*(("yes", i) for i in range(10)), ("last",)]
    assert client.reports[-1]["what"] == "disconnect"
    assert client.reports[-1]["reason"] == "io server disconnect"


async def test_in_one_handler(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await client.call(
        "script",
        [
            ["enter_room", ["$me", "room"], {}],
            ["emit", ["e", 1], {"to": "room"}],
            ["leave_room", ["$me", "room"], {}],
            ["emit", ["e", 2], {"to": "room"}],
            ["enter_room", ["$me", "room"], {}],
            ["close_room", ["room"], {}],
            ["emit", ["e", 3], {"to": "room"}],
            ["emit", ["e", 4], {"to": "$me"}],
        ],
    )
    assert client.events() == [("e", 1), ("e", 4)]  # before the acknowledgement
    await client.run("emit", event="script", args=[[["emit", ["bye"], {"to": "$me"}], ["disconnect", ["$me"], {}]]])
    await until(lambda: client.of("disconnect"))
    assert client.events()[2:] == [("bye",)]


async def test_an_acknowledgement_comes_after_what_was_emitted(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    for i in range(20):
        await b.emit("other", i)
        await client.call("script", [["emit", ["e", i], {"to": "$me"}]])
        assert client.events()[-1] == ("e", i)
    assert [e[1] for e in await settle(b, client) if e[0] == "e"] == list(range(20))
