"""Who is in which room, on all nodes: asked from any node, and told as it changes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from socketio_recovery import AsyncRedisStreamsManager, RedisStreamsManager

from local.redis_server import RedisServer
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import until

#: Dead nodes are noticed soon: after three fifths of a heartbeat, and a second.
SOON = {"max_disconnection_duration": 30, "heartbeat_interval": 0.5}
#: Sessions end soon as well, but not so soon that a busy node misses that they were waiting.
SHORT = {"max_disconnection_duration": 3, "heartbeat_interval": 0.1}
PINGS = {"ping_interval": 1, "ping_timeout": 2}


async def participants(node: NodeProcess, *arguments: Any) -> dict[str, dict[str, Any]]:
    """What a node answers: sid -> the participant."""
    ((*found,),) = await node.do(("participants", list(arguments)), on="manager")
    names = ("sid", "node", "state", "since", "rooms", "data")
    return {values[0]: dict(zip(names, values, strict=True)) for values in found}


async def states(node: NodeProcess, *arguments: Any) -> dict[str, str]:
    return {sid: found["state"] for sid, found in (await participants(node, *arguments)).items()}


async def count(node: NodeProcess, *arguments: Any) -> list[int]:
    (found,) = await node.do(("count", list(arguments)), on="manager")
    return list(found)


def sid(client: JsClient, nsp: str = "/") -> str:
    return str(client.connects(nsp)[-1]["sid"])


async def test_every_node_knows_all(start_node: StartNode, clients: JsClients) -> None:
    a, b, c = [await start_node() for _ in "abc"]
    ann = await clients.open(a, options=WEBSOCKET)
    bob = await clients.open(b, options=POLLING)
    other = await clients.open(b, options=WEBSOCKET, namespaces=["/other"])
    for client in (ann, bob):
        await client.call("join", "red")
    await bob.call("join", 7)
    await bob.call("save", {"name": "Bob"})
    for node in (a, b, c):
        assert await states(node) == {sid(ann): "connected", sid(bob): "connected"}
        assert await states(node, 7) == {sid(bob): "connected"}
        assert set(await states(node, [7, sid(ann)])) == {sid(ann), sid(bob)}
        assert await states(node, None, "/other") == {sid(other, "/other"): "connected"}
        assert [await count(node, room) for room in (None, "red", 7, "nobody")] == [[2, 0], [2, 0], [1, 0], [0, 0]]
    found = (await participants(c))[sid(bob)]
    assert (set(found["rooms"]), found["data"]) == ({"red", 7}, {"name": "Bob"})
    assert found["node"] != (await participants(c))[sid(ann)]["node"]


async def test_who_asks_after_a_change_sees_it(start_node: StartNode, clients: JsClients) -> None:
    a, b = [await start_node() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET)
    for turn in range(20):
        await a.do(("enter_room", [sid(client), f"room {turn}"]))
        assert list(await states(b, f"room {turn}")) == [sid(client)]
        await b.do(("leave_room", [sid(client), f"room {turn}"]))
        assert await states(a, f"room {turn}") == {}
    await a.do(("enter_room", [sid(client), "closed"]), ("close_room", ["closed"]))
    assert await states(b, "closed") == {}


async def test_a_connect_handler_finds_its_own_client(start_node: StartNode, clients: JsClients) -> None:
    node = await start_node()
    client = await clients.open(node, options=WEBSOCKET, auth={"enter": ["red"], "name": "Ann", "ask": "red"})
    asked = [entry["sids"] for entry in (await node.look())["seen"] if entry["what"] == "asked"]
    assert asked == [[sid(client)]]


async def test_a_client_of_a_killed_node_is_reconnecting_until_it_is_back(
    start_node: StartNode, clients: JsClients
) -> None:
    a, b = [await start_node(manager=SOON) for _ in "ab"]
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    stays = await clients.open(b, options=WEBSOCKET)
    for one in (client, stays):
        await one.call("join", "red")
    before = (await participants(b))[sid(client)]
    a.kill()

    async def lost() -> bool:
        return await states(b, "red") == {sid(client): "reconnecting", sid(stays): "connected"}

    await until(lost, b.log)
    assert await count(b, "red") == await count(b) == [1, 1]
    away = (await participants(b))[sid(client)]
    assert (away["node"], away["rooms"]) == (before["node"], before["rooms"])
    await client.move(b)
    await client.run("connect")
    assert (await client.connected(2))["recovered"]
    await until(lambda: _counted(b, [2, 0]), b.log)
    back = (await participants(b, "red"))[sid(client)]
    assert (back["state"], back["node"] != before["node"]) == ("connected", True)
    assert back["since"] > away["since"] >= before["since"]


async def _counted(node: NodeProcess, expected: list[int]) -> bool:
    return await count(node, "red") == expected


async def test_one_that_does_not_come_back_is_gone(start_node: StartNode, clients: JsClients) -> None:
    a, b = [await start_node(manager=SHORT, server={"ping_interval": 5, "ping_timeout": 3}) for _ in "ab"]
    lost, left, killed = [await clients.open(a, options={**WEBSOCKET, "reconnection": False}) for _ in range(3)]
    for client in (lost, left, killed):
        await client.call("join", "red")
    seen: list[list[int]] = []

    async def counted(*expected: int) -> bool:
        if (now := await count(b, "red")) not in seen[-1:]:
            seen.append(now)
        return now == [*expected]

    def found() -> str:
        return f"counted {seen}; the others report {lost.reports}, {killed.reports}; node a:\n{a.log()}"

    await left.run("disconnect")
    await until(lambda: counted(2, 0), found)
    await lost.run("cut")
    await until(lambda: counted(1, 0), found)
    a.kill()
    await until(lambda: counted(0, 0), found)
    assert await participants(b) == await participants(b, "red") == {}


async def test_a_client_that_is_away_can_be_disconnected(start_node: StartNode, clients: JsClients) -> None:
    a, b = [await start_node(manager=SOON) for _ in "ab"]
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    await client.call("join", "red")
    await client.run("cut")
    await until(lambda: _counted(b, [0, 1]), b.log)
    await b.do(("disconnect", [sid(client)]))
    assert await count(b, "red") == await count(b) == [0, 0]


def _told(node: dict[str, Any]) -> list[tuple[str, str]]:
    words = ("join", "leave", "reconnecting", "returned")
    return [(entry["what"], entry["sid"]) for entry in node["seen"] if entry["what"] in words]


async def test_changes_are_told_on_every_node_in_order(start_node: StartNode, clients: JsClients) -> None:
    # a node that is off the processor for a moment is not told as dead
    a, b, c = [await start_node(manager={**SOON, "heartbeat_interval": 5}, watch=["red"]) for _ in "abc"]
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    me = sid(client)
    expected: list[tuple[str, str]] = []

    async def told(change: str, *nodes: NodeProcess) -> None:
        expected.append((change, me))
        for node in nodes:

            async def all_told(node: NodeProcess = node) -> bool:
                return _told(await node.look()) == expected

            await until(all_told, node.log)

    await client.call("join", "blue")
    await client.call("join", "red")
    await told("join", a, b, c)
    await client.run("cut")
    await told("reconnecting", a, b, c)
    await client.run("connect")
    await told("returned", a, b, c)
    a.kill()
    await told("reconnecting", b, c)
    await client.move(b)
    await client.run("connect")
    assert (await client.connected(3))["recovered"]
    await told("returned", b, c)
    await c.do(("leave_room", [me, "red"]))
    await told("leave", b, c)
    await client.call("join", "red")
    await told("join", b, c)
    await c.do(("close_room", ["red"]))
    await told("leave", b, c)
    await client.call("join", "red")
    await told("join", b, c)
    await client.run("disconnect")
    await told("leave", b, c)


async def test_those_who_do_not_come_back_leave(start_node: StartNode, clients: JsClients) -> None:
    node = await start_node(manager=SHORT, server=PINGS, watch=[None])
    client = await clients.open(node, options={**WEBSOCKET, "reconnection": False})

    async def told(*changes: str) -> bool:
        return _told(await node.look()) == [(change, sid(client)) for change in changes]

    await until(partial(told, "join"), node.log)  # changes within some milliseconds are told as one
    await client.run("cut")
    await until(partial(told, "join", "reconnecting", "leave"), node.log)


async def test_a_process_that_only_writes_can_ask(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer, channel: str, shards: int
) -> None:
    node = await start_node()
    client = await clients.open(node, options=WEBSOCKET)
    await client.call("join", "red")
    options: Any = {"channel": channel, "write_only": True, "shards": shards}
    async with AsyncRedisStreamsManager(redis_server.url, **options) as manager:
        (found,) = await manager.participants("red")
        assert (found.sid, found.state, found.rooms) == (sid(client), "connected", ("red",))
        assert (await manager.count("red")).total == 1
        with pytest.raises(RuntimeError, match="only a manager that serves clients can watch"):
            manager.on_participants("red")
        with pytest.raises(TypeError, match="a room must be"):
            await manager.participants(1.5)
    with RedisStreamsManager(redis_server.url, **options) as synchronous:
        assert [found.sid for found in synchronous.participants("red")] == [sid(client)]
        assert synchronous.count("red") == (1, 0)
