"""Several partitions: each namespace has a log of its own, on one server or on several of a Redis Cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio
import socketio
from socketio_recovery import AsyncRedisStreamsManager, OtherPartitions, RedisStreamsManager
from socketio_recovery.aio.log import Log
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.redis.keys import Keys, partition_of

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import raw
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import until

#: With four partitions, "/" belongs to the first and "/other" to the second.
SHARDS: Any = {"shards": 4}
BOTH = ["/", "/other"]
SHORT: Any = {**SHARDS, "max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}


@pytest.fixture
async def database(redis_server: RedisServer) -> AsyncIterator[Any]:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that a test may wipe."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
async def redis_cluster() -> AsyncIterator[RedisCluster]:
    # without replicas: a server that is off the processor for a moment has no other take its place
    async with RedisCluster(options=("--cluster-node-timeout", "20000"), replicas=False) as cluster:
        yield cluster


def serving(manager: AsyncRedisStreamsManager) -> AsyncRedisStreamsManager:
    """Gives the manager to a server."""
    socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    return manager


Make = Callable[..., AsyncRedisStreamsManager]


@pytest.fixture
async def make(redis_server: RedisServer, channel: str) -> AsyncIterator[Make]:
    """Makes managers of one cluster, and closes them."""
    made = []

    def make(url: str = redis_server.url, **options: Any) -> AsyncRedisStreamsManager:
        made.append(AsyncRedisStreamsManager(url, channel, **options))
        return made[-1]

    yield make
    for manager in made:
        await manager.close()


def begun(manager: AsyncRedisStreamsManager) -> list[int]:
    """The partitions that a node follows."""
    assert manager.node is not None
    return [shard.place.keys.partition for shard in manager.node.shards.begun]


def sid(client: JsClient, namespace: str) -> str:
    return str(client.connects(namespace)[-1]["sid"])


async def recovers_in_both(a: NodeProcess, b: NodeProcess, clients: JsClients) -> None:
    """A client of two namespaces loses its node, and has both sessions again on another one."""
    client = await clients.open(a, options=WEBSOCKET, namespaces=BOTH)
    sids = [sid(client, namespace) for namespace in BOTH]
    for namespace in BOTH:
        await client.call("join", "room", nsp=namespace)
        await a.emit("before", namespace, to="room", namespace=namespace)
        await client.received(1, namespace)
    await client.move(b)
    a.kill()
    for number in range(20):
        for namespace in BOTH:
            await b.emit("missed", number, to="room", namespace=namespace)
    for namespace, before in zip(BOTH, sids, strict=True):
        again = await client.connected(2, namespace)
        assert (again["recovered"], again["sid"]) == (True, before)
        expected = [("before", namespace), *(("missed", number) for number in range(20))]
        assert await client.received(21, namespace) == expected


async def test_a_client_of_namespaces_in_different_partitions_recovers_in_both(
    start_node: StartNode, clients: JsClients, channel: str, database: Any
) -> None:
    a, b = await start_node(manager=SHARDS), await start_node(manager=SHARDS)
    await recovers_in_both(a, b, clients)
    lengths = [await database.xlen(Keys(channel, number).log) for number in range(4)]
    assert [length > 20 for length in lengths] == [True, True, False, False]


async def test_partitions_on_several_servers_of_a_cluster(
    start_node: StartNode, clients: JsClients, channel: str, redis_cluster: RedisCluster
) -> None:
    a, b = [await start_node(manager=SHARDS, redis=redis_cluster.url) for _ in "ab"]
    masters = [await redis_cluster.master_of(Keys(channel, number).log) for number in range(2)]
    await recovers_in_both(a, b, clients)
    for number, master in enumerate(masters):
        async with redis.asyncio.Redis(port=master.port) as client:
            assert await client.xlen(Keys(channel, number).log) > 20


async def test_synchronous_and_asyncio_nodes_with_the_same_partitions(
    start_node: StartNode, clients: JsClients
) -> None:
    a = await start_node(manager=SHARDS, server_kind="threading")
    b = await start_node(manager=SHARDS, server_kind="aiohttp")
    await recovers_in_both(a, b, clients)


async def test_a_lost_partition_does_not_concern_the_others(
    start_node: StartNode, clients: JsClients, channel: str, database: Any
) -> None:
    node = await start_node(manager=SHARDS)
    client = await clients.open(node, options=WEBSOCKET, namespaces=["/"])
    other = await clients.open(node, options=WEBSOCKET, namespaces=["/other"])
    await database.delete(*[key async for key in database.scan_iter("{" + channel + "#1}*")])
    again = await other.connected(2, "/other")
    assert again["recovered"] is False
    await node.emit("e", 1, namespace="/other")
    await node.emit("e", 2)
    assert await other.received(1, "/other") == [("e", 1)]
    assert await client.received(1) == [("e", 2)]
    assert len(client.connects()) == 1


async def test_rooms_participants_and_operations_of_each_namespace(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(manager=SHARDS), await start_node(manager=SHARDS)
    client = await clients.open(a, options=WEBSOCKET, namespaces=BOTH)
    for namespace in BOTH:
        assert await b.do(("sockets_join", ["red"], {"namespace": namespace}), on="manager") == [1]
        (found,) = (await b.do(("participants", ["red"], {"namespace": namespace}), on="manager"))[0]
        assert found[0] == sid(client, namespace)
    await b.do(("disconnect_sockets", [], {"namespace": "/other"}), on="manager")
    await until(lambda: client.of("disconnect", "/other"))
    assert len((await b.do(("participants", [], {}), on="manager"))[0]) == 1
    assert len((await b.do(("participants", [], {"namespace": "/other"}), on="manager"))[0]) == 0


async def test_handlers_of_a_dead_nodes_clients_run_on_a_node_that_did_not_follow_their_partition(
    start_node: StartNode, clients: JsClients
) -> None:
    pings = {"ping_interval": 1, "ping_timeout": 2}
    a, b = await start_node(manager=SHORT, server=pings), await start_node(manager=SHORT, server=pings)
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False}, namespaces=["/other"])
    a.kill()

    async def seen() -> list[Any]:
        return [entry for entry in (await b.look())["seen"] if entry["what"] == "disconnect"]

    (entry,) = await until(seen)
    assert (entry["sid"], entry["reason"]) == (sid(client, "/other"), "node lost")


# -- which partitions a process follows, and how many there are -------------------------------------------


async def test_a_node_follows_the_first_partition_and_those_that_it_uses(make: Make) -> None:
    manager = serving(make(**SHARDS))
    await manager.start()
    assert begun(manager) == [0]
    await manager.emit("e", None, namespace="/other")
    assert begun(manager) == [0, 1]
    await manager.emit("e", None, namespace="/")
    assert begun(manager) == [0, 1]
    await until(lambda: manager.healthy)


async def test_a_node_follows_a_partition_in_which_it_watches_participants(make: Make) -> None:
    before, after = serving(make(**SHARDS)), serving(make(**SHARDS))
    before.on_participants(namespace="/other", observer=lambda change, participant: None)
    await before.start()
    assert begun(before) == [0, 1]
    await after.start()
    after.on_participants(namespace="/other", observer=lambda change, participant: None)
    await until(lambda: begun(after) == [0, 1])


async def test_another_number_of_partitions_is_an_error(make: Make) -> None:
    await serving(make(shards=4)).start()
    node = serving(make(shards=3))
    with pytest.raises(OtherPartitions, match=r"cluster has shards=4.*this process has shards=3"):
        await node.start()
    assert any("shards=4" in why for why in node.unhealthy_reasons)
    for namespace in BOTH:  # whichever partition it would be
        with pytest.raises(OtherPartitions):
            await make(shards=1, write_only=True).emit("e", None, namespace=namespace)
        with pytest.raises(OtherPartitions):
            await make(shards=5, write_only=True).emit("e", None, namespace=namespace)
    with pytest.raises(OtherPartitions):
        async with make(shards=2, write_only=True):
            pass
    synchronous = RedisStreamsManager(node._url, node.channel, write_only=True, shards=2)
    try:
        with pytest.raises(OtherPartitions):
            await asyncio.to_thread(synchronous.emit, "e", None)
    finally:
        await asyncio.to_thread(synchronous.close)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (4, 2)])
async def test_the_number_of_partitions_is_changed(
    start_node: StartNode, clients: JsClients, make: Make, before: int, after: int
) -> None:
    """A client that comes back gets a new session, and knows why. A node that was forgotten says so."""
    a, forgotten = await start_node(manager={"shards": before}), await start_node(manager={"shards": before})
    client = await clients.open(a, options=WEBSOCKET, namespaces=BOTH)
    left = await clients.open(forgotten, options=WEBSOCKET, namespaces=BOTH)
    await asyncio.to_thread(a.terminate)
    await make(shards=after, write_only=True).change_shards()
    b = await start_node(manager={"shards": after})
    await client.move(b)
    for namespace in BOTH:
        again = await client.connected(2, namespace)
        assert again["recovered"] is False
        reason = (await client.state(namespace))["reason"]
        same = partition_of(namespace, before) == partition_of(namespace, after)
        assert reason == ("epoch" if same else "unknown")
        await b.emit("e", 1, namespace=namespace)
        assert await client.received(1, namespace) == [("e", 1)]
    await until(lambda: left.of("disconnect"))

    async def unhealthy() -> bool:
        return any(f"shards={after}" in why for why in (await forgotten.look())["unhealthy"])

    await until(unhealthy, forgotten.log)


async def test_a_node_with_another_number_takes_nobody_in(
    start_node: StartNode, clients: JsClients, make: Make
) -> None:
    """Its clients would get nothing."""
    a = await start_node(manager=SHARDS)
    client = await clients.open(a, options=WEBSOCKET)
    await make(shards=2, write_only=True).change_shards()
    await until(lambda: client.of("disconnect"))

    async def unhealthy() -> bool:
        return not (await a.look())["healthy"]

    await until(unhealthy)
    async with raw(a) as again:
        await again.send("40")
        assert await again.read() in ("<CLOSE>", "<CLOSED>")
    b = await start_node(manager={"shards": 2})
    await client.move(b)
    await client.connected(2)
    await b.emit("e", 1)
    assert await client.received(1) == [("e", 1)]


async def test_a_process_that_only_writes_notices_at_its_next_event(make: Make) -> None:
    writer = make(shards=4, write_only=True)
    for namespace in BOTH:
        await writer.emit("e", 1, namespace=namespace)
    await make(shards=3, write_only=True).change_shards()
    for namespace in BOTH:
        with pytest.raises(OtherPartitions):
            await writer.emit("e", 2, namespace=namespace)
        with pytest.raises(OtherPartitions):
            await writer.participants(namespace=namespace)
    await make(shards=4, write_only=True).change_shards()
    for namespace in BOTH:
        await writer.emit("e", 3, namespace=namespace)


async def test_who_is_refused_does_not_win_when_redis_is_wiped(own_redis: RedisServer, make: Make) -> None:
    good, bad = (serving(make(url=own_redis.url, shards=shards)) for shards in (4, 3))
    await good.start()
    with pytest.raises(OtherPartitions):
        await bad.start()
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.flushall()
        await until(lambda: client.hget(Keys(good.channel).meta, "shards"))
        assert await client.hget(Keys(good.channel).meta, "shards") == b"4"
    await until(lambda: good.healthy, lambda: good.unhealthy_reasons)
    assert not bad.healthy


async def test_a_log_that_does_not_say_it_has_one_partition(make: Make, database: Any, channel: str) -> None:
    """As those of versions before this."""
    await database.hset(Keys(channel).meta, mapping={"epoch": 7, "n": 3, "ms": 9})
    with pytest.raises(OtherPartitions, match="cluster has shards=1"):
        await make(shards=2, write_only=True).start()
    await make(write_only=True).start()


async def test_a_change_that_failed_midway_is_made_again(
    make: Make, database: Any, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(shards=4, write_only=True).emit("e", 1)
    first = make(shards=2, write_only=True)
    divide = Log.divide
    done: list[Log] = []

    async def fails(log: Log) -> None:
        if done:
            raise RedisUnavailable("gone")
        done.append(log)
        await divide(log)

    monkeypatch.setattr(Log, "divide", fails)
    with pytest.raises(RedisUnavailable):
        await first.change_shards()
    monkeypatch.undo()
    await make(shards=2, write_only=True).change_shards()
    assert [await database.hget(Keys(channel, number).meta, "shards") for number in range(4)] == [b"2"] * 4


async def test_close_ends_all_tasks_of_partitions_that_begin_late(make: Make) -> None:
    manager = serving(make(**SHARDS))
    await manager.start()
    manager.on_participants(namespace="/other", observer=lambda change, participant: None)
    await manager.close()
    await asyncio.sleep(0.05)
    assert [task.get_name() for task in asyncio.all_tasks() if "socketio_recovery" in task.get_name()] == []


async def test_an_event_in_the_inbox_of_another_partition_is_set_aside(
    start_node: StartNode, clients: JsClients, channel: str, database: Any
) -> None:
    node = await start_node(manager=SHARDS)
    client = await clients.open(node, options=WEBSOCKET, namespaces=BOTH)
    await database.xadd(Keys(channel, 1).inbox, {"event": "right", "namespace": "/other"})
    assert await client.received(1, "/other") == [("right",)]
    await database.xadd(Keys(channel, 0).inbox, {"event": "wrong", "namespace": "/other"})
    ((_, fields),) = await until(lambda: database.xrange(Keys(channel, 0).rejected))
    assert b"belongs to partition 1" in fields[b"reason"]


async def test_the_command_line(
    start_node: StartNode, clients: JsClients, channel: str, redis_server: RedisServer
) -> None:
    node = await start_node(manager=SHARDS)
    client = await clients.open(node, options=WEBSOCKET, namespaces=BOTH)

    async def run(command: str, *words: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "socketio_recovery", command, *words),
            *("--url", redis_server.url, "--channel", channel),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    assert (await run("emit", "tick", "1", "--namespace", "/other"))[0] == 0
    assert await client.received(1, "/other") == [("tick", 1)]
    code, out, err = await run("participants")
    assert (code, sid(client, "/") in out, err) == (0, True, "")
    assert sid(client, "/other") in (await run("participants", "--namespace", "/other"))[1]
    assert sid(client, "/other") in (await run("sessions", "--partition", "1"))[1]
    assert sid(client, "/other") in (await run("sessions", "--namespace", "/other"))[1]
    assert "different partitions" in (await run("sessions", "--namespace", "/other", "--namespace", "/"))[2]
    code, out, err = await run("stats")
    assert (code, "partition 0" in err) == (0, True)
    assert "was never used" in (await run("stats", "--partition", "3"))[2]
    assert "there is no partition 4" in (await run("stats", "--partition", "4"))[2]


@pytest.mark.parametrize("shards", [0, -1])
def test_a_number_that_can_not_be(shards: int) -> None:
    with pytest.raises(ValueError, match="shards must be at least 1"):
        AsyncRedisStreamsManager(shards=shards)


def test_several_partitions_and_the_pubsub_bridge_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="shards=1"):
        AsyncRedisStreamsManager(shards=2, pubsub_bridge=True)
