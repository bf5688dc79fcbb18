"""Nodes die, and their clients do not come back: one surviving node runs the disconnect handler, once."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.support.js_clients import WEBSOCKET, JsClients
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import payload, raw
from tests.support.waiting import until

#: Sessions end soon.
SHORT = {"max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}
PINGS = {"ping_interval": 1, "ping_timeout": 2}


async def disconnects(*nodes: NodeProcess) -> list[dict[str, Any]]:
    """The disconnect handlers that ran, on any of the nodes."""
    seen = [entry for node in nodes for entry in (await node.look())["seen"]]
    return [entry for entry in seen if entry["what"] == "disconnect"]


async def test_one_survivor_runs_the_handler_of_each_session(start_node: StartNode, clients: JsClients) -> None:
    a, b, c = [await start_node(manager=SHORT, server=PINGS) for _ in "abc"]
    gone = [await clients.open(a, options={**WEBSOCKET, "reconnection": False}) for _ in range(20)]
    for i, client in enumerate(gone):
        await client.call("save", {"number": i})
        await client.call("join", "red")
    a.kill()
    await until(lambda: settled(20, b, c), lambda: b.log() + c.log())
    seen = await disconnects(b, c)
    assert sorted(entry["session"]["number"] for entry in seen) == list(range(20))
    assert {entry["sid"] for entry in seen} == {client.connects()[0]["sid"] for client in gone}
    for entry in seen:
        assert entry["reason"] == "node lost"
        assert sorted(entry["rooms"]) == sorted(["red", entry["sid"]])


async def test_the_handler_of_a_client_that_can_not_recover_has_its_session(start_node: StartNode) -> None:
    a, b = [await start_node(manager=SHORT, server=PINGS) for _ in "ab"]
    async with raw(a, agent="Python/3.12 aiohttp/3.10") as client:
        await client.send("40")
        greeting = payload(await client.read(), "40")
        assert "pid" not in greeting
        await client.send('420["save",{"number":7}]')
        assert await client.read() == "430[]"
        await client.send('421["join","red"]')
        assert await client.read() == "431[]"
        a.kill()
    await until(lambda: settled(1, b), b.log)
    [entry] = await disconnects(b)
    assert (entry["sid"], entry["reason"], entry["session"]) == (greeting["sid"], "node lost", {"number": 7})
    assert sorted(entry["rooms"]) == sorted(["red", greeting["sid"]])


async def settled(count: int, *nodes: NodeProcess) -> bool:
    return len(await disconnects(*nodes)) >= count


async def test_who_comes_back_is_no_orphan(start_node: StartNode, clients: JsClients) -> None:
    """Its handler runs when it leaves; that of one that did not come back runs later still."""
    a = await start_node(manager=SHORT, server=PINGS)
    b = await start_node(manager=SHORT)  # its clients have time for a pong, however busy the machine is
    back = await clients.open(a, options=WEBSOCKET)
    gone = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    await back.move(b)
    a.kill()
    assert (await back.connected(2))["recovered"]
    await until(lambda: settled(1, b), b.log)
    assert [entry["sid"] for entry in await disconnects(b)] == [gone.connects()[0]["sid"]]
    await back.run("disconnect")
    await until(lambda: settled(2, b), b.log)
    assert (await disconnects(b))[1]["reason"] == "client disconnect"


async def test_a_node_that_starts_later_adopts(start_node: StartNode, clients: JsClients) -> None:
    """All nodes die; whoever comes first runs what is left to run."""
    a = await start_node(manager=SHORT, server=PINGS)
    await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    a.kill()
    b = await start_node(manager=SHORT, server=PINGS)
    await until(lambda: settled(1, b), b.log)
    assert (await disconnects(b))[0]["reason"] == "node lost"


async def test_who_leaves_a_node_that_drains_is_no_orphan(start_node: StartNode, clients: JsClients) -> None:
    a, b = [await start_node(manager=SHORT, server=PINGS) for _ in "ab"]
    await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    other = await clients.open(b, options={**WEBSOCKET, "reconnection": False})
    a.terminate()
    # when b has looked for orphans for longer than the session can live, this one's was due before
    dead = await start_node(manager=SHORT, server=PINGS)
    last = await clients.open(dead, options={**WEBSOCKET, "reconnection": False})
    dead.kill()

    async def adopted() -> list[str]:  # on a machine that is too busy, the other client may miss its pings
        return [entry["sid"] for entry in await disconnects(b) if entry["reason"] == "node lost"]

    assert await until(adopted, b.log) == [last.connects()[0]["sid"]]
    await other.run("disconnect")


async def test_a_handler_that_raises_is_run_once(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(manager=SHORT, server=PINGS)
    b = await start_node(manager=SHORT, server=PINGS, raise_disconnect=True)
    for _ in range(2):
        await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    a.kill()
    await until(lambda: b.log().count("ValueError: the disconnect handler fails") == 2, b.log)
    later = await start_node(manager=SHORT, server=PINGS)
    await clients.open(later, options={**WEBSOCKET, "reconnection": False})
    later.kill()
    await until(lambda: settled(3, b), b.log)
    assert len({entry["sid"] for entry in await disconnects(b)}) == 3


@pytest.mark.parametrize("how", ["disconnect", "heartbeat"])
async def test_a_frozen_node_that_wakes_up_does_not_run_the_handler_again(start_node: StartNode, how: str) -> None:
    a, b = await start_node(manager=SHORT, server=PINGS), await start_node(manager=SHORT, server=PINGS)
    async with raw(a) as client:  # the JavaScript client would be gone by then, since no ping comes
        await client.send("40")
        payload(await client.read(), "40")
        assert a.process is not None
        a.process.send_signal(signal.SIGSTOP)
        try:
            await until(lambda: settled(1, b), b.log)
            if how == "disconnect":  # the first that the node hears when it wakes up
                await client.send("41")
        finally:
            a.process.send_signal(signal.SIGCONT)
        await until(lambda: _left(a), a.log)
    assert await disconnects(a) == []
    assert [entry["reason"] for entry in await disconnects(b)] == ["node lost"]


async def _left(node: NodeProcess) -> bool:
    return await node.do(("get_namespaces", []), on="manager") == [[]]


async def test_a_claim_that_is_refused_leaves_the_orphan(start_node: StartNode, clients: JsClients) -> None:
    """The connect handler turns a client down that comes back: what its old node did not do remains to be done."""
    a, b = [await start_node(manager=SHORT, server=PINGS) for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET, auth={"refuse": "recovery"})
    sid = client.connects()[0]["sid"]
    await client.move(b)
    a.kill()
    await until(lambda: client.of("connect_error"), b.log)
    await until(lambda: settled(1, b), b.log)
    assert [(entry["sid"], entry["reason"]) for entry in await disconnects(b)] == [(sid, "node lost")]


async def test_a_session_that_the_application_ended_meanwhile(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(manager=SHORT, server=PINGS)
    b = await start_node(manager=SHORT)  # its clients have time for a pong, however busy the machine is
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await client.run("set", pid="nobody." + "x" * 32)  # it comes back as another
    await client.move(b)
    a.kill()
    assert not (await client.connected(2))["recovered"]
    await b.do(("disconnect", [sid]))
    await until(lambda: settled(1, b), b.log)
    assert [(entry["sid"], entry["reason"]) for entry in await disconnects(b)] == [(sid, "node lost")]
