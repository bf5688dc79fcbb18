"""When a client can't recover it gets a fresh session: no error, no noise, and the reason is known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.js_clients import WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode, no_clients, quiet
from tests.support.waiting import until


async def fresh(node: NodeProcess, client: JsClient, times: int, reason: str) -> None:
    """The client's latest connect gave it a new session, for this reason, and no node made noise."""
    again = await client.connected(times)
    assert again["recovered"] is False
    assert again["sid"] not in [c["sid"] for c in client.connects()[: times - 1]]
    assert again["pid"] not in [c["pid"] for c in client.connects()[: times - 1]]
    state = await client.state()
    assert (state["recovered"], state["reason"]) == (False, reason)
    assert state["session"] == {}
    assert state["rooms"] == [again["sid"]]
    assert (await node.look())["outcomes"][reason] >= 1
    quiet(node)


@pytest.mark.parametrize("where", ["same node", "other node"])
async def test_a_deliberate_disconnect_of_the_client(start_node: StartNode, clients: JsClients, where: str) -> None:
    a = await start_node()
    b = a if where == "same node" else await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    await client.call("save", {"n": 1})
    await a.emit("e", to="room")
    await client.received(1)
    await client.run("disconnect")
    gone = await until(lambda: _gone(a))
    assert gone[0]["session"] == {"n": 1}
    await client.move(b)
    await client.run("connect")
    await fresh(b, client, 2, "unknown")
    await b.emit("e", to="room")
    assert await settle(b, client) == [("e",)]


async def _gone(node: NodeProcess) -> list[dict[str, Any]]:
    return [s for s in (await node.look())["seen"] if s["what"] == "disconnect"]


@pytest.mark.parametrize("where", ["own node", "other node"])
async def test_a_deliberate_disconnect_of_the_server(start_node: StartNode, clients: JsClients, where: str) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await (a if where == "own node" else b).do(("disconnect", [sid]))
    await until(lambda: client.of("disconnect"))
    assert client.of("disconnect")[0]["reason"] == "io server disconnect"
    assert [g["reason"] for g in await until(lambda: _gone(a))] == ["server disconnect"]
    await client.run("connect")
    await fresh(a, client, 2, "unknown")


async def test_a_detached_session_that_the_server_disconnects(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET, urls=[b.url])
    sid = client.connects()[0]["sid"]
    await client.run("away")
    await until(lambda: _gone(a))
    await b.do(("disconnect", [sid]))
    await client.run("back")
    await fresh(b, client, 2, "unknown")


async def test_an_expired_session(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(manager={"max_disconnection_duration": 0.3})
    client = await clients.open(a, options=WEBSOCKET, urls=[a.url])
    await client.call("save", {"n": 1})
    await client.run("away")
    await until(lambda: _gone(a))

    async def expired() -> bool:
        return await a.do(("count",), on="manager") == [[0, 0]]

    await until(expired)
    await client.run("back")
    await fresh(a, client, 2, "expired")


async def test_pids_and_offsets_of_every_shape(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await a.emit("e", 1)
    await client.received(1)
    times = 1
    pid, offset = [(await client.run("get"))[key] for key in ("pid", "offset")]
    epoch, n, _ = offset.split("-")
    other = pid[:-1] + ("A" if pid[-1] != "A" else "B")
    huge = "x" * 100_000
    for bad_pid, bad_offset, reason in [
        ("nobody." + pid.partition(".")[2], None, "unknown"),
        (other, None, "unknown"),
        (pid.partition(".")[0], None, "malformed"),
        (pid + "\n", None, "malformed"),
        (".", None, "malformed"),
        (huge, None, "malformed"),
        ("*." + pid.partition(".")[2], None, "unknown"),
        (1, None, "malformed"),
        ([pid], None, "malformed"),
        ({"pid": pid}, None, "malformed"),
        (True, None, "malformed"),
        ("same", f"{epoch}-{int(n, 16) + 1000:x}", "offset"),
        ("same", f"{int(epoch, 16) + 1:x}-1", "offset"),
        ("same", "0-0\n", "malformed"),
        ("same", "1700000000000-0-0", "malformed"),
        ("same", huge, "malformed"),
        ("same", 5, "malformed"),
        ("same", [offset], "malformed"),
        ("same", {"a": 1}, "malformed"),
        ("same", False, "malformed"),
        ("same", "-1-1", "malformed"),
        ("same", "ffffffffffffffffffff-1", "malformed"),
    ]:
        await client.run("set", pid=None if bad_pid == "same" else bad_pid, offset=bad_offset)
        if bad_pid == "same":
            await client.run("set", pid=client.connects()[-1]["pid"], offset=bad_offset)
        await client.run("cut")
        times += 1
        await fresh(a, client, times, reason)
    for no_offset in (None, ""):  # and the last session is a good one
        await client.run("set", offset=no_offset)
        await client.run("cut")
        times += 1
        assert (await client.connected(times))["recovered"]


async def test_a_stolen_sid_without_its_secret(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node()
    victim = await clients.open(a, options=WEBSOCKET)
    await victim.call("save", {"secret": 1})
    thief = await clients.open(a, options=WEBSOCKET)
    mine = (await thief.run("get"))["pid"]
    stolen = victim.connects()[0]["sid"] + "." + mine.partition(".")[2]
    await thief.run("set", pid=stolen)
    await thief.run("cut")
    await fresh(a, thief, 2, "unknown")
    assert len(victim.connects()) == 1
    assert (await victim.state())["session"] == {"secret": 1}


async def test_an_old_offset_beside_a_new_pid(start_node: StartNode, clients: JsClients) -> None:
    """The JavaScript client keeps the offset of its former session: it counts as none."""
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await a.emit("e", 1)
    await client.received(1)
    await client.run("disconnect")
    await client.run("connect")
    await fresh(a, client, 2, "unknown")
    await client.run("cut")
    assert (await client.connected(3))["recovered"] is True
    await a.emit("e", 2)
    assert [e[1] for e in await settle(a, client)] == [1, 2]


async def test_a_log_trimmed_past_the_client(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(manager={"max_length": 100, "window_bytes": 0})
    client = await clients.open(a, options=WEBSOCKET)
    await a.emit("e")
    await client.received(1)
    b = await start_node(manager={"max_length": 100})
    a.kill()
    await b.do(*[("emit", ["e", i]) for i in range(1000)])
    b.kill()
    c = await start_node(manager={"max_length": 100})
    await client.move(c)
    await fresh(c, client, 2, "trimmed")


async def test_the_log_is_wiped(start_node: StartNode, clients: JsClients) -> None:
    """Every client starts fresh, and is told so; then all goes on."""
    import redis

    a, b = await start_node(), await start_node()
    some = [await clients.open(node, options=WEBSOCKET) for node in (a, b)]
    await a.emit("e", 1)
    for client in some:
        await client.received(1)
    server = redis.Redis.from_url(a.config["redis"])
    channel = a.config["manager"]["channel"]
    server.delete(*server.keys("{" + channel + "}*"))  # at once: a node may begin the log anew at any moment
    server.close()
    for client in some:
        again = await client.connected(2)
        assert again["recovered"] is False
        assert (await client.state())["reason"] in ("unknown", "epoch")
    await b.emit("e", 2)
    for client in some:
        assert await settle(a, client) == [("e", 1), ("e", 2)]
    await some[0].run("cut")
    assert (await some[0].connected(3))["recovered"] is True


async def test_the_connect_handler(start_node: StartNode, clients: JsClients) -> None:
    """It sees ``recovered``, the rooms and the data, and neither ``pid`` nor offset."""
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET, auth={"user": "ann"})
    bare = await clients.open(a, options=WEBSOCKET)
    for c in (client, bare):
        await c.call("join", "room")
        await c.call("save", {"n": 1})
        await c.run("cut")
        await c.connected(2)
    connects = [s for s in (await a.look())["seen"] if s["what"] == "connect"]
    for c, auth in ((client, {"user": "ann"}), (bare, None)):
        sid = c.connects()[0]["sid"]
        first, second = (s for s in connects if s["sid"] == sid)
        assert (first["auth"], first["recovered"], first["reason"]) == (auth, False, "new")
        assert (second["auth"], second["recovered"], second["reason"]) == (auth, True, None)
        assert second["session"] == {"n": 1}
        assert sorted(second["rooms"]) == sorted([sid, "room"])


async def test_the_connect_handler_refuses_a_recovery(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET, auth={"refuse": "recovery"})
    await client.call("save", {"n": 1})
    sid, pid = (client.connects()[0][key] for key in ("sid", "pid"))
    await client.move(b)
    await client.run("cut")
    await until(lambda: client.of("connect_error"))
    assert client.of("connect_error")[0]["message"] == "not again"
    # the session is still there for who may have it
    again = await clients.open(b, options=WEBSOCKET, auth={"pid": pid})
    assert again.connects()[0]["sid"] == sid
    assert (await again.state())["session"] == {"n": 1}


async def test_the_connect_handler_refuses_a_new_client(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node()
    client = await clients.opening(a, options=WEBSOCKET, auth={"refuse": "all"})
    await until(lambda: client.of("connect_error"))
    assert client.connects() == []
    quiet(a)


async def test_skip_connect_handler(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(manager={"skip_connect_handler": True})
    client = await clients.open(a, options=WEBSOCKET)
    await client.run("cut")
    assert (await client.connected(2))["recovered"] is True
    assert len([s for s in (await a.look())["seen"] if s["what"] == "connect"]) == 1


async def test_what_the_connect_handler_emits(start_node: StartNode, clients: JsClients) -> None:
    """It comes after CONNECT, once, in order, also if it is only for this node or volatile."""
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET, auth={"greet": True})
    expected = [("greeting", what) for what in ("room", "sid", "local", "volatile")]
    assert await settle(a, client) == expected
    assert [r["what"] for r in client.reports][:2] == ["connect", "event"]
    await client.run("cut")
    await client.connected(2)
    assert await settle(a, client) == [*expected, ("settled",), *expected]


@pytest.mark.parametrize("always", [False, True], ids=["", "always_connect"])
async def test_a_connect_handler_that_raises(start_node: StartNode, clients: JsClients, always: bool) -> None:
    """The client is not left waiting: its transport is closed, and it tries again."""
    a = await start_node(server={"always_connect": always})
    client = await clients.opening(a, options=WEBSOCKET, auth={"raise": True})
    tries = await until(lambda: _connects(a, 3))
    assert len({s["sid"] for s in tries}) == len(tries)
    assert client.name
    await until(lambda: no_clients(a))


async def _connects(node: NodeProcess, count: int) -> list[dict[str, Any]]:
    seen = [s for s in (await node.look())["seen"] if s["what"] == "connect"]
    return seen if len(seen) >= count else []


async def test_always_connect(start_node: StartNode, clients: JsClients) -> None:
    always = {"always_connect": True}
    a, b = await start_node(server=always), await start_node(server=always)
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    await client.move(b)
    a.kill()
    await b.emit("e", 1, to="room")
    assert (await client.connected(2))["recovered"] is True
    assert await settle(b, client) == [("e", 1)]
