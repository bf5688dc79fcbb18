"""One cluster of asyncio nodes and synchronous nodes: clients go from one to the other, and so does everything else."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

import pytest
from socketio_recovery import RedisStreamsManager

from local.redis_server import RedisServer
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import StartNode
from tests.support.waiting import until

SHORT = {"max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}
PINGS = {"ping_interval": 1, "ping_timeout": 2}
SYNCHRONOUS = pytest.mark.parametrize("kind", ["threading", "gevent"])


@pytest.mark.parametrize(
    ("kind", "options"), [("threading", WEBSOCKET), ("gevent", POLLING)], ids=["threading-websocket", "gevent-polling"]
)
async def test_a_client_of_a_killed_node_goes_on_with_the_other_kind(
    start_node: StartNode, clients: JsClients, kind: str, options: dict[str, Any]
) -> None:
    a, b, c = await start_node(server_kind=kind), await start_node(), await start_node(server_kind=kind)
    client = await clients.open(a, options=options)
    twin = await clients.open(c, options=options)
    for one in (client, twin):
        await one.call("join", "room")
    await client.call("save", {"user": "ann"})
    sid = (await client.state())["sid"]
    for turn, (here, there) in enumerate(((a, b), (b, c)), start=2):
        await here.emit("before", turn, to="room")
        await client.move(there)
        here.kill()
        await c.emit("missed", turn, to="room")
        await there.emit("missed", -turn, to="room")
        assert (await client.connected(turn))["recovered"]
        state = await client.state()
        assert (state["sid"], state["rooms"], state["session"]) == (sid, sorted(["room", sid]), {"user": "ann"})
    received = await settle(c, twin)
    assert len(received) == 6
    assert [event for event in await settle(c, client) if event != ("settled",)] == received


@SYNCHRONOUS
@pytest.mark.parametrize("dies", ["asyncio", "synchronous"])
async def test_the_handlers_of_a_dead_node_run_on_the_other_kind(
    start_node: StartNode, clients: JsClients, kind: str, dies: str
) -> None:
    first, second = ("aiohttp", kind) if dies == "asyncio" else (kind, "aiohttp")
    a, b = [await start_node(manager=SHORT, server=PINGS, server_kind=k) for k in (first, second)]
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    await client.call("join", "red")
    await client.call("save", {"number": 1})
    sid = (await client.state())["sid"]
    a.kill()

    async def ran() -> list[dict[str, Any]]:
        return [entry for entry in (await b.look())["seen"] if entry["what"] == "disconnect"]

    [entry] = await until(ran, b.log)
    assert (entry["sid"], entry["reason"], entry["session"]) == (sid, "node lost", {"number": 1})
    assert sorted(entry["rooms"]) == sorted(["red", sid])


async def in_rooms(client: JsClient, *rooms: str) -> bool:
    return bool((await client.state())["rooms"] == sorted(rooms))


@SYNCHRONOUS
async def test_a_call_and_a_change_of_rooms_from_the_other_kind(
    start_node: StartNode, clients: JsClients, kind: str
) -> None:
    a, b = await start_node(server_kind=kind), await start_node()
    for here, there in ((a, b), (b, a)):
        client = await clients.open(there, options=WEBSOCKET, answer=["answer"])
        sid = client.connects()[0]["sid"]
        await here.do(("enter_room", [sid, "blue"]))
        await until(partial(in_rooms, client, sid, "blue"))  # the other node dispatches it in its own time
        assert await here.do(("call", ["question"], {"to": sid})) == ["answer"]
        await here.do(("disconnect", [sid]))
        await until(partial(client.of, "disconnect"))


async def test_a_process_that_only_writes_from_many_threads_and_after_a_fork(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer, channel: str
) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    writer = RedisStreamsManager(redis_server.url, channel, write_only=True)

    def write() -> None:
        with writer:
            writer.emit("e", "before")
            if (child := os.fork()) == 0:
                try:
                    writer.emit("e", "forked")
                    writer.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            writer.emit("e", "after")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    await asyncio.to_thread(write)
    assert sorted(await settle(a, client)) == [("e", "after"), ("e", "before"), ("e", "forked")]
    many = RedisStreamsManager(redis_server.url, channel, write_only=True)
    await asyncio.gather(*[asyncio.to_thread(many.emit, "e", number) for number in range(50)])
    await asyncio.to_thread(many.close)
    received = [event for event in await settle(a, client) if event != ("settled",)]
    assert sorted(received[3:]) == [("e", number) for number in range(50)]
