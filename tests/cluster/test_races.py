"""Two things at once: each was a bug once, or nearly."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext

import aiohttp
import pytest

from tests.support.js_clients import WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode, no_clients
from tests.support.raw_client import RawClient, payload, raw
from tests.support.waiting import until


async def test_parallel_connects_on_one_transport(start_node: StartNode) -> None:
    """One is taken, the others are refused, and nothing is left when the transport is gone."""
    a = await start_node(server={"ping_interval": 1, "ping_timeout": 30})  # no ping is answered here
    url = a.url + "/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as response:
            url += "&sid=" + json.loads((await response.text())[1:])["sid"]

        async def connect() -> None:
            async with http.post(url, data="40") as response:
                assert response.status == 200

        await asyncio.gather(*[connect() for _ in range(20)])
        packets: list[str] = []
        while len(packets) < 20:
            async with http.get(url) as response:
                packets += [p for p in (await response.text()).split("\x1e") if p != "2"]
        assert sum(p.startswith("40") for p in packets) == 1
        assert sum(p.startswith("44") for p in packets) == 19
        async with http.post(url, data="1") as response:
            assert response.status == 200
    await until(lambda: no_clients(a), a.log)


@pytest.mark.parametrize("where", ["own node", "other node", "client", "transport"])
async def test_a_disconnect_handler_that_raises(start_node: StartNode, clients: JsClients, where: str) -> None:
    a, b = await start_node(raise_disconnect=True), await start_node()
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    sid = client.connects()[0]["sid"]
    if where == "client":
        await client.run("disconnect")
    elif where == "transport":
        await client.run("cut")
    else:
        with (
            pytest.raises(RuntimeError, match="the disconnect handler fails") if where == "own node" else nullcontext()
        ):
            await (a if where == "own node" else b).do(("disconnect", [sid]))
    await until(lambda: client.of("disconnect"))
    await until(lambda: no_clients(a), a.log)


async def test_a_takeover_while_the_connect_handler_runs(start_node: StartNode) -> None:
    """The first is let go; the second gets its CONNECT first, then what it missed, once."""
    a = await start_node()
    async with raw(a) as zero:
        await zero.send("40")
        pid = payload(await zero.read(), "40")["pid"]
    sid = pid.partition(".")[0]
    await a.emit("e", 1, to=sid)
    async with raw(a) as one, raw(a) as two:
        await one.send("40" + json.dumps({"pid": pid, "slow": 0.5}))
        await until(lambda: _connects(a, 2))
        await two.send("40" + json.dumps({"pid": pid, "slow": 1}))
        await until(lambda: _connects(a, 3))
        assert payload(await two.read(), "40")["pid"] == pid
        assert payload(await two.read(), "42")[:2] == ["e", 1]
        await a.do(("enter_room", [sid, "room"]), ("emit", ["e", 2], {"to": "room"}))
        assert payload(await two.read(), "42")[:2] == ["e", 2]
        rest = [await one.read()]
        assert rest[0].startswith("<CLOS") or rest[0].startswith("40"), rest


async def _connects(node: NodeProcess, count: int) -> bool:
    return len([s for s in (await node.look())["seen"] if s["what"] == "connect"]) >= count


async def test_many_claims_of_one_session_at_once(start_node: StartNode) -> None:
    """Whoever claims last has it, and is a full member; nobody gets an event twice."""
    a, b = await start_node(), await start_node()
    async with raw(a) as zero:
        await zero.send("40")
        first = payload(await zero.read(), "40")
        await a.do(("enter_room", [first["sid"], "room"]))
    for turn in range(5):
        async with raw(a) as one, raw(b) as two, raw(a) as three, raw(b) as four:
            racers = [one, two, three, four]
            await asyncio.gather(*[r.send("40" + json.dumps({"pid": first["pid"]})) for r in racers])

            async def ends(racer: RawClient, turn: int = turn) -> list[str]:
                seen: list[str] = []
                while True:
                    packet = await racer.read()
                    seen.append(packet)
                    if packet.startswith(("<", f'42["end",{turn}')):
                        return seen

            readers = [asyncio.create_task(ends(r)) for r in racers]
            while sum(r.done() for r in readers) < 3:
                await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
            await a.do(("emit", ["e", turn], {"to": "room"}), ("emit", ["end", turn], {"to": first["sid"]}))
            seen = await asyncio.gather(*readers)
            winners = [s for s in seen if not s[-1].startswith("<")]
            assert len(winners) == 1
            assert [p.split(",")[1] for p in winners[0] if p.startswith('42["e"')] == [str(i) for i in range(turn + 1)]


async def test_volatile_events_do_not_push_recovery_out_of_the_window(
    start_node: StartNode, clients: JsClients
) -> None:
    """A node that has just booted, nothing but volatile events, and a connect handler that takes its time."""
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET, auth={"slow": 0.3})
    a.kill()
    await b.emit("e", 1)
    await b.do(*[("emit", ["noise", i], {"volatile": True, "to": "nobody"}) for i in range(3000)])
    c = await start_node()
    await client.move(c)
    stop = asyncio.Event()

    async def noise() -> None:
        while not stop.is_set():
            await b.do(*[("emit", ["noise", i], {"volatile": True, "to": "nobody"}) for i in range(300)])

    noisy = asyncio.create_task(noise())
    try:
        assert (await client.connected(2))["recovered"] is True
        assert await settle(c, client) == [("e", 1)]
        assert len(client.connects()) == 2
    finally:
        stop.set()
        await noisy


async def test_a_burst_larger_than_the_queue(start_node: StartNode, clients: JsClients) -> None:
    """A client that reads is not taken for one that does not."""
    a, b = await start_node(manager={"max_queue": 50}), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await b.do(*[("emit", ["e", i]) for i in range(2000)])
    assert [e[1] for e in await client.received(2000)] == list(range(2000))
    assert len(client.connects()) == 1


async def test_a_long_replay(start_node: StartNode, clients: JsClients) -> None:
    """An acknowledgement comes after what was emitted before it, however much there is to catch up on."""
    a, b = await start_node(), await start_node(server={"ping_interval": 1, "ping_timeout": 15})
    client = await clients.open(a, options=WEBSOCKET)
    a.kill()
    big = "x" * 2000
    for i in range(0, 5000, 250):
        await b.do(*[("emit", ["e", [i + j, big]]) for j in range(250)])
    await client.move(b)
    assert (await client.connected(2))["recovered"] is True
    await client.call("script", [["emit", ["own"], {"to": "$me"}]])
    assert client.events()[-1] == ("own",)
    assert [e[1][0] for e in client.events()[:-1]] == list(range(5000))
    assert len(client.connects()) == 2


async def test_a_replay_during_the_upgrade_of_the_transport(start_node: StartNode, clients: JsClients) -> None:
    """More than one slice, while Engine.IO answers polls with nothing and the client waits for its POST."""
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options={"reconnectionDelay": 1500, "reconnectionDelayMax": 1500})
    await until(lambda: _upgraded(client))
    await client.move(b)
    a.kill()
    await b.do(*[("emit", ["e", i]) for i in range(500)])
    assert (await client.connected(2))["recovered"] is True
    assert [e[1] for e in await settle(b, client)] == list(range(500))
    assert len(client.connects()) == 2


async def _upgraded(client: JsClient) -> bool:
    return bool((await client.run("get"))["transport"] == "websocket")


async def test_two_that_disconnect_a_client_at_once(start_node: StartNode, clients: JsClients) -> None:
    """The handler runs once, and to its end, with the session's data."""
    a = await start_node(slow_disconnect=0.2)
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("save", {"user": "ann"})
    sid = client.connects()[0]["sid"]
    await asyncio.gather(*(a.do(("disconnect", [sid])) for _ in range(4)))
    await until(lambda: no_clients(a), a.log)
    handled = [entry for entry in (await a.look())["seen"] if entry["what"] == "disconnect"]
    assert [(entry["reason"], entry["session"]) for entry in handled] == [("server disconnect", {"user": "ann"})]
    assert "KeyError" not in a.log()
