"""Events with an acknowledgement, across drops: answered once, or not at all. See docs/acknowledgements.md."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodePair, NodeProcess, StartNode
from tests.support.raw_client import RawClient, payload, raw
from tests.support.waiting import until


async def answers(node: NodeProcess) -> list[Any]:
    found: list[Any] = (await node.look())["answers"]
    return found


async def ask(node: NodeProcess, question: str, to: str) -> None:
    """Emits with a callback, which notes each answer."""
    await node.do(("emit", [question], {"to": to, "callback": "record"}))


async def question(client: RawClient, name: str) -> int:
    """The number of the question that comes next."""
    match = re.fullmatch(rf'42(\d+)\["{name}"\]', packet := await client.read())
    assert match, packet
    return int(match[1])


async def answered(client: RawClient) -> None:
    """What the client sent so far has been handled."""
    await client.send('42999["echo"]')
    assert await client.read() == "43999[]"


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["websocket", "polling"])
async def test_a_call_across_a_drop(pair: NodePair, clients: JsClients, options: dict[str, Any]) -> None:
    """The answer that is given after the recovery, on another node, comes to nobody: the call times out. The next
    one is answered, by its own answer."""
    a, b = pair
    client = await clients.open(a, options=options, answer="held")
    sid = client.connects()[0]["sid"]
    call = asyncio.create_task(a.do(("call", ["first"], {"to": sid, "timeout": 3})))
    await client.received(1)
    await client.move(b)
    await client.run("cut")
    assert (await client.connected(2))["recovered"] is True
    await client.run("answer", args=["late"])
    await ask(a, "second", sid)
    await client.received(2)
    await client.run("answer", args=["in time"])
    await until(lambda: answers(a))
    with pytest.raises(RuntimeError, match="TimeoutError"):
        await call
    assert await answers(a) == [["in time"]]
    assert [e[0] for e in await settle(b, client)] == ["first", "second"]


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["websocket", "polling"])
async def test_a_call_to_who_is_away(start_node: StartNode, clients: JsClients, options: dict[str, Any]) -> None:
    """It is not replayed, so that no question is answered after its time: it times out. What was emitted without an
    acknowledgement comes."""
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=options)
    sid = client.connects()[0]["sid"]
    a.kill()
    with pytest.raises(RuntimeError, match="TimeoutError"):
        await b.do(("emit", ["e"], {"to": sid}), ("call", ["question"], {"to": sid, "timeout": 0.01}))
    await client.move(b)  # until now it has nowhere to go
    assert (await client.connected(2))["recovered"] is True
    assert await settle(b, client) == [("e",)]
    assert await b.do(("call", ["question"], {"to": sid})) == [f"{client.name} got question"]


async def test_a_call_during_the_handshake_of_a_recovery(pair: NodePair) -> None:
    """The client is here, though its connect handler still runs: it is asked after what it missed."""
    a, b = pair
    async with raw(a) as client:
        await client.send("40")
        mine = payload(await client.read(), "40")
    await b.emit("e", 1, to=mine["sid"])
    async with raw(b) as client:
        await client.send("40" + json.dumps({"pid": mine["pid"], "slow": 0.5}))
        await until(lambda: _connecting(b))
        call = asyncio.create_task(a.do(("call", ["question"], {"to": mine["sid"]})))
        assert payload(await client.read(), "40") == mine
        assert payload(await client.read(), "42")[:2] == ["e", 1]
        number = await question(client, "question")
        await client.send(f'43{number}["answer"]')
        assert await call == ["answer"]


async def _connecting(node: NodeProcess) -> bool:
    return any(s["what"] == "connect" for s in (await node.look())["seen"])


@pytest.mark.parametrize("where", ["same node", "other node"])
async def test_the_answer_of_a_connection_that_was_taken_over(pair: NodePair, where: str) -> None:
    """It counts or not, depending on who was faster; never twice, though the new connection gives it as well."""
    a, b = pair if where == "other node" else (pair[0], pair[0])
    async with raw(a) as old, raw(b) as new:
        await old.send("40")
        mine = payload(await old.read(), "40")
        await ask(a, "question", mine["sid"])
        number = await question(old, "question")
        await new.send("40" + json.dumps({"pid": mine["pid"]}))
        await old.send(f'43{number}["old"]')
        assert payload(await new.read(), "40") == mine
        for _ in range(3):
            await new.send(f'43{number}["new"]')
        await answered(new)
        assert (await old.read()).startswith("<CLOS")
        await ask(b, "another", mine["sid"])
        await new.send(f'43{await question(new, "another")}["another"]')
        await until(lambda: _has(b, ["another"]))
        assert [answer for answer in await answers(a) if answer != ["another"]] in ([], [["old"]])


async def _has(node: NodeProcess, answer: list[Any]) -> bool:
    return answer in await answers(node)


async def test_the_emitters_node_is_killed(start_node: StartNode) -> None:
    """The answer comes to nobody; the client and its node go on."""
    a, b = await start_node(), await start_node()
    async with raw(b) as client:
        await client.send("40")
        mine = payload(await client.read(), "40")
        await ask(a, "question", mine["sid"])
        number = await question(client, "question")
        a.kill()
        await client.send(f'43{number}["answer"]')
        await answered(client)
        await ask(b, "another", mine["sid"])
        number = await question(client, "another")
        await client.send(f'43{number}["another"]')
        await until(lambda: answers(b))
        assert await answers(b) == [["another"]]
        assert (await b.look())["healthy"]


@pytest.mark.parametrize("where", ["same node", "other node"])
async def test_a_client_can_not_answer_for_another(pair: NodePair, where: str) -> None:
    """Nor twice, nor before it is asked, whatever number it gives."""
    a, b = pair if where == "other node" else (pair[0], pair[0])
    async with raw(b) as asked, raw(b) as hostile:
        await asked.send("40")
        sid = payload(await asked.read(), "40")["sid"]
        await hostile.send("40")
        other = payload(await hostile.read(), "40")["sid"]
        await ask(a, "question", sid)
        number = await question(asked, "question")
        for n in range(number + 20):
            await hostile.send(f'43{n}["forged"]')
        for packet in (f'430{number}["forged"]', f'461-{number}["forged",{{"_placeholder":true,"num":0}}]'):
            await hostile.send(packet)
        await hostile.ws.send_bytes(b"x")
        await answered(hostile)
        assert await answers(a) == []
        for answer in ("first", "second", "third"):
            await asked.send(f'43{number}["{answer}"]')
        await answered(asked)
        await ask(a, "for you", other)
        theirs = await question(hostile, "for you")
        await asked.send(f'43{theirs}["forged"]')
        await answered(asked)
        for what in ("{}", "null", '"text"', ""):  # no list: an answer without arguments
            await hostile.send(f"43{theirs}{what}")
        await until(lambda: _count(a, 2))
        assert await answers(a) == [["first"], []]


async def _count(node: NodeProcess, count: int) -> bool:
    return len(await answers(node)) >= count


async def test_a_room_answers_once(pair: NodePair) -> None:
    """The first to answer counts, wherever the members are; the others' answers are dropped."""
    a, b = pair
    async with raw(a) as one, raw(b) as two:
        for member in (one, two):
            await member.send("40")
            sid = payload(await member.read(), "40")["sid"]
            await a.do(("enter_room", [sid, "room"]))
        await ask(a, "question", "room")
        for name, member in (("two", two), ("one", one)):
            await member.send(f'43{await question(member, "question")}["{name}"]')
            await answered(member)
            await until(lambda: answers(a))
        assert await answers(a) == [["two"]]


# -- from client to server --------------------------------------------------------------------------


async def tasks(node: NodeProcess) -> list[Any]:
    return [s["task"] for s in (await node.look())["seen"] if s["what"] == "work"]


async def test_a_client_that_asks_and_drops(pair: NodePair, clients: JsClients) -> None:
    """The handler runs to its end; its answer is lost with the connection, and the client is told so."""
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    asking = asyncio.create_task(client.call("work", 1, 10))
    await until(lambda: tasks(a))
    await client.move(b)
    await client.run("cut")
    with pytest.raises(RuntimeError, match="disconnected"):
        await asking
    assert (await client.connected(2))["recovered"] is True
    assert await client.call("work", 2, 0) == "b did 2"
    assert (await tasks(a), await tasks(b)) == ([1], [2])


async def test_a_client_that_retries(pair: NodePair, clients: JsClients) -> None:
    """With the client's own ``retries`` an event arrives at least once: its handler may run again, elsewhere."""
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET, socketOptions={"retries": 5, "ackTimeout": 5000})
    asking = asyncio.create_task(client.call("work", 1, 3))
    await until(lambda: tasks(a))
    await client.move(b)
    await client.run("cut")
    assert await asking == "b did 1"
    assert client.connects()[1]["recovered"] is True
    assert (await tasks(a), await tasks(b)) == ([1], [1])


async def test_what_a_client_sends_while_it_is_away(pair: NodePair, clients: JsClients) -> None:
    """It is kept by the client, and sent once, when it is back."""
    a, b = pair
    client = await clients.open(a, options={**WEBSOCKET, "reconnectionDelay": 500, "reconnectionDelayMax": 500})
    await client.move(b)
    await client.run("cut")
    await until(lambda: client.of("disconnect"))
    asking = [asyncio.create_task(client.call("work", i, 0)) for i in range(3)]
    assert await asyncio.gather(*asking) == [f"b did {i}" for i in range(3)]
    assert client.connects()[1]["recovered"] is True
    assert (await tasks(a), await tasks(b)) == ([], [0, 1, 2])
