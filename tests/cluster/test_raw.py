"""The bytes on the wire, over a raw Engine.IO connection; and quiet, slow and hostile clients."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode, quiet
from tests.support.raw_client import payload, raw
from tests.support.waiting import until


async def test_the_packets_of_a_recovery(start_node: StartNode) -> None:
    a = await start_node()
    async with raw(a) as client:
        await client.send("40")
        first = payload(await client.read(), "40")
        assert set(first) == {"sid", "pid"}
        assert first["pid"].startswith(first["sid"] + ".")
        await a.emit("e", 1)
        name, value, offset = payload(await client.read(), "42")
        assert (name, value) == ("e", 1)
    await until(lambda: _gone(a))
    await a.emit("e", 2)
    await a.emit("e", {"bytes": "00ff"})
    async with raw(a) as client:
        await client.send("40" + json.dumps({"pid": first["pid"], "offset": offset}))
        assert payload(await client.read(), "40") == first
        name, value, later = payload(await client.read(), "42")
        assert (name, value) == ("e", 2)
        assert later != offset
        placeholder = payload(await client.read(), "451-")
        assert placeholder[:2] == ["e", {"_placeholder": True, "num": 0}]
        assert await client.read() == "<BINARY>"
        await a.emit("e", 3)
        assert payload(await client.read(), "42")[:2] == ["e", 3]


async def _gone(node: NodeProcess) -> bool:
    return any(s["what"] == "disconnect" for s in (await node.look())["seen"])


async def test_a_client_that_cannot_recover_gets_neither_pid_nor_offsets(start_node: StartNode) -> None:
    a = await start_node()
    async with raw(a, "Python/3.11 aiohttp/3") as client:
        await client.send("40")
        assert set(payload(await client.read(), "40")) == {"sid"}
        await a.emit("e", 1)
        assert await client.read() == '42["e",1]'


async def test_a_client_that_is_not_known_has_to_ask(start_node: StartNode) -> None:
    """In its query or in its auth data, where the application does not see it."""
    a = await start_node()
    for agent, query, auth, gets in (
        ("okhttp/4.12.0", "", "", False),
        ("okhttp/4.12.0", "recovery=1&", "", True),
        ("okhttp/4.12.0", "", '{"recovery":true,"user":"ann"}', True),
        ("Mozilla/5.0", "", '{"recovery":false,"user":"ann"}', False),
        ("Mozilla/5.0", "recovery=0&", "", False),
    ):
        async with raw(a, agent, query) as client:
            await client.send("40" + auth)
            assert ("pid" in payload(await client.read(), "40")) is gets
            await a.emit("e", 1)
            assert len(payload(await client.read(), "42")) == (3 if gets else 2)
            seen = [s for s in (await a.look())["seen"] if s["what"] == "connect"][-1]
            assert seen["auth"] == ({"user": "ann"} if auth else None)
            assert seen["reason"] == ("new" if gets else "client")


async def test_namespaces_ask_each_for_itself(start_node: StartNode) -> None:
    a = await start_node()
    async with raw(a, "okhttp/4.12.0") as client:
        await client.send('40{"recovery":true}')
        assert "pid" in payload(await client.read(), "40")
        await client.send("40/other,")
        assert "pid" not in payload(await client.read(), "40/other,")


async def test_the_same_offset_twice(start_node: StartNode) -> None:
    """What was not seen is replayed again, as often as a client comes back with the same offset."""
    a = await start_node()
    async with raw(a) as client:
        await client.send("40")
        pid = payload(await client.read(), "40")["pid"]
        await a.emit("e", 0)
        offset = payload(await client.read(), "42")[-1]
    await a.emit("e", 1)
    for _ in range(3):
        async with raw(a) as client:
            await client.send("40" + json.dumps({"pid": pid, "offset": offset}))
            assert payload(await client.read(), "40")["pid"] == pid
            assert payload(await client.read(), "42")[:2] == ["e", 1]


async def test_two_that_show_the_same_pid(start_node: StartNode) -> None:
    """The later one has the session; the other's transport is closed."""
    a, b = await start_node(), await start_node()
    async with raw(a) as one:
        await one.send("40")
        first = payload(await one.read(), "40")
        async with raw(b) as two:
            await two.send("40" + json.dumps({"pid": first["pid"]}))
            assert payload(await two.read(), "40") == first
            assert await one.read() in ("<CLOSE>", "<CLOSED>", "<CLOSING>")
            await a.emit("e", 1, to=first["sid"])
            assert payload(await two.read(), "42")[:2] == ["e", 1]


async def test_a_post_to_a_transport_that_was_closed(start_node: StartNode) -> None:
    """It is refused as one to a transport that is not known. The client, which has gone on, is not even told."""
    a = await start_node()
    url = a.url + "/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession(headers={"User-Agent": "Mozilla/5.0 (raw)"}) as http:
        async with http.get(url) as response:
            url += "&sid=" + payload(await response.text(), "0")["sid"]
        async with http.post(url, data="40") as response:
            assert response.status == 200
        async with http.get(url) as response:
            mine = payload((await response.text()).partition("\x1e")[0], "40")
        async with raw(a) as other:
            await other.send("40" + json.dumps({"pid": mine["pid"]}))
            assert payload(await other.read(), "40") == mine

            async def status() -> int:
                async with http.post(url, data="3") as response:
                    return response.status

            found: list[int] = []

            async def closed() -> bool:
                found.append(await status())
                return found[-1] != 200

            await until(closed)
            assert found[-1] == 400
    assert "Traceback" not in a.log()


@pytest.mark.parametrize(
    "auth",
    [
        "{}",
        "[]",
        "null",
        '"text"',
        "1",
        '{"pid":{"a":[1]},"offset":[]}',
        '{"pid":"\\ud800.x","offset":"\\ud800"}',
        '{"pid":"' + "x" * 200_000 + '"}',
        "[" * 50 + "]" * 50,
    ],
    ids=range(9),
)
async def test_any_json_as_auth(start_node: StartNode, auth: str) -> None:
    a = await start_node()
    async with raw(a) as client:
        await client.send("40" + auth)
        assert set(payload(await client.read(), "40")) == {"sid", "pid"}
    quiet(a)


async def test_acknowledgements_that_nobody_asked_for(start_node: StartNode) -> None:
    a = await start_node()
    async with raw(a) as client:
        await client.send("40")
        await client.read()
        for packet in ("431[]", "4399999999999999999999[1]", '431{"a":1}', "43[1]", "431"):
            await client.send(packet)
        await client.send('421["echo",1]')
        assert await client.read() == "431[1]"


async def test_a_quiet_client_whose_offset_is_older_than_the_log(
    start_node: StartNode, clients: JsClients, channel: str
) -> None:
    """Answered pings show that it has missed nothing for long."""
    quick: dict[str, Any] = {
        "manager": {"max_length": 100, "heartbeat_interval": 0.1},
        "server": {"ping_interval": 0.2, "ping_timeout": 5},
    }
    a, b = await start_node(**quick), await start_node(**quick)
    some = [await clients.open(a, options=options) for options in (WEBSOCKET, POLLING, {})]
    never = await clients.open(a, options=WEBSOCKET)
    for client in some:
        await client.call("join", "quiet")
    await a.emit("e", 0, to="quiet")
    for client in some:
        await client.received(1)
    # By their own node: it could fall behind another one by more than the log keeps, and would let them go.
    await a.do(*[("emit", ["noise", i], {"to": "elsewhere"}) for i in range(500)])
    async with redis.asyncio.Redis.from_url(a.config["redis"]) as store:
        last = int(await store.hget("{" + channel + "}:meta", "n") or 0)
        for client in [*some, never]:
            key = "{" + channel + "}:session:" + client.connects()[0]["sid"]

            async def confirmed(key: str = key) -> bool:
                return int(await store.hget(key, "confirmed") or 0) >= last

            await until(confirmed, "confirmed up to the end of the log")
            await client.move(b)
    a.kill()
    await b.emit("e", 1, to="quiet")
    c = await start_node(**quick)
    for client in [*some, never]:
        await client.move(c)
        again = await client.connected(2)
        assert (again["recovered"], again["sid"]) == (True, client.connects()[0]["sid"])
    for client in some:
        assert await settle(c, client) == [("e", 0), ("e", 1)]
    assert await settle(c, never) == []


async def test_nothing_is_left_of_clients_that_do_not_read(start_node: StartNode) -> None:
    """Their writers would hold what they took until TCP gives up, which takes a quarter of an hour."""
    a = await start_node(manager={"max_queue": 50})
    big = "x" * 100_000
    async with AsyncExitStack() as stack:
        for _ in range(6):
            client = await stack.enter_async_context(raw(a))
            await client.send("40")
            payload(await client.read(), "40")
            transport = client.ws._response.connection.transport  # type: ignore[union-attr]
            assert transport is not None
            transport.pause_reading()
            stack.callback(transport.abort)  # else its closing would wait for an answer

        async def closed() -> bool:
            await a.do(*[("emit", ["e", big]) for _ in range(9)])
            return await _gone(a)

        assert await _writers(a) == 6
        await until(closed)

        async def nothing() -> bool:
            return not await _writers(a)

        await until(nothing, a.log)


async def _writers(node: NodeProcess) -> int:
    tasks: list[str] = (await node.look())["tasks"]
    return sum(task.endswith("writer") for task in tasks)


async def test_a_client_that_does_not_read(start_node: StartNode) -> None:
    """Its transport is closed before the node's memory is full; it recovers when it reads again."""
    a = await start_node(manager={"max_queue": 200})
    big = "x" * 20_000
    async with raw(a) as client:
        await client.send("40")
        first = payload(await client.read(), "40")
        transport = client.ws._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.pause_reading()
        count = 0

        async def closed() -> bool:
            nonlocal count
            await a.do(*[("emit", ["e", [count + i, big]]) for i in range(20)])
            count += 20
            return await _gone(a)

        await until(closed)
    async with raw(a) as client:
        await client.send("40" + json.dumps({"pid": first["pid"]}))
        assert payload(await client.read(), "40") == first
        for i in range(count):
            assert payload(await client.read(), "42")[1][0] == i
