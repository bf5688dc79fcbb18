"""Fixtures that tests of several folders use. ``tests/conftest.py`` makes them known to pytest."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer

from .js_clients import JsClients
from .node_process import WAITS_FOR_REDIS, NodePair, NodeProcess, StartNode


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis server for all tests of this process. Each test uses its own channel on it."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
def channel() -> str:
    """A channel with a random name."""
    return "test-" + uuid.uuid4().hex[:12]


@pytest.fixture(scope="module")
def server_kind(request: pytest.FixtureRequest) -> str:
    """What serves the nodes: one of ``tests/support/node_servers.py``. Folders of tests may choose several."""
    kind = str(getattr(request, "param", "aiohttp"))
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"no {kind} here: pip install {kind}")
    return kind


def divided(shards: int) -> dict[str, object]:
    """The option of a manager; none for one partition."""
    return {"shards": shards} if shards > 1 else {}


@pytest.fixture(scope="session")
def shards(request: pytest.FixtureRequest) -> int:
    """How many partitions the nodes have: the option ``--shards``."""
    return int(request.config.getoption("--shards"))


@pytest.fixture
async def start_node(
    redis_server: RedisServer, channel: str, server_kind: str, shards: int
) -> AsyncIterator[StartNode]:
    """Starts nodes of one cluster, and stops them after the test.

    ``manager`` has options of the manager; further arguments are configuration of the node's program.
    """
    nodes: list[NodeProcess] = []

    async def start(name: str = "", *, manager: dict[str, object] | None = None, **config: object) -> NodeProcess:
        ours = {} if config.get("pubsub") else {**WAITS_FOR_REDIS, **divided(shards)}
        node = NodeProcess(
            name or "abcdefgh"[len(nodes)],
            str(config.pop("redis", redis_server.url)),
            manager={"channel": channel, **ours, **(manager or {})},
            **{"server_kind": server_kind, **config},
        )
        nodes.append(node)
        return await node.start()

    yield start
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def shared_nodes(redis_server: RedisServer, server_kind: str, shards: int) -> Iterator[list[NodeProcess]]:
    """Two nodes of one cluster for all tests of a module. Tests use them by the fixture ``pair``."""
    manager = {"channel": "test-" + uuid.uuid4().hex[:12], **WAITS_FOR_REDIS, **divided(shards)}
    nodes = [NodeProcess(name, redis_server.url, manager=manager, server_kind=server_kind) for name in "ab"]

    async def start() -> None:
        await asyncio.gather(*(node.start() for node in nodes))

    try:
        asyncio.run(start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


@pytest.fixture
async def pair(shared_nodes: list[NodeProcess]) -> NodePair:
    """Two nodes of one cluster. They start once for all tests of a module.

    Tests that stop a node, or that look at everything in its log, use ``start_node`` instead.
    """
    a, b = shared_nodes
    await a.reset()
    await b.reset()
    return a, b


@pytest.fixture
async def clients() -> AsyncIterator[JsClients]:
    """Opens official JavaScript clients."""
    running = await JsClients().start()
    yield running
    await running.stop()
