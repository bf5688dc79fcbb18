from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from chat.__main__ import die_with_parent
from chat.redis_server import RedisServer
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


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    running = await Clients().start()
    yield running
    await running.stop()
