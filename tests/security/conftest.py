from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from local.redis_server import RedisServer
from tests.cluster.conftest import channel, clients, pair, redis_server, shared_nodes, start_node
from tests.support.cluster import Node

__all__ = ["channel", "clients", "pair", "redis_server", "shared_nodes", "start_node"]


@pytest.fixture(scope="module")
def target(redis_server: RedisServer) -> Iterator[Node]:
    """One node for all the examples of a module: what one of them breaks, the next ones see."""
    node = Node("target", redis_server.url, manager={"channel": "test-" + uuid.uuid4().hex[:12]})
    asyncio.run(node.start())
    yield node
    node.stop()
