"""Opens a channel on each kind of server: the simulated one, fakeredis, and the real servers that are installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import fakeredis
import redis.asyncio

from local.redis_server import RedisServer, servers_to_test
from tests.simulation.redis import SimulatedRedis, SimulatedRedisClient
from tests.support.redis_channel import RedisChannel

#: The real servers that are installed: name -> path.
SERVERS = {path.name: path for path in servers_to_test()}


@asynccontextmanager
async def opened(name: str, servers: Callable[[str], RedisServer]) -> AsyncIterator[RedisChannel]:
    """Opens a channel on a server.

    :param name: ``simulation``, ``fakeredis``, or the name of a real server: a key of :data:`SERVERS`.
    :param servers: starts a real server, or returns the one that runs: the fixture ``servers``.
    """
    server: RedisServer | None = None
    client: Any
    if name == "simulation":
        client = SimulatedRedisClient(
            SimulatedRedis(asyncio.get_running_loop().time, Random()), SimpleNamespace(dead=False, lag=0)
        )
    elif name == "fakeredis":
        client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    else:
        server = servers(name)
        client = redis.asyncio.Redis.from_url(server.url)
    store = RedisChannel(client, server)
    yield store
    await store.close()
    await client.aclose()
