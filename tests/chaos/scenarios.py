"""The faults, by name. Each function is one scenario: it breaks things for a while, and then mends them."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import redis.asyncio
import redis.exceptions

from local.redis_server import RedisServer
from tests.support.js_clients import JsClient
from tests.support.node_process import NodeProcess
from tests.support.proxy import Proxy
from tests.support.redis_cluster import FAILS_OVER
from tests.support.redis_commands import run, send
from tests.support.waiting import until

from .emitters import Emitters
from .history import Fate
from .world import LOG, PATIENCE, ROOMS, Setup, World

Faults = Callable[[World, Emitters], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A kind of fault.

    :param faults: makes the faults happen, in rounds.
    :param setup: how the cluster is set up for them.
    """

    name: str
    faults: Faults
    setup: Setup

    @property
    def text(self) -> str:
        """Returns a line that says what happens: the first line of the function's docstring."""
        return (self.faults.__doc__ or "").strip().splitlines()[0]


#: All scenarios: name -> scenario.
SCENARIOS: dict[str, Scenario] = {}

#: Sessions expire within seconds, and the log is trimmed soon after.
HASTY = Setup(
    manager={"max_disconnection_duration": 1, "heartbeat_interval": 0.2},
    server={"ping_interval": 0.5, "ping_timeout": 0.8},
    redis=("--stream-node-max-entries", "10"),
)


def scenario(setup: Setup = Setup()) -> Callable[[Faults], Faults]:  # noqa: B008
    def add(faults: Faults) -> Faults:
        name = faults.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, faults, setup)
        return faults

    return add


async def _cut(world: World, clients: list[JsClient]) -> None:
    await asyncio.gather(*[client.run("cut") for client in clients])


@asynccontextmanager
async def _away(clients: list[JsClient]) -> AsyncIterator[None]:
    """Cuts these clients; they reach no node in this block."""
    await asyncio.gather(*[client.run("away") for client in clients])
    try:
        yield
    finally:
        await asyncio.gather(*[client.run("back") for client in clients])


def _some(world: World) -> list[JsClient]:
    """Returns about half of the clients, at random."""
    return world.rng.sample(world.subjects, max(1, len(world.subjects) // 2))


# -- nodes ------------------------------------------------------------------------------------------


@scenario()
async def kill_nine(world: World, emitters: Emitters) -> None:
    """Random nodes get SIGKILL, one or two at a time, and are started again."""
    async for _ in world.rounds():
        nodes = world.rng.sample(world.nodes, world.rng.choice((1, 1, min(2, len(world.nodes)))))
        with world.fault("kill " + " ".join(node.name for node in nodes)):
            for node in nodes:
                node.kill()
            await world.pause(0.2, 1.0)
            await asyncio.gather(*[node.start() for node in nodes])
        await world.pause(0.3, 1.0)


@scenario()
async def rolling_restart(world: World, emitters: Emitters) -> None:
    """Each node in turn gets SIGTERM: it drains, ends, and is started again."""
    async for number in world.rounds():
        node = world.nodes[number % len(world.nodes)]
        with world.fault(f"restart {node.name}"):
            await asyncio.to_thread(node.terminate)
            await node.start()
        await world.pause(0.3, 1.0)


@scenario()
async def all_nodes_at_once(world: World, emitters: Emitters) -> None:
    """Every node gets SIGKILL, the witnesses' too, and all are started again."""
    async for _ in world.rounds():
        with world.fault("kill all"):
            for node in world.all_nodes:
                node.kill()
            await world.pause(0.2, 1.0)
            await asyncio.gather(*[node.start() for node in world.all_nodes])
        await world.pause(0.5, 1.5)


@scenario()
async def node_frozen(world: World, emitters: Emitters) -> None:
    """A node gets SIGSTOP, and SIGCONT a moment later or when its clients have left."""
    async for _ in world.rounds():
        node = world.rng.choice(world.nodes)
        with world.fault(f"freeze {node.name}"):
            world.freeze(node)
            try:
                await world.pause(*world.rng.choice(((0.2, 1.0), (5.5, 6.5))))
            finally:
                world.thaw(node)
        await world.pause(0.5, 1.5)


@scenario(
    Setup(manager=HASTY.manager, server=HASTY.server, redis=HASTY.redis, pinned=True),
)
async def node_frozen_past_retention(world: World, emitters: Emitters) -> None:
    """A node gets SIGSTOP until the log is trimmed past it; half of its clients know no other node."""
    retention = 1 + 2 * (0.5 + 2 * 0.8 + 2 * 0.2)
    async for _ in world.rounds():
        node = world.rng.choice(world.nodes)
        with world.fault(f"freeze {node.name}"):
            world.freeze(node)
            try:
                await world.pause(retention + 0.5, retention + 1)
            finally:
                world.thaw(node)
        await world.healthy()
        await world.pause(0.5, 1.5)


@scenario(Setup(clocks=(600.0, -600.0, 86400.0)))
async def clock_skew(world: World, emitters: Emitters) -> None:
    """The nodes' wall clocks differ by minutes, and jump; connections are cut, and nodes killed."""
    async for _ in world.rounds():
        node = world.rng.choice(world.nodes)
        seconds = world.rng.choice((-600, -60, 60, 600))
        with world.fault(f"clock of {node.name} {seconds:+d} s"):
            await emitters.post(node, f"/clock?shift={seconds}")
            await _cut(world, _some(world))
            await world.pause(0.3, 1.0)
        with world.fault(f"kill {node.name}"):
            node.kill()
            await node.start()
        await world.pause(0.3, 1.0)


# -- connections ------------------------------------------------------------------------------------


@scenario(Setup(proxied=True))
async def half_open(world: World, emitters: Emitters) -> None:
    """Connections go silent without an end; some clients are back at once, some when they miss pings."""
    async for _ in world.rounds():
        node = world.rng.choice(world.nodes)
        with world.fault(f"silence {node.name}"):
            world.proxies[node.name].silence()
            await world.pause(0.0, 0.3)
            await _cut(world, _some(world))
            await world.pause(0.5, 2.0)
        await world.pause(0.3, 1.0)


@scenario(Setup(proxied=True))
async def reconnect_storm(world: World, emitters: Emitters) -> None:
    """All clients are cut at once, again and again, some while they are still reconnecting."""
    async for _ in world.rounds():
        with world.fault("cut all"):
            for proxy in world.proxies.values():
                await proxy.cut()
            if world.rng.random() < 0.5:
                await world.pause(0.02, 0.3)
                for proxy in world.proxies.values():
                    await proxy.cut()
        await world.pause(0.2, 1.5)


# What the clients miss in these scenarios does not fit into the nodes' memory, because ``window_bytes`` is small.


@scenario(Setup(manager={"max_queue": 30, "window_bytes": 1 << 20}, server={"ping_timeout": 20}))
async def slow_clients(world: World, emitters: Emitters) -> None:
    """Clients stop reading from their sockets until their nodes let go of them, or for a moment, and read on."""

    def level(number: int) -> Callable[[str], Awaitable[Fate]]:
        return lambda id: emitters.emit(id, f"level.{number}", emitters.outside)

    async for number in world.rounds():
        if number % 2 == 0:
            # Who stops reading while it catches up is sent no more than a slice: there is nothing to let go of.
            await world.caught_up(f"level.{number}", level(number))
        clients = [client for client in _some(world) if await client.run("pause")]
        with world.fault(f"{len(clients)} stop reading"):
            try:
                if number % 2 == 0:
                    await _flood(world, emitters, number, [client for client in clients if world.has(client)])
                else:
                    await world.pause(0.2, 1.0)
            finally:
                await asyncio.gather(*[client.run("resume") for client in clients])
        await world.pause(0.3, 1.0)


async def _flood(world: World, emitters: Emitters, number: int, clients: list[JsClient]) -> None:
    """Emits large events until no node holds on to any of these connections, and 1.5 MB more for them to miss."""
    turns = itertools.count()
    drops = {client: len(client.of("disconnect")) for client in clients}

    async def ten() -> None:
        for _ in range(10):
            padding = world.rng.randbytes(25_000).hex()  # random, because WebSockets compress repeated data
            await emitters.emit(f"bulk.{number}.{next(turns)}", "bulk", emitters.outside, ROOMS, (), padding)

    async def let_go() -> bool:
        await ten()
        # A client whose connection was reset knows it though it does not read, and may be back by now.
        stay = [client for client in clients if len(client.of("disconnect")) == drops[client]]
        return not await emitters.held({client.connects()[-1]["sid"] for client in stay})

    await until(let_go, "clients that don't read are let go", PATIENCE)
    for _ in range(3):
        await ten()


@scenario(Setup(manager={"window_bytes": 8 << 20}, server={"ping_timeout": 20}))
async def large_payloads(world: World, emitters: Emitters) -> None:
    """Clients are cut while events of 50 to 400 kB arrive, and are away for more of them; a node gets SIGKILL."""
    numbers = itertools.count()
    async for _ in world.rounds():
        clients, node = _some(world), world.rng.choice(world.nodes)
        with world.fault(f"cut {len(clients)}, kill {node.name}"):
            await asyncio.gather(_large(world, emitters, numbers, 2_000_000), _cut(world, _some(world)))
            async with _away(clients):
                node.kill()
                await asyncio.gather(_large(world, emitters, numbers, 12_000_000), node.start())
        await until(lambda: world.connected() == len(world.everybody), "all are back", PATIENCE)
        await world.pause(0.3, 1.0)


async def _large(world: World, emitters: Emitters, numbers: Iterator[int], total: int) -> None:
    """Emits events of 50 to 400 kB, every third of them binary, until they are ``total`` bytes.

    Two of three go to nobody: it takes many of them to fill the window, and few to keep the clients busy.
    """
    while total > 0:
        number, size = next(numbers), world.rng.randint(50_000, 400_000)
        data = world.rng.randbytes(size)  # random, because WebSockets compress repeated data
        padding = data if number % 3 == 0 else data[: size // 2].hex()
        rooms = (world.rng.choice((*ROOMS, *["nobody"] * 6)),)
        await emitters.emit(f"large.{number}", "large", emitters.outside, rooms, (), padding)
        total -= size


@scenario(Setup(manager={"window_bytes": 1 << 19}))
async def busy_cluster(world: World, emitters: Emitters) -> None:
    """While clients are away, thousands of events go to rooms that they are not in, as fast as emitters can."""
    count = 5_000 + round(2_000 * min(world.duration, 60))
    async with emitters.traffic() as emit:
        async for _ in world.rounds():
            clients = _some(world)
            with world.fault(f"{len(clients)} are away for {count} events"):
                async with _away(clients):
                    await emit(count)
            await until(lambda: world.connected() == len(world.everybody), "all are back", PATIENCE)
            await world.pause(0.3, 1.0)


# -- Redis ------------------------------------------------------------------------------------------


@scenario(Setup(redis=("--appendonly", "yes", "--appendfsync", "always")))
async def redis_restart(world: World, emitters: Emitters) -> None:
    """Redis, with appendonly and appendfsync always, gets SIGKILL and is started again; some clients are cut."""
    async for _ in world.rounds():
        with world.fault("restart Redis"):
            world.redis.kill()
            if world.rng.random() < 0.5:
                await _cut(world, _some(world))
            await world.pause(0.1, 1.5)
            world.redis.start()
            await world.healthy()
        await world.pause(0.5, 1.5)


@scenario()
async def redis_wiped(world: World, emitters: Emitters) -> None:
    """Redis, without persistence, gets SIGKILL and is started again, empty."""
    async for _ in world.rounds():
        with world.fault("wipe Redis"):
            async with world.loss():
                world.redis.kill()
                await world.pause(0.1, 1.0)
                world.redis.start()
        await world.pause(0.5, 1.5)


@scenario()
async def redis_lost_tail(world: World, emitters: Emitters) -> None:
    """Redis is set back to how it was a moment ago, as by a failover, or a power cut with appendfsync everysec."""
    async for _ in world.rounds():
        async with redis.asyncio.Redis.from_url(world.redis.url) as client:
            await client.save()
        await world.pause(0.5, 1.0)
        with world.fault("Redis loses its tail"):
            async with world.loss():
                world.redis.kill()
                if world.rng.random() < 0.5:
                    await _cut(world, _some(world))
                await world.pause(0.0, 0.5)
                world.redis.start()
        await world.pause(0.5, 1.5)


@scenario()
async def redis_pause(world: World, emitters: Emitters) -> None:
    """Redis gets SIGSTOP, for less or for more than publish_timeout; some clients are cut meanwhile."""
    async for _ in world.rounds():
        with world.fault("pause Redis"):
            world.signal_redis(signal.SIGSTOP)
            try:
                if world.rng.random() < 0.5:
                    await _cut(world, _some(world))
                await world.pause(*world.rng.choice(((0.2, 1.5), (0.2, 1.5), (3.2, 4.5))))
            finally:
                world.signal_redis(signal.SIGCONT)
            await world.healthy()
        await world.pause(0.5, 1.5)


@scenario(Setup(redis_proxied=True))
async def redis_link_cut(world: World, emitters: Emitters) -> None:
    """One node loses Redis, the others don't: its connections end, or go silent, or lose replies to appends."""
    async for number in world.rounds():
        node = world.rng.choice(world.nodes)
        proxy = world.redis_proxies[node.name]
        how = ("lose replies to", "cut", "silence")[number % 3]
        with world.fault(f"{how} {node.name}"):
            if how == "lose replies to":
                await _lose_replies(world, proxy)
            else:
                await _cut_link(world, proxy, how)
            await world.healthy()
        await world.pause(0.3, 1.0)


async def _cut_link(world: World, proxy: Proxy, how: str) -> None:
    """Cuts a node from Redis, for less or for more than ``publish_timeout``, and cuts some clients meanwhile."""
    proxy.open.clear()
    if how == "cut":
        await proxy.cut()
    else:
        proxy.silence()
    if world.rng.random() < 0.5:
        await _cut(world, _some(world))
    await world.pause(*world.rng.choice(((0.2, 1.5), (0.2, 1.5), (3.2, 4.5))))
    proxy.open.set()
    await proxy.cut()


async def _lose_replies(world: World, proxy: Proxy) -> None:
    """Makes Redis store what the node appends, while the reply is lost: the node has to ask again."""
    for _ in range(5):
        proxy.lose_reply_to = b":producer:"  # only appends have this key
        await until(lambda: proxy.lose_reply_to is None, "an append", PATIENCE)
        await world.pause(0.0, 0.3)


@scenario(Setup(redis_proxied=True, redis_bandwidth=4_000_000))
async def slow_link(world: World, emitters: Emitters) -> None:
    """Nodes reach Redis at 4 MB/s; 24 MB of events arrive at once, while one node is stopped by SIGSTOP."""
    numbers = itertools.count()
    async for _ in world.rounds():
        node = world.rng.choice(world.nodes)
        with world.fault(f"24 MB, freeze {node.name}"):
            world.freeze(node)
            try:
                await world.pause(0.2, 1.0)
                for number in itertools.islice(numbers, 120):
                    rooms = (world.rng.choice(ROOMS) if number % 10 == 0 else "nobody",)
                    padding = world.rng.randbytes(100_000).hex()
                    await emitters.emit(f"burst.{number}", "burst", emitters.outside, rooms, (), padding)
                await _cut(world, _some(world))
            finally:
                world.thaw(node)
            await world.healthy()
            # Their nodes have caught up. Without that, more would come than the link can ever take.
            await until(lambda: world.connected() == len(world.everybody), "all are back", PATIENCE)
        await world.pause(0.3, 1.0)


# -- Redis Cluster, and Sentinels -------------------------------------------------------------------


@scenario(Setup(redis_kind="cluster", redis=FAILS_OVER))
async def cluster_failover(world: World, emitters: Emitters) -> None:
    """In Redis Cluster, the master of the log's slot gets SIGKILL or SIGSTOP; a replica takes over, or is killed."""
    async for number in world.rounds():
        master = await world.cluster.master_of(LOG)
        replica = await world.cluster.replica_of(master)
        how = ("kill", "freeze", "kill both")[number % 3]
        with world.fault(f"{how} the master of the log's slot"):
            async with world.may_lose():
                if how == "freeze":
                    send(master, signal.SIGSTOP)
                else:
                    master.kill()
                if world.rng.random() < 0.5:
                    await _cut(world, _some(world))
                if how == "kill both":
                    replica.kill()
                    await world.pause(0.5, 2.0)
                    replica.start()
                await until(partial(_is_master, replica), "another master", PATIENCE)
                if how == "freeze":
                    await world.pause(0.0, 1.0)
                    send(master, signal.SIGCONT)
                else:
                    master.start()
                await world.cluster.whole()
        await world.pause(0.5, 1.5)


async def _is_master(server: RedisServer) -> bool:
    with suppress(OSError, redis.exceptions.RedisError):
        return bool((await run(server, "ROLE"))[0] == "master")
    return False


@scenario(Setup(redis_kind="cluster"))
async def cluster_slot_moves(world: World, emitters: Emitters) -> None:
    """In Redis Cluster, the log's slot moves to another master, key by key, under traffic; some clients are cut."""
    async for _ in world.rounds():
        with world.fault("move the log's slot"):
            await asyncio.gather(world.cluster.move_slot(LOG, 0.02), _cut(world, _some(world)))
            await world.healthy()
        await world.pause(0.5, 1.5)


@scenario(Setup(redis_kind="sentinels"))
async def sentinel_failover(world: World, emitters: Emitters) -> None:
    """The master gets SIGKILL or SIGSTOP, and Sentinels have a replica take over; some clients are cut."""
    async for number in world.rounds():
        master = await world.sentinels.master()
        with world.fault(("kill", "freeze")[number % 2] + " the master"):
            async with world.may_lose():
                if number % 2:
                    send(master, signal.SIGSTOP)
                else:
                    master.kill()
                if world.rng.random() < 0.5:
                    await _cut(world, _some(world))
                await world.sentinels.failed_over(master)
                if number % 2:
                    await world.pause(0.0, 1.0)
                    send(master, signal.SIGCONT)
                else:
                    master.start()
                await world.sentinels.whole()
        await world.pause(0.5, 1.5)


@scenario(Setup(redis_kind="sentinels"))
async def sentinel_partition(world: World, emitters: Emitters) -> None:
    """The Sentinels lose the master, which goes on, and have a replica take over; nodes and clients are on both.

    Some of the nodes' connections to the old master end, so that a node could have some to each.
    """
    async for _ in world.rounds():
        master = await world.sentinels.master()
        with world.fault("part the master from the Sentinels"):
            async with world.may_lose():
                await world.sentinels.cut_off(master)
                await world.sentinels.failed_over(master)
                await world.pause(0.0, 0.5)
                node = world.rng.choice(world.nodes)
                node.kill()  # it comes back to the new master; the others are still on the old one
                await _start(node)
                for _ in range(3):
                    await world.sentinels.end_some(master, lambda: world.rng.random() < 0.2)
                    await _cut(world, _some(world))
                    await world.pause(0.2, 0.7)
                await world.sentinels.join(master)
                await world.sentinels.whole()
        await world.pause(0.5, 1.5)


# -- and together -----------------------------------------------------------------------------------


@scenario(
    Setup(
        redis=("--appendonly", "yes", "--appendfsync", "always"),
        proxied=True,
        redis_proxied=True,
        clocks=(600.0, -600.0, 0.0),
    )
)
async def mixed(world: World, emitters: Emitters) -> None:
    """Several faults at once that lose nothing of the log: of nodes, of connections, of Redis."""
    async for _ in world.rounds():
        nodes = world.rng.sample(world.nodes, world.rng.randint(1, len(world.nodes)))
        await asyncio.gather(*[_node_fault(world, node) for node in nodes], _redis_fault(world), _cuts(world))
        await world.healthy()


async def _node_fault(world: World, node: NodeProcess) -> None:
    kind = world.rng.choice(("kill", "restart", "freeze", "silence", "cut from Redis", "silence to Redis"))
    with world.fault(f"{kind} {node.name}"):
        if kind == "kill":
            node.kill()
            await world.pause(0.0, 0.5)
            await _start(node)
        elif kind == "restart":
            await asyncio.to_thread(node.terminate)
            await _start(node)
        elif kind == "freeze":
            world.freeze(node)
            await world.pause(0.2, 2.0)
            world.thaw(node)
        elif kind == "silence":
            world.proxies[node.name].silence()
        else:
            await _cut_link(world, world.redis_proxies[node.name], kind.partition(" ")[0])


async def _start(node: NodeProcess) -> None:
    """Starts a node as often as it ends, as a supervisor does. It ends when it does not reach Redis in time."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            await node.start()
        except AssertionError:
            if node.running or time.monotonic() > end:
                raise
        else:
            return


async def _redis_fault(world: World) -> None:
    kind = world.rng.choice(("restart", "pause", "no"))
    if kind == "restart":
        with world.fault("restart Redis"):
            world.redis.kill()
            await world.pause(0.0, 0.5)
            world.redis.start()
    elif kind == "pause":
        with world.fault("pause Redis"):
            world.signal_redis(signal.SIGSTOP)
            await world.pause(0.2, 1.0)
            world.signal_redis(signal.SIGCONT)


async def _cuts(world: World) -> None:
    for _ in range(3):
        await world.pause(0.0, 1.0)
        await _cut(world, world.rng.sample(world.subjects, max(1, len(world.subjects) // 4)))
