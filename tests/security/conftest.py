from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from local.redis_server import RedisServer
from tests.support.node_process import NodeProcess


@pytest.fixture(scope="module")
def target(redis_server: RedisServer) -> Iterator[NodeProcess]:
    """One node for all tests of a module: if one of them breaks the node, the following ones notice it."""
    node = NodeProcess("target", redis_server.url, manager={"channel": "test-" + uuid.uuid4().hex[:12]})
    asyncio.run(node.start())
    yield node
    node.stop()
