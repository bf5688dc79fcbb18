"""A node whose replies from Redis are lost, late or cut off: what it emits comes once, also to who recovers."""

from __future__ import annotations

import asyncio

from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.proxy import Proxy
from tests.support.waiting import until


async def test_an_event_whose_reply_was_lost_comes_once(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer
) -> None:
    """The client drops and recovers between the two tries; its twin stays."""
    async with Proxy(redis_server.port) as proxy:
        a, b = await start_node(redis=proxy.url), await start_node()
        client, twin = await clients.open(a, options=WEBSOCKET), await clients.open(b, options=WEBSOCKET)
        await client.move(b)
        expected = []
        for i in range(6):
            proxy.lose_reply_to = f'"retried",{i}'.encode()
            emit = asyncio.ensure_future(a.emit("retried", i))
            await until(lambda: proxy.lose_reply_to is None)
            await client.run("cut")
            await emit
            await client.connected(2 + i)
            expected.append(("retried", i))
        assert proxy.lost == 6
        assert await settle(b, twin) == expected
        assert await settle(b, client) == expected
        assert all(connect["recovered"] for connect in client.connects()[1:])


async def test_nothing_is_lost_while_connections_to_redis_break(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer
) -> None:
    """Requests that never arrive, replies that never come, connections that end, one after the other, under load."""
    async with Proxy(redis_server.port) as proxy:
        a, b = await start_node(redis=proxy.url), await start_node()
        here, there = await clients.open(a, options=WEBSOCKET), await clients.open(b, options=WEBSOCKET)
        for i in range(8):
            if i % 2:
                proxy.lose_reply_to = f'"lost",{i}'.encode()
            else:
                proxy.open.clear()  # what is sent is swallowed
            emits = asyncio.gather(a.emit("lost", i), a.do(*[("emit", ["e", i * 10 + n]) for n in range(10)]))
            if i % 2:
                await until(lambda lost=(i + 1) // 2: proxy.lost == lost)  # type: ignore[misc]
            else:
                await asyncio.sleep(0.05)  # some of it is under way
            await proxy.cut()
            proxy.open.set()
            await proxy.cut()
            await emits
        received = await settle(b, there)
        expected = [("e", n) for n in range(80)]
        assert [event for event in received if event[0] == "e"] == expected
        assert [event for event in received if event[0] == "lost"] == [("lost", i) for i in range(8)]
        assert await settle(b, here) == received


async def test_an_entry_that_is_refused_loses_no_other(start_node: StartNode, clients: JsClients) -> None:
    """In one batch: rooms that can't be entered, between events."""
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    calls = []
    for i in range(20):
        calls.append(a.do(("emit", ["e", i])))
        calls.append(a.do(("enter_room", ["nobody", "room"])))
        calls.append(a.do(("enter_room", [sid, f"room {i}"])))
    await asyncio.gather(*calls)
    assert sorted(await settle(a, client)) == [("e", i) for i in range(20)]
    assert (await client.state())["rooms"] == sorted([sid, *(f"room {i}" for i in range(20))])


async def test_a_client_that_leaves_while_it_is_being_disconnected(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer
) -> None:
    """Its transport is gone before its handler runs, which can read its session all the same."""
    async with Proxy(redis_server.port) as proxy:
        a = await start_node(redis=proxy.url, verbose=True)
        client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
        await client.call("save", {"user": "ann"})
        proxy.open.clear()
        disconnect = asyncio.ensure_future(a.do(("disconnect", [client.connects()[0]["sid"]])))
        await until(lambda: "Disconnecting" in a.log())
        await client.run("cut")
        await until(lambda: no_websocket(a))
        assert not disconnect.done()
        proxy.open.set()
        await proxy.cut()
        await disconnect
        handled = [entry for entry in (await a.look())["seen"] if entry["what"] == "disconnect"]
        assert [(entry["reason"], entry["session"]) for entry in handled] == [("server disconnect", {"user": "ann"})]


async def no_websocket(node: NodeProcess) -> bool:
    return not [task for task in (await node.look())["tasks"] if "websocket" in task]
