"""Clients of uvicorn's and gunicorn's workers, which share a port, recover from those killed and stopped.

They use WebSocket only: with HTTP long-polling, each request would come to another worker.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from local.redis_server import RedisServer
from tests.support.chat_clients import open_client
from tests.support.emitter import Emitter
from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import StartNode
from tests.support.waiting import until

from .workers import Example

StartWorkers = Callable[[str], Awaitable[Example]]


@pytest.fixture
async def start_workers(redis_server: RedisServer, channel: str, tmp_path: Path) -> AsyncIterator[StartWorkers]:
    started: list[Example] = []

    async def start(program: str) -> Example:
        for package in ("uvicorn", program.split()[0]):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"no {package} here: pip install uvicorn gunicorn")
        started.append(Example(program, redis_server.url, channel, tmp_path))
        return await started[-1].run()

    yield start
    for workers in started:
        workers.stop()


@pytest.mark.parametrize("program", ["uvicorn --workers", "gunicorn", "gunicorn --preload"])
async def test_workers_die_and_stop(
    start_node: StartNode, start_workers: StartWorkers, clients: JsClients, program: str
) -> None:
    node = await start_node()  # it emits, and serves no client
    workers = await start_workers(program)
    client = await open_client(clients, workers, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    worker = (await client.state())["process"]
    async with Emitter(node, sid) as emitter:
        await client.received(10)
        os.kill(worker, signal.SIGKILL)
        again = await client.connected(2)
        assert (again["recovered"], again["sid"]) == (True, sid)
        await client.received(emitter.sent + 10)
    assert (await client.state())["process"] != worker
    # The signal that follows would else find the new worker while it starts.
    await until(lambda: workers.log().count("Application startup complete") == 3, workers.log)

    await client.move(node)
    async with Emitter(node, sid, emitter.sent) as emitter:
        await workers.terminate()
        again = await client.connected(3)
        assert (again["recovered"], again["sid"]) == (True, sid)
    assert await settle(node, client) == [("tick", i) for i in range(emitter.sent)]
    assert len(client.connects()) == 3, client.reports
