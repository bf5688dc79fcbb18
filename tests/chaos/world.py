"""The cluster under test: a Redis server, nodes, official clients, and a log reader that is not the library's own."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import redis.asyncio
import redis.exceptions
from redis.asyncio.sentinel import Sentinel
from socketio_recovery.aio.tasks import cancelled
from socketio_recovery.entries import EVENT, Entry, Offset, parse_entry
from socketio_recovery.redis.keys import Keys

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients
from tests.support.node_process import NodeProcess
from tests.support.proxy import Proxy
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_sentinels import PASSWORD, SERVICE, RedisSentinels
from tests.support.waiting import until

from . import history
from .check import lineages_of
from .history import Connected, FaultMark, Logged, Lost, Received, ReportedState

CHANNEL = "chaos"
LOG = Keys(CHANNEL).log
#: How many seconds the cluster may take to become healthy again after the faults.
PATIENCE = 60.0
#: How many entries the log reader reads at once: they may be large.
READ_COUNT = 300
#: Rooms that clients stay in; rooms that they are moved between.
ROOMS = ("r0", "r1", "r2")
MOVING = ("m0", "m1", "m2")
#: Options of the manager and of the server, unless a scenario sets others.
MANAGER: dict[str, Any] = {
    "max_disconnection_duration": 60,
    "heartbeat_interval": 1,
    "publish_timeout": 3,
    "handshake_timeout": 3,
}
SERVER: dict[str, Any] = {"ping_interval": 2, "ping_timeout": 3}


@dataclass
class Setup:
    """How a scenario's cluster differs from the usual one.

    :param manager: options of the manager.
    :param server: options of the server.
    :param redis: command-line options of the Redis servers.
    :param redis_kind: what Redis is: one server, a cluster of six, or a master with replicas and Sentinels.
    :param proxied: clients reach the nodes through proxies.
    :param redis_proxied: nodes reach Redis through proxies, each through its own.
    :param redis_bandwidth: how many bytes per second get through each of these in each direction; ``None`` for no
        limit.
    :param clocks: how wrong the nodes' wall clocks are, in seconds.
    :param pinned: every other client knows one node only, as behind a sticky load balancer.
    """

    manager: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    redis: tuple[str, ...] = ()
    redis_kind: Literal["server", "cluster", "sentinels"] = "server"
    proxied: bool = False
    redis_proxied: bool = False
    redis_bandwidth: float | None = None
    clocks: Sequence[float] = ()
    pinned: bool = False


class World:
    """Everything that runs. It runs while its ``async with`` block runs.

    :param seed: decides all that is random here: which node, which client, when.
    :param duration: for how many seconds faults go on; there is at least one round of them.
    :param clients: how many clients there are, besides the witnesses.
    :param nodes: how many nodes there are, besides the one without faults that the witnesses are on.
    :param server: what serves the nodes.
    """

    def __init__(
        self, setup: Setup, seed: int, duration: float, clients: int, nodes: int, server: str = "aiohttp"
    ) -> None:
        self.setup = setup
        self.server = server
        self.seed = seed
        self.duration = duration
        self.count = clients
        self.rng = random.Random(seed)
        self.marks: list[FaultMark] = []
        self.losses: list[tuple[float, float]] = []
        self.began = time.time()
        self.names = [f"n{i}" for i in range(nodes)]
        self.max_disconnection: float = self._manager()["max_disconnection_duration"]

    def _manager(self) -> dict[str, Any]:
        return {"channel": CHANNEL, **MANAGER, **self.setup.manager}

    async def __aenter__(self) -> World:
        #: What serves the log: one of these, as the scenario's setup says.
        self.redis: RedisServer
        self.cluster: RedisCluster
        self.sentinels: RedisSentinels
        self.clients = JsClients()
        self.nodes: list[NodeProcess] = []
        self.proxies: dict[str, Proxy] = {}  # node -> the proxy in front of it
        self.redis_proxies: dict[str, Proxy] = {}  # node -> the proxy between it and Redis
        async with AsyncExitStack() as stack:
            if self.setup.redis_kind == "cluster":
                self.cluster = await stack.enter_async_context(RedisCluster(options=self.setup.redis))
                self.redis_url = self.cluster.url
            elif self.setup.redis_kind == "sentinels":
                self.sentinels = await stack.enter_async_context(RedisSentinels(options=self.setup.redis))
                self.redis_url = self.sentinels.url
            else:
                self.redis = RedisServer(options=self.setup.redis, preexec=die_with_parent)
                stack.callback(self.redis.stop)
                self.redis_url = self.redis.url
            self.record = LogReader(self._client)
            try:
                await self._start()
            except BaseException:
                await self._stop()
                raise
            self._servers = stack.pop_all()
        return self

    async def _client(self) -> Any:
        """Makes a client of redis-py for what serves the log now."""
        if self.setup.redis_kind == "cluster":  # its client for clusters leaves connections open after a failover
            master = await self.cluster.master_of(LOG)
            return redis.asyncio.Redis(port=master.port, socket_timeout=5)
        if self.setup.redis_kind == "sentinels":
            places = [("127.0.0.1", sentinel.port) for sentinel in self.sentinels.sentinels]
            watched: Any = Sentinel(places, password=PASSWORD, socket_timeout=5)  # type: ignore[no-untyped-call]
            return watched.master_for(SERVICE)
        return redis.asyncio.Redis.from_url(self.redis.url, socket_timeout=5)

    async def __aexit__(self, *exc_info: object) -> None:
        async with self._servers:
            await self._stop()

    async def _start(self) -> None:
        self.record.start()
        config: dict[str, Any] = {
            "manager": self._manager(),
            "server": {**SERVER, **self.setup.server},
            "server_kind": self.server,
        }
        clocks = dict(zip(self.names, self.setup.clocks, strict=False))
        for name in self.names:
            url = self.redis_url
            if self.setup.redis_proxied:
                proxy = await self._proxy(self.redis_proxies, name, self.redis.port)
                proxy.bandwidth = self.setup.redis_bandwidth
                url = proxy.url
            clock = {"clock": clocks[name]} if name in clocks else {}
            self.nodes.append(NodeProcess(name, url, **config, **clock))
        self.steady = NodeProcess("steady", self.redis_url, **config)
        await asyncio.gather(*[node.start() for node in self.all_nodes], self.clients.start())
        for node in self.nodes:
            if self.setup.proxied:
                await self._proxy(self.proxies, node.name, node.port)
        urls = [self.url(node) for node in self.nodes]
        opening = []
        for i in range(self.count):
            first = i % len(urls)
            pinned = self.setup.pinned and i // len(urls) % 2
            transports = (WEBSOCKET, POLLING, {})[i % 3]
            rooms = [ROOMS[i % 3], MOVING[i % 2]]
            opening.append(self._open(f"c{i}", urls[first : first + 1] if pinned else urls, first, transports, rooms))
        for i, transports in enumerate((WEBSOCKET, POLLING)):
            opening.append(self._open(f"w{i}", [self.steady.url], 0, transports, [*ROOMS, *MOVING]))
        await asyncio.gather(*opening)
        self.began = time.time()

    async def _proxy(self, proxies: dict[str, Proxy], name: str, port: int) -> Proxy:
        proxies[name] = await Proxy(port).__aenter__()
        return proxies[name]

    async def _open(self, name: str, urls: list[str], first: int, options: dict[str, Any], rooms: list[str]) -> None:
        client = self.clients.by_name[name] = JsClient(self.clients, name)
        if len(urls) == 1:
            first = 0
        await client.run(
            "open",
            url=urls[first],
            urls=urls,
            auth={"name": name, "enter": rooms},
            options={"timeout": 2000, "reconnectionDelayMax": 300, **options},
            brief=True,
        )
        await client.connected(1)

    async def _stop(self) -> None:
        if getattr(self.clients, "_process", None) is not None:
            await self.clients.stop()
        await self.record.stop()
        for node in self.all_nodes:
            node.stop()
        for proxy in [*self.proxies.values(), *self.redis_proxies.values()]:
            await proxy.__aexit__()

    # -- who is there -------------------------------------------------------------------------------

    @property
    def all_nodes(self) -> list[NodeProcess]:
        return [*self.nodes, *([self.steady] if hasattr(self, "steady") else [])]

    @property
    def everybody(self) -> list[JsClient]:
        return list(self.clients.by_name.values())

    @property
    def subjects(self) -> list[JsClient]:
        """The clients that faults may hit: all but the witnesses."""
        return [client for client in self.everybody if not client.name.startswith("w")]

    def url(self, node: NodeProcess) -> str:
        """Returns the URL at which clients reach a node."""
        return f"http://127.0.0.1:{self.proxies[node.name].port}" if node.name in self.proxies else node.url

    def has(self, client: JsClient) -> bool:
        """Tells whether a client is connected, as far as it knows."""
        return next((r["what"] for r in client.reports[::-1] if r["what"] != "event"), None) == "connect"

    def connected(self) -> int:
        """Returns how many clients are connected."""
        return sum(map(self.has, self.everybody))

    def deliveries(self) -> int:
        """Returns how many events the clients have received in all."""
        return sum(report["what"] == "event" for client in self.everybody for report in client.reports)

    # -- faults -------------------------------------------------------------------------------------

    async def rounds(self) -> AsyncIterator[int]:
        """Counts rounds of faults until the duration is over; there is at least one."""
        number, end = 0, time.time() + self.duration
        while number == 0 or time.time() < end:
            yield number
            number += 1

    async def pause(self, least: float, most: float) -> None:
        """Waits for a random number of seconds, which the seed decides."""
        await asyncio.sleep(self.rng.uniform(least, most))

    @contextmanager
    def fault(self, text: str) -> Iterator[None]:
        """Notes when a fault began and ended: while the ``with`` block runs."""
        mark = FaultMark(text, time.time())
        self.marks.append(mark)
        try:
            yield
        finally:
            mark.end = time.time()

    @asynccontextmanager
    async def loss(self) -> AsyncIterator[None]:
        """The log loses entries in this block. It ends when all nodes follow the new log."""
        start, epoch = time.time(), self.record.epoch
        self.losses.append((start, float("inf")))
        yield
        await until(lambda: self.record.epoch > epoch, "a new epoch in the log", PATIENCE)
        await self.healthy()
        self.losses[-1] = (start, time.time())

    @asynccontextmanager
    async def may_lose(self) -> AsyncIterator[None]:
        """The log may lose entries in this block, as in each failover. It ends when all nodes are healthy."""
        start = time.time()
        self.losses.append((start, float("inf")))
        yield
        await self.healthy()
        self.losses[-1] = (start, time.time())

    async def healthy(self) -> None:
        """Waits until every node says that it is healthy."""

        async def all_healthy() -> bool:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    return all([(await node.look())["healthy"] for node in self.all_nodes])
            return False

        await until(all_healthy, lambda: "\n".join(node.log()[-1000:] for node in self.all_nodes), PATIENCE)

    def freeze(self, node: NodeProcess) -> None:
        """Stops a node's process by SIGSTOP; :meth:`thaw` lets it go on."""
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)

    def thaw(self, node: NodeProcess) -> None:
        assert node.process is not None
        node.process.send_signal(signal.SIGCONT)

    def signal_redis(self, number: signal.Signals) -> None:
        assert self.redis.process is not None
        self.redis.process.send_signal(number)

    # -- the end ------------------------------------------------------------------------------------

    async def finish(self, emit: Any) -> str:
        """Waits until the cluster is healthy and every client has received a last event to everybody.

        It is no error if some client does not receive it: the checker finds that.

        :returns: the id of that event.
        """
        await self.healthy()
        await until(lambda: self.connected() == len(self.everybody), self._absent, PATIENCE)
        id = await self.caught_up("end", emit)
        await until(lambda: any(entry.id == id for entry in self.record.entries[::-1]), "the end in the log", PATIENCE)
        return id

    async def caught_up(self, name: str, emit: Callable[[str], Awaitable[Any]]) -> str:
        """Emits events to everybody until every client has received one of them, or too much time has passed.

        :param name: what the ids of these events begin with.
        :param emit: emits an event with this id.
        :returns: the id of the last one.
        """
        end = time.time() + PATIENCE
        for turn in itertools.count():
            id = f"{name}.{turn}"
            await emit(id)
            with suppress(AssertionError):
                await until(partial(self._all_received, id), patience=PATIENCE / 12)
                break
            if time.time() > end:
                break
        return id

    def _absent(self) -> str:
        absent = [client for client in self.everybody if not self.has(client)]
        return f"not connected: {[(c.name, c.reports[-3:]) for c in absent]}"

    def _all_received(self, id: str) -> bool:
        return all(
            any(report["what"] == "event" and report["args"][0] == id for report in client.reports[-50:])
            for client in self.everybody
        )

    async def states(self) -> dict[str, ReportedState]:
        """Asks the server for the state of each client's session."""

        async def ask(client: JsClient) -> ReportedState | None:
            try:
                state = await client.state()
            except RuntimeError:
                return None
            rooms = frozenset(state["rooms"]) - {state["sid"]}
            return ReportedState(state["sid"], rooms, state["session"])

        found = await asyncio.gather(*[ask(client) for client in self.everybody])
        return {client.name: state for client, state in zip(self.everybody, found, strict=True) if state}

    def history_of(self, client: JsClient, state: ReportedState | None) -> history.ClientHistory:
        """Converts the reports of a client to the steps of its history."""
        steps: list[history.Step] = []
        for report in client.reports:
            at = report["at"] / 1000
            if report["what"] == "connect":
                steps.append(Connected(at, report["sid"], report["recovered"]))
            elif report["what"] == "disconnect":
                steps.append(Lost(at, report["reason"]))
            elif report["what"] == "event":
                id, *more = report["args"]
                offset = Offset.parse(more[-1] if more else None)
                reason = more[0]["reason"] if report["event"] == "hello" else None
                padding = more[0] if len(more) > 1 else ""
                size = padding.get("length", 0) if isinstance(padding, dict) else len(padding)
                steps.append(Received(at, id, offset.position if offset else (0, 0), reason, size))
        return history.ClientHistory(client.name, steps, client.name.startswith("w"), state)


class LogReader:
    """Reads the log from its beginning, on its own connection to Redis, and keeps every entry.

    On each new connection it begins anew: another server may have other entries in place of the last ones.

    :param client: makes a client of redis-py.
    """

    def __init__(self, client: Callable[[], Awaitable[Any]]) -> None:
        self._client = client
        self.entries: list[Logged] = []
        #: Entries that a server before this one had, and which this one is yet to show: its first ones.
        self._had: deque[Logged] = deque()
        self.epoch = 0
        self._id = "0-0"
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            await cancelled([self._task])

    async def _run(self) -> None:
        while True:
            try:
                client = await self._client()
            except AssertionError:  # no server says where the log is
                await asyncio.sleep(0.05)
                continue
            self._id = "0-0"
            self._had = deque(lineages_of(self.entries)[-1])
            try:
                while True:
                    await self._read(client)
            except (redis.exceptions.RedisError, OSError):
                await asyncio.sleep(0.05)
            finally:
                await client.aclose()
                watched = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
                for sentinel in getattr(watched, "sentinels", ()):
                    await sentinel.aclose()

    async def _read(self, client: Any) -> None:
        found = await client.xread({LOG: self._id}, count=READ_COUNT, block=500)
        if not found:
            return
        for id, fields in next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]:
            self._id = id.decode()
            flat = [part for pair in fields.items() for part in pair]
            ms, _, n = self._id.partition("-")
            self._keep(int(flat[1]), parse_entry(int(n), int(ms), flat[2:]))

    def _keep(self, epoch: int, entry: Entry) -> None:
        id = ""
        if entry.kind == EVENT:
            assert entry.payload is not None
            id = json.loads(entry.payload.data)[1]
        rooms = tuple(room for room in entry.rooms if room is not None)
        logged = Logged(
            *(epoch, entry.n, entry.ms / 1000, entry.kind, id, rooms, tuple(entry.skip)),
            *(entry.sid, entry.room, entry.volatile),
        )
        while self._had and (self._had[0].epoch, self._had[0].n) < (epoch, entry.n):
            self._had.popleft()  # trimmed meanwhile
        if self._had and self._had[0] == logged:
            self._had.popleft()
            return
        self._had.clear()
        self.epoch = epoch
        self.entries.append(logged)
