"""Opens a channel on each kind of server: the simulated one, fakeredis, real servers that are installed, a cluster."""

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
from tests.support.redis_cluster import RedisCluster

#: The real servers that are installed: name -> path.
SERVERS = {path.name: path for path in servers_to_test()}
#: The name of a cluster of six of the first of them.
CLUSTER = "cluster"


@asynccontextmanager
async def opened(
    name: str, servers: Callable[[str], RedisServer], cluster: RedisCluster | None = None
) -> AsyncIterator[RedisChannel]:
    """Opens a channel on a server.

    :param name: ``simulation``, ``fakeredis``, :data:`CLUSTER`, or the name of a real server: a key of
        :data:`SERVERS`.
    :param servers: starts a real server, or returns the one that runs: the fixture ``servers``.
    :param cluster: the fixture ``cluster``.
    """
    server: RedisServer | None = None
    client: Any
    if name == "simulation":
        client = SimulatedRedisClient(
            SimulatedRedis(asyncio.get_running_loop().time, Random()), SimpleNamespace(dead=False, lag=0)
        )
    elif name == "fakeredis":
        client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    elif name == CLUSTER:
        assert cluster is not None
        await cluster.start()
        client = redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster.servers[0].port)
    else:
        server = servers(name)
        client = redis.asyncio.Redis.from_url(server.url)
    store = RedisChannel(client, server)
    try:
        yield store
    finally:
        try:
            await store.close()
        finally:
            await client.aclose()
