from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio

from local.redis_server import RedisServer
from tests.support.node_process import WAITS_FOR_REDIS, NodeProcess


@pytest.fixture(scope="module")
def target(redis_server: RedisServer) -> Iterator[NodeProcess]:
    """One node for all tests of a module: if one of them breaks the node, the following ones notice it."""
    node = NodeProcess(
        "target", redis_server.url, manager={"channel": "test-" + uuid.uuid4().hex[:12], **WAITS_FOR_REDIS}
    )
    asyncio.run(node.start())
    yield node
    node.stop()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Any]:
    """A client of the Redis of the nodes."""
    client: Any
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        yield client
