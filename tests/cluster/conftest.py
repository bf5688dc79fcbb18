from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.cluster import Clients, Node

StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real server, for all tests of this process; each test has a channel of its own."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
def channel() -> str:
    return "test-" + uuid.uuid4().hex[:12]


@pytest.fixture
async def start_node(redis_server: RedisServer, channel: str) -> AsyncIterator[StartNode]:
    """Starts nodes of one cluster."""
    nodes: list[Node] = []

    async def start(name: str = "", *, manager: dict[str, object] | None = None, **config: object) -> Node:
        node = Node(
            name or "abcdefgh"[len(nodes)],
            str(config.pop("redis", redis_server.url)),
            manager={"channel": channel, **(manager or {})},
            **config,
        )
        nodes.append(node)
        return await node.start()

    yield start
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def shared_nodes(redis_server: RedisServer) -> Iterator[list[Node]]:
    """Two nodes of one cluster for all tests of a module. Use them by ``pair``."""
    manager = {"channel": "test-" + uuid.uuid4().hex[:12]}
    nodes = [Node(name, redis_server.url, manager=manager) for name in "ab"]

    async def start() -> None:
        await asyncio.gather(*(node.start() for node in nodes))

    try:
        asyncio.run(start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


@pytest.fixture
async def pair(shared_nodes: list[Node]) -> tuple[Node, Node]:
    """Two nodes of one cluster, for tests that neither stop them nor need them quiet: they start once."""
    a, b = shared_nodes
    await a.reset()
    await b.reset()
    return a, b


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    running = await Clients().start()
    yield running
    await running.stop()
