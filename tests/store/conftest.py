"""One test, every store: fakeredis, and each real server that is at hand."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
import redis.asyncio
from socketio_recovery.codec import JSON, Entry, Payload, Position, event_head, payload_fields
from socketio_recovery.connections import Calls, Link
from socketio_recovery.log import Append, Keys, Log
from socketio_recovery.sessions import Sessions

from local.redis_server import RedisServer, shipped_servers
from tests.simulation.redis import SimulatedRedis, SimulatedRedisClient

SERVERS = {path.name: path for path in shipped_servers()}
TIMEOUT = 5.0


class Store:
    """A client, a channel of its own in the store, and what tests make there."""

    def __init__(self, client: Any, server: RedisServer | None) -> None:
        self.client = client
        self.server = server
        self.keys = Keys("test-" + uuid.uuid4().hex[:12])
        self._links: list[Link] = []
        self._calls: list[Calls] = []

    def link(self, timeout: float = TIMEOUT) -> Link:
        link = Link(self.client, timeout)
        self._links.append(link)
        return link

    def calls(self, timeout: float = TIMEOUT) -> Calls:
        calls = Calls(self.link(timeout))
        self._calls.append(calls)
        return calls

    def log(self, retention: int = 60_000, max_length: int = 0, publish_timeout: float = TIMEOUT) -> Log:
        return Log(self.keys, self.link, retention, max_length, publish_timeout, logging.getLogger("test.log"))

    def sessions(
        self, node: str = "A", *, max_disconnection: int = 60_000, ttl: int = 60_000, lease: int = 60_000
    ) -> Sessions:
        return Sessions(self.calls(), self.keys, node, max_disconnection, ttl, lease, TIMEOUT)

    async def entries(self) -> list[tuple[bytes, list[bytes]]]:
        """What the stream holds, oldest first."""
        items = await self.link().call("XRANGE", self.keys.log, "-", "+")
        return [(item[0], item[1]) for item in items]

    async def heads(self) -> list[str]:
        """The heads in the stream, but for those that begin an epoch."""
        heads = [fields[3].decode() for _, fields in await self.entries()]
        return [head for head in heads if head != '["epoch"]']

    async def numbers(self) -> list[int]:
        return [int(id.partition(b"-")[2]) for id, _ in await self.entries()]

    async def record(self, sid: str) -> dict[bytes, bytes]:
        record: dict[bytes, bytes] = await self.client.hgetall(self.keys.session(sid))
        return record

    async def now(self) -> int:
        """The store's own time, ms since 1970."""
        seconds, microseconds = await self.link().call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def until(self, ms: int) -> None:
        """Waits until the store's own time is later than ``ms``."""
        while await self.now() <= ms:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        for calls in self._calls:
            await calls.close()
        for link in self._links:
            await link.close()


def event(name: str, *attachments: bytes) -> Append:
    """An event to everybody."""
    payload = Payload(JSON, f'["{name}"]'.encode(), attachments, 0)
    return Append(event_head("/", [], [], payload), payload_fields(payload))


@asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    """What runs for ever, running in the background."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition; an error if it does not come."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Follower:
    """What a node learns by following the log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.starts: list[tuple[Position, int, str]] = []
        self.entries: list[Entry] = []
        self.position: Position | None = None
        self._waiting: list[tuple[Position, Callable[[], None]]] = []

    def start(self, position: Position, ms: int, why: str) -> None:
        self.starts.append((position, ms, why))
        self.position = position
        self._release(self._waiting)

    def dispatch(self, entries: Sequence[Entry]) -> None:
        assert self.position is not None
        self.entries += entries
        self.position = Position(self.position.epoch, entries[-1].n)
        self._release([waiting for waiting in self._waiting if waiting[0] <= self.position])

    def _release(self, some: list[tuple[Position, Callable[[], None]]]) -> None:
        for waiting in list(some):
            self._waiting.remove(waiting)
            waiting[1]()

    def when(self, position: Position, done: Callable[[], None]) -> None:
        """As the delivery's: for :attr:`Log.when_dispatched`."""
        if self.position is not None and self.position >= position:
            done()
        else:
            self._waiting.append((position, done))

    def run(self) -> Awaitable[None]:
        return self.log.follow(self.start, self.dispatch)

    @property
    def numbers(self) -> list[int]:
        return [entry.n for entry in self.entries]

    @property
    def reasons(self) -> list[str]:
        return [why for _, _, why in self.starts]


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], RedisServer]]:
    """The real servers, each started when it is first asked for."""
    started: dict[str, RedisServer] = {}

    def get(name: str) -> RedisServer:
        if name not in started:
            started[name] = RedisServer(SERVERS[name])
        return started[name]

    yield get
    for server in started.values():
        server.stop()


@asynccontextmanager
async def opened(name: str, servers: Callable[[str], RedisServer]) -> AsyncIterator[Store]:
    """A store by its name: ``simulation``, ``fakeredis``, or a real server."""
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
    store = Store(client, server)
    yield store
    await store.close()
    await client.aclose()


@pytest.fixture(params=["simulation", "fakeredis", *SERVERS])
async def store(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> AsyncIterator[Store]:
    """Each store in turn."""
    async with opened(request.param, servers) as store:
        yield store


@pytest.fixture(params=list(SERVERS))
async def real(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> AsyncIterator[Store]:
    """Each real server in turn."""
    async with opened(request.param, servers) as store:
        yield store
