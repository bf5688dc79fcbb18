"""Clients behind real load balancers recover from nodes that are killed and stopped, and get each event once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.chat_clients import BROWSER_POLLING, open_client
from tests.support.emitter import Emitter
from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import until

from .balancers import SECTIONS, Balancer, find_program

HERE = [name for name in SECTIONS if find_program(name) is not None]
StartBalancer = Callable[[str, list[NodeProcess]], Awaitable[Balancer]]


@pytest.fixture
async def start_balancer(tmp_path: Path) -> AsyncIterator[StartBalancer]:
    started: list[Balancer] = []

    async def start(name: str, nodes: list[NodeProcess]) -> Balancer:
        folder = tmp_path / name
        folder.mkdir()
        started.append(Balancer(name, nodes, folder))
        return await started[-1].start()

    yield start
    for balancer in started:
        balancer.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis server that the test may kill: it has what it took on its disk."""
    server = RedisServer(options=("--appendonly", "yes", "--appendfsync", "always"), preexec=die_with_parent)
    yield server
    server.stop()


@pytest.mark.parametrize("options", [BROWSER_POLLING, WEBSOCKET], ids=["polling", "websocket"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(name not in HERE, reason=f"no {name} here: `make proxies` says what to do")
        )
        for name in SECTIONS
    ],
)
async def test_nodes_die_and_stop(
    start_node: StartNode, start_balancer: StartBalancer, clients: JsClients, name: str, options: dict[str, Any]
) -> None:
    nodes = await asyncio.gather(*(start_node() for _ in range(3)))
    balancer = await start_balancer(name, nodes)
    client = await open_client(clients, balancer, options=options)
    sid = client.connects()[0]["sid"]
    sent = 0
    for turn, end in enumerate((NodeProcess.kill, NodeProcess.terminate)):
        here = (await client.state())["node"]
        node = next(node for node in nodes if node.name == here)
        nodes.remove(node)
        async with Emitter(nodes[-1], sid, sent) as emitter:
            await client.received(sent + 10)
            assert not client.of("disconnect")[turn:], client.reports  # it stays on its node
            await asyncio.to_thread(end, node)
            again = await client.connected(turn + 2)
            assert (again["recovered"], again["sid"]) == (True, sid)
            await client.received(emitter.sent + 10)
        sent = emitter.sent
        assert (await client.state())["node"] != here
    assert await settle(nodes[0], client) == [("tick", i) for i in range(sent)]
    assert len(client.connects()) == 3, client.reports


async def test_open_websockets_survive_an_outage_of_redis(
    start_node: StartNode, start_balancer: StartBalancer, clients: JsClients, own_redis: RedisServer
) -> None:
    """No node is ready meanwhile: whoever asks says so, and closes nothing."""
    patient = {"publish_timeout": 60}
    nodes = await asyncio.gather(*(start_node(redis=own_redis.url, manager=patient) for _ in range(3)))
    balancers = {name: await start_balancer(name, nodes) for name in HERE}
    opened = [await open_client(clients, balancer, options=WEBSOCKET) for balancer in balancers.values()]
    await nodes[0].emit("before")
    own_redis.kill()
    async with asyncio.TaskGroup() as during:
        for node in nodes:
            during.create_task(node.emit("during"))
        for name, balancer in balancers.items():
            if name != "nginx":  # it does not ask
                await until(partial(_status, balancer.url, 503), balancer.log)
        own_redis.start()
    await nodes[0].emit("after")
    for client in opened:
        assert await client.received(5) == [("before",), ("during",), ("during",), ("during",), ("after",)]
        assert [report["what"] for report in client.reports] == ["connect", *["event"] * 5]


async def _status(url: str, status: int) -> bool:
    async with aiohttp.ClientSession() as http, http.get(url + "/readyz") as response:
        return response.status == status
