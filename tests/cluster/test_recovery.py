"""Clients recover, on another node: from a node killed with SIGKILL, and from a lost transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import until


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING, {}], ids=["websocket", "polling", "upgrade"])
async def test_from_a_killed_node(start_node: StartNode, clients: JsClients, options: dict[str, Any]) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=options)
    await client.call("join", "room")
    await client.call("join", 42)
    await client.call("save", {"user": "ann"})
    sid = (await client.state())["sid"]
    await a.emit("before", 1, to="room")
    await client.received(1)
    await client.move(b)

    a.kill()
    await b.emit("to room", 1, to="room")
    await b.emit("to another room", 1, to="elsewhere")
    await b.emit("to all", 2)
    await b.emit("to all but this one", 2, skip_sid=sid)
    await b.emit("to another namespace", 2, namespace="/other")
    await b.emit("to sid", 3, to=sid)
    await b.emit("to rooms", 4, to=["room", "elsewhere", 42])
    await b.emit("to number", 5, to=42)

    again = await client.connected(2)
    assert again["recovered"] is True
    assert again["sid"] == sid
    state = await client.state()
    assert state == {
        "node": "b",
        "sid": sid,
        "rooms": sorted(["42", "room", sid]),
        "session": {"user": "ann"},
        "recovered": True,
        "reason": None,
    }
    assert await settle(b, client) == [
        ("before", 1),
        ("to room", 1),
        ("to all", 2),
        ("to sid", 3),
        ("to rooms", 4),
        ("to number", 5),
    ]
    assert (await b.look())["outcomes"] == {"recovered": 1}


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["websocket", "polling"])
@pytest.mark.parametrize("how", ["cut", "close_engine"])
async def test_from_a_lost_transport(
    start_node: StartNode, clients: JsClients, options: dict[str, Any], how: str
) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=options)
    await client.call("join", "room")
    await client.call("save", {"user": "ann"})
    await client.move(b)
    await client.run(how)
    for i in range(5):
        await a.emit("missed", i, to="room")
    again = await client.connected(2)
    assert again["recovered"] is True
    assert again["sid"] == client.connects()[0]["sid"]
    assert (await client.state())["session"] == {"user": "ann"}
    assert await settle(a, client) == [("missed", i) for i in range(5)]
    look = await until(lambda: _seen(a, "disconnect"))
    assert look[0]["session"] == {"user": "ann"}
    assert "room" in look[0]["rooms"]


async def _seen(node: NodeProcess, what: str) -> list[dict[str, Any]]:
    return [s for s in (await node.look())["seen"] if s["what"] == what]


async def test_two_namespaces_on_one_connection(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET, namespaces=["/", "/other"])
    await client.call("join", "room")
    await client.call("join", "room", nsp="/other")
    await client.call("save", {"n": 1})
    await client.call("save", {"n": 2}, nsp="/other")
    await client.move(b)
    a.kill()
    await b.emit("main", to="room")
    await b.emit("other", to="room", namespace="/other")
    for nsp in ("/", "/other"):
        again = await client.connected(2, nsp)
        assert again["recovered"] is True
        assert again["sid"] == client.connects(nsp)[0]["sid"]
    assert await client.received(1) == [("main",)]
    assert await client.received(1, "/other") == [("other",)]
    assert (await client.state())["session"] == {"n": 1}
    assert (await client.state("/other"))["session"] == {"n": 2}


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["websocket", "polling"])
@pytest.mark.parametrize("serializer", ["default", "msgpack"])
async def test_binary_events(
    start_node: StartNode, clients: JsClients, options: dict[str, Any], serializer: str
) -> None:
    server = {"serializer": serializer}
    a, b = await start_node(server=server), await start_node(server=server)
    parser = {"parser": "msgpack"} if serializer == "msgpack" else {}
    client = await clients.open(a, options={**options, **parser})
    other = await clients.open(b, options={**(POLLING if options is WEBSOCKET else WEBSOCKET), **parser})
    binary = [{"bytes": "00ff10"}, {"bytes": ""}, "text"]
    await a.emit("live", binary)
    await client.received(1)
    await client.move(b)
    a.kill()
    await b.emit("missed", binary)
    await b.emit("plain", {"ä": [1, 2.5, None, True]})
    assert (await client.connected(2))["recovered"] is True
    expected = [
        ("live", [{"bytes": "00ff10"}, {"bytes": ""}, "text"]),
        ("missed", [{"bytes": "00ff10"}, {"bytes": ""}, "text"]),
        ("plain", {"ä": [1, 2.5, None, True]}),
    ]
    assert [_hex(e) for e in await client.received(3)] == expected
    assert [_hex(e) for e in await other.received(3)] == expected


def _hex(event: tuple[Any, ...]) -> tuple[Any, ...]:
    """Buffers inside an array come through JSON as {"type": "Buffer", "data": [...]}."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "Buffer":
            return {"bytes": bytes(value["data"]).hex()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return tuple(plain(v) for v in event)


async def test_a_client_that_never_received_an_event(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    assert "offset" not in await client.run("get")
    await client.move(b)
    a.kill()
    await b.emit("first", 1)
    assert (await client.connected(2))["recovered"] is True
    assert await settle(b, client) == [("first", 1)]


async def test_again_and_again(start_node: StartNode, clients: JsClients) -> None:
    a, b, c = await start_node(), await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    sid = client.connects()[0]["sid"]
    sent = 0
    for turn, (old, new) in enumerate([(a, b), (b, c), (c, a), (a, a), (a, b)]):
        await client.move(new)
        await old.emit("live", sent, to="room")
        await client.received(sent + 1)
        await client.run("cut")
        await old.emit("missed", sent + 1, to="room")
        await new.emit("missed", sent + 2, to=sid)
        again = await client.connected(turn + 2)
        assert (again["recovered"], again["sid"]) == (True, sid)
        sent += 3
        await client.received(sent)
    assert [e[1] for e in await settle(b, client)] == list(range(sent))


async def test_membership_changes_while_away(start_node: StartNode, clients: JsClients) -> None:
    """What a client is sent follows the rooms it was in when the event was emitted."""
    a, b, c = await start_node(), await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    for room in ("left", "closed", "stays"):
        await client.call("join", room)
    await client.move(c)
    await client.run("set", offset=None)
    a.kill()
    for number, step in enumerate(
        [
            ("emit", ["e", "left 1"], {"to": "left"}),
            ("leave_room", [sid, "left"]),
            ("emit", ["e", "left 2, no"], {"to": "left"}),
            ("emit", ["e", "entered 1, no"], {"to": "entered"}),
            ("enter_room", [sid, "entered"]),
            ("emit", ["e", "entered 2"], {"to": "entered"}),
            ("emit", ["e", "closed 1"], {"to": "closed"}),
            ("close_room", ["closed"]),
            ("emit", ["e", "closed 2, no"], {"to": "closed"}),
            ("enter_room", [sid, "closed"]),
            ("emit", ["e", "closed 3"], {"to": "closed"}),
            ("close_room", ["closed"]),
            ("leave_room", [sid, "entered"]),
            ("enter_room", [sid, "entered"]),
            ("emit", ["e", "entered 3"], {"to": ["entered", "stays"]}),
            ("emit", ["e", "closed 4, no"], {"to": "closed"}),
        ]
    ):
        await (b, c)[number % 2].do(step)
    assert (await client.connected(2))["recovered"] is True
    assert [e[1] for e in await settle(b, client)] == ["left 1", "entered 2", "closed 1", "closed 3", "entered 3"]
    assert (await client.state())["rooms"] == sorted(["entered", "stays", sid])


async def test_a_reconnect_at_once(start_node: StartNode, clients: JsClients) -> None:
    """The client is back before its old connection was noticed to be gone."""
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options={**WEBSOCKET, "reconnectionDelay": 1, "reconnectionDelayMax": 1})
    sid = client.connects()[0]["sid"]
    for turn in range(10):
        node = (a, b)[turn % 2]
        await client.move(node)
        await client.run("cut")
        await b.emit("e", turn, to=sid)
        again = await client.connected(turn + 2)
        assert (again["recovered"], again["sid"]) == (True, sid)
    assert [e[1] for e in await settle(a, client)] == list(range(10))


@pytest.mark.parametrize("where", ["same node", "other node"])
@pytest.mark.parametrize("slow", [0, 0.5], ids=["", "slow disconnect handler"])
async def test_takeover_of_a_half_open_connection(
    start_node: StartNode, clients: JsClients, where: str, slow: float
) -> None:
    """The server still thinks that the old connection is open: it is evicted, and its handler runs."""
    a, b = await start_node(slow_disconnect=slow), await start_node()
    target = a if where == "same node" else b
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    await client.call("save", {"n": 1})
    sid = client.connects()[0]["sid"]
    await client.move(target)
    await client.run("half_open")
    await b.emit("e", 0, to="room")
    again = await client.connected(2)
    assert (again["recovered"], again["sid"]) == (True, sid)
    await b.emit("e", 1, to="room")
    gone = await until(lambda: _seen(a, "disconnect"))
    assert [g["sid"] for g in gone] == [sid]
    assert gone[0]["session"] == {"n": 1}
    await b.emit("e", 2, to="room")
    assert [e[1] for e in await settle(b, client)] == [0, 1, 2]
    state = await client.state()
    assert (state["rooms"], state["session"]) == (sorted(["room", sid]), {"n": 1})
    if slow:
        await asyncio.sleep(slow + 0.1)  # the old handler ends; it must take nothing with it
        await b.emit("e", 3, to="room")
        assert [e[1] for e in await client.received(5) if e[0] == "e"] == [0, 1, 2, 3]
        assert (await client.state())["rooms"] == sorted(["room", sid])


async def test_a_node_that_has_just_booted(start_node: StartNode, clients: JsClients) -> None:
    """It has not read what the client missed; it fetches that from the stream."""
    a = await start_node()
    some = [await clients.open(a, options=WEBSOCKET) for _ in range(5)]
    for client in some:
        await client.call("join", "room")
        await client.run("set", offset=None)
    b = await start_node()
    for client in some:
        await client.move(b)
    c = await start_node()
    for client in some:
        await client.move(c)
    a.kill()
    b.kill()
    d = await start_node()
    await c.do(*[("emit", ["e", i], {"to": "room"}) for i in range(300)])
    c.kill()
    for client in some:
        await client.move(d)
    for client in some:
        assert (await client.connected(2))["recovered"] is True
        assert [e[1] for e in await settle(d, client)] == list(range(300))


async def test_a_node_started_after_the_events(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    sid = client.connects()[0]["sid"]
    a.kill()
    await b.do(*[("emit", ["e", i], {"to": "room"}) for i in range(3000)], ("enter_room", [sid, "late"]))
    b.kill()
    c = await start_node()
    await client.move(c)
    assert (await client.connected(2))["recovered"] is True
    assert [e[1] for e in await settle(c, client)] == list(range(3000))
    assert "late" in (await client.state())["rooms"]


async def test_an_orderly_stop_sends_clients_elsewhere(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    some = [await clients.open(a, options=options) for options in (WEBSOCKET, POLLING, {})]
    for client in some:
        await client.call("join", "room")
        await client.move(b)
    a.terminate()
    await b.emit("e", 1, to="room")
    for client in some:
        again = await client.connected(2)
        assert (again["recovered"], again["sid"]) == (True, client.connects()[0]["sid"])
        assert await settle(b, client) == [("e", 1)]
