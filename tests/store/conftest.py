"""Runs each test on every server: the simulated one, fakeredis, each real server that is installed, and a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.store.channels import CLUSTER, SERVERS, opened
from tests.support.redis_channel import RedisChannel
from tests.support.redis_cluster import RedisCluster


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], RedisServer]]:
    """The real servers by name. Each is started when a test asks for it for the first time."""
    started: dict[str, RedisServer] = {}

    def get(name: str) -> RedisServer:
        if name not in started:
            started[name] = RedisServer(SERVERS[name], preexec=die_with_parent)
        return started[name]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    """A cluster, which is started when a test uses it for the first time."""
    cluster = RedisCluster(next(iter(SERVERS.values()), None))
    yield cluster
    cluster.stop()


@pytest.fixture(params=["simulation", "fakeredis", *SERVERS, CLUSTER])
async def store(
    request: pytest.FixtureRequest,
    servers: Callable[[str], RedisServer],
    cluster: RedisCluster,
) -> AsyncIterator[RedisChannel]:
    """A channel on each server in turn."""
    async with opened(request.param, servers, cluster) as store:
        yield store


@pytest.fixture(params=list(SERVERS))
async def real(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> AsyncIterator[RedisChannel]:
    """A channel on each real server in turn."""
    async with opened(request.param, servers) as store:
        yield store
