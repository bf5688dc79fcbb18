"""Redis Cluster: six real servers, a slot that moves, a master that dies."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.cluster
import valkey.asyncio
import valkey.asyncio.cluster
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.aio.redis_client import client_for
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import ClusterServers, RedisServers, servers_of
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.redis.scripts import TAIL

from local.ports import free_port
from tests.store.channels import CLUSTER, SERVERS, opened
from tests.store.session_steps import created
from tests.support.appends import event
from tests.support.background import running
from tests.support.follower import Follower
from tests.support.paths import ROOT
from tests.support.redis_channel import RedisChannel
from tests.support.redis_cluster import FAILS_OVER, RedisCluster
from tests.support.redis_commands import clients_of, run
from tests.support.waiting import until


@pytest.fixture
async def channel(servers: Any, cluster: RedisCluster) -> AsyncIterator[RedisChannel]:
    """A channel on the cluster."""
    async with opened(CLUSTER, servers, cluster) as channel:
        yield channel


@pytest.fixture(params=list(SERVERS))
async def own(request: pytest.FixtureRequest) -> AsyncIterator[RedisCluster]:
    """A cluster for one test alone."""
    async with RedisCluster(SERVERS[request.param], FAILS_OVER) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("scheme", "cls", "tls"),
    [
        ("redis", redis.asyncio.RedisCluster, False),
        ("rediss", redis.asyncio.RedisCluster, True),
        ("valkey", valkey.asyncio.ValkeyCluster, False),
        ("valkeys", valkey.asyncio.ValkeyCluster, True),
    ],
)
def test_cluster_urls(scheme: str, cls: type, tls: bool) -> None:
    client: Any = client_for(f"{scheme}+cluster://user:s%40cret@one:7000,two:7001/0", {"client_name": "x"}, "s")
    assert [type(client)] == [cls]
    nodes = client.nodes_manager.startup_nodes.values()
    assert [(node.host, node.port) for node in nodes] == [("one", 7000), ("two", 7001)]
    expected = {"username": "user", "password": "s@cret", "client_name": "x"}
    for node in nodes:
        assert node.connection_kwargs.items() >= expected.items()
        assert ("SSL" in node.connection_class.__name__) == tls


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+cluster://one", "'one' is not host:port"),
        ("redis+cluster://one:7000,two", "'two' is not host:port"),
        ("redis+cluster://", "'' is not host:port"),
        ("redis+cluster://one:7000/1", "no databases"),
        ("redis+cluster://one:7000?client_name=x", "redis_options"),
    ],
)
def test_other_forms_of_cluster_urls_are_an_error(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client_for(url, {}, "s")


@pytest.mark.parametrize("channel", ["", "}x"])
def test_a_channel_whose_keys_would_not_be_in_one_slot_is_an_error(channel: str) -> None:
    with pytest.raises(ValueError, match="one slot"):
        AsyncRedisStreamsManager("redis+cluster://one:7000", channel)


def test_the_pubsub_bridge_can_not_be_used() -> None:
    with pytest.raises(ValueError, match="Redis Cluster"):
        AsyncRedisStreamsManager("redis+cluster://one:7000", pubsub_bridge=True)


def servers_for(cluster: RedisCluster, key: str) -> ClusterServers:
    """For a client that knows one server of the cluster, after one that is not there."""
    node = redis.asyncio.cluster.ClusterNode
    first = [node("127.0.0.1", free_port()), node("127.0.0.1", cluster.servers[3].port)]
    found = servers_of(redis.asyncio.RedisCluster(startup_nodes=first), key)
    assert isinstance(found, ClusterServers)
    return found


@pytest.mark.parametrize("key", ["a", "b", "c", "d", "e", "f"])
async def test_a_link_finds_the_master_of_its_slot(cluster: RedisCluster, key: str) -> None:
    await cluster.start()
    link = RedisLink(servers_for(cluster, key), 5)
    await link.call("SET", key, "1")
    assert await link.call("GET", key) == b"1"
    assert link.number == 1
    await link.close()


async def test_a_link_of_valkeys_client(cluster: RedisCluster) -> None:
    await cluster.start()
    # READONLY is not asked for: a master that becomes a replica must not go on answering.
    client = client_for(cluster.url.replace("redis", "valkey"), {"read_from_replicas": True}, "")
    link = RedisLink(servers_of(client, "k"), 5)
    await link.call("SET", "k", "1")
    server = next(s for s in cluster.servers if s.port == link._connection.port)
    assert ["r" in client["flags"] for client in await clients_of(server) if client["cmd"] == "set"] == [False]
    await link.close()


async def test_a_server_that_hangs_does_not_keep_the_others_from_being_asked(cluster: RedisCluster) -> None:
    await cluster.start()
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        places = [f"127.0.0.1:{port}" for port in (hangs.getsockname()[1], cluster.servers[0].port)]
        link = RedisLink(servers_of(client_for("redis+cluster://" + ",".join(places), {}, ""), "k"), 6)
        assert await link.call("PING") == b"PONG"
        await link.close()


async def test_a_client_for_one_server_is_told_that_this_is_a_cluster(cluster: RedisCluster) -> None:
    await cluster.start()
    right = await cluster.master_of("k")
    wrong = next(server for server in cluster.servers if server is not right)
    link = RedisLink(RedisServers(redis.asyncio.Redis(port=wrong.port)), 5)
    with pytest.raises(RedisUnavailable, match=r"redis\+cluster://"):
        await link.call("GET", "k")


async def test_that_no_server_can_be_asked_is_said() -> None:
    client = client_for(f"redis+cluster://127.0.0.1:{free_port()}", {}, "")
    link = RedisLink(servers_of(client, "k"), 5)
    with pytest.raises(RedisUnavailable, match="no server of the cluster"):
        await link.call("PING")


async def test_a_link_goes_where_the_server_says_that_its_slot_is(cluster: RedisCluster) -> None:
    """Nothing was done; the next command goes to the right server."""
    await cluster.start()
    servers = servers_for(cluster, "moved")
    link = RedisLink(servers, 5)
    await link.call("SET", "moved", "1")
    target = await cluster.move_slot("moved")
    with pytest.raises(RedisUnavailable, match=f"the slot is on 127.0.0.1:{target.port} now"):
        await link.call("INCR", "moved")
    assert servers._master == ("127.0.0.1", target.port)
    assert await link.call("INCR", "moved") == 2
    await link.close()


async def test_while_a_slot_moves_its_keys_are_waited_for(channel: RedisChannel, cluster: RedisCluster) -> None:
    """Redis refuses scripts with keys that are not there (``TRYAGAIN``), and sends who asks for one that has moved to
    the other server (``ASK``), where it would refuse them too."""
    log, key = channel.log(), channel.keys.log
    async with running(log.write()):
        await log.append(event("one"))
    link = channel.link()
    await link.run(TAIL, [key, channel.keys.meta], [0, 1, 1, 0, 1, 0])
    source, target = await cluster.begin_move(key)
    await run(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", key)
    with pytest.raises(RedisUnavailable, match="Ask"):
        await link.call("XLEN", key)
    with pytest.raises(RedisUnavailable, match="TryAgainError"):
        await link.run(TAIL, [key, channel.keys.meta], [0, 1, 1, 0, 1, 0])
    await cluster.move_slot(key)
    await until(lambda: has(link, key), "the log on the other server")


async def has(link: RedisLink, key: str) -> bool:
    try:
        return bool(await link.call("XLEN", key))
    except RedisUnavailable:
        return False


async def test_a_slot_moves_under_load(channel: RedisChannel, cluster: RedisCluster) -> None:
    """Everything is stored once, in order, and the node that follows the log never loses its place."""
    log, sessions = channel.log(publish_timeout=30), channel.sessions()
    follower = Follower(log)
    for number in range(50):
        await created(sessions, f"s{number}")
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        over = False

        async def emit() -> int:
            number = 0
            while not over:
                await log.append(event(f"e{number}"))
                number += 1
            return number

        emits = asyncio.create_task(emit())
        for _ in range(2):
            await until(lambda: len(follower.entries) > 20)
            await cluster.move_slot(channel.keys.log, 0.01)
        count = len(follower.entries)
        await until(lambda: len(follower.entries) > count + 20)
        over = True
        total = await emits
        await until(lambda: len(follower.entries) == total)
    found = [entry.payload.data.decode()[2:-2] for entry in follower.entries if entry.payload is not None]
    assert found == [f"e{number}" for number in range(total)]
    assert len(follower.starts) == 1
    assert len(await channel.link().call("HGETALL", channel.keys.session("s49"))) > 3


async def test_a_replica_takes_over(own: RedisCluster) -> None:
    """What it has is gone on with; the log and the sessions are served by it."""
    client = redis.asyncio.RedisCluster(host="127.0.0.1", port=own.servers[0].port)
    channel = RedisChannel(client, None)
    log, sessions = channel.log(publish_timeout=40), channel.sessions()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("before"))
        await created(sessions, "s")
        master = await own.master_of(channel.keys.log)
        replica = await own.replica_of(master)
        await until(lambda: in_step(own, master, replica), "a replica that has everything")
        master.kill()
        await log.append(event("after"))
        assert (await run(replica, "ROLE"))[0] == "master"
        await until(lambda: len(follower.entries) == 2)
        master.start()
        await own.whole()
        await log.append(event("last"))
    assert len(follower.starts) == 1
    assert await channel.link().call("HGETALL", channel.keys.session("s"))
    await channel.close()
    await client.aclose()


async def in_step(cluster: RedisCluster, master: Any, replica: Any) -> bool:
    of_master, of_replica = await run(master, "ROLE"), await run(replica, "ROLE")
    return bool(of_master[1] == of_replica[4])


async def test_the_command_line_reads_a_cluster(channel: RedisChannel, cluster: RedisCluster) -> None:
    log = channel.log()
    async with running(log.write()):
        await log.append(event("one"))
    name = channel.keys.log.removeprefix("{").removesuffix("}:log")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "socketio_recovery", "stats", "--url", cluster.url, "--channel", name),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"entries" in out
