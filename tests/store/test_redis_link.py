"""Links, calls and URLs: a command goes out once, unless its sender says otherwise."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import valkey.asyncio
import valkey.asyncio.sentinel
from socketio_recovery.aio.log import Log
from socketio_recovery.aio.redis_client import client_for
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import RedisServers
from socketio_recovery.aio.script_calls import ScriptCalls
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.redis.scripts import CREATE, SAVE, TAIL, Script

from local.ports import free_port
from local.redis_server import RedisServer
from tests.store.channels import SERVERS, opened
from tests.support.appends import event
from tests.support.background import running
from tests.support.follower import Follower
from tests.support.proxy import Proxy
from tests.support.redis_channel import RedisChannel
from tests.support.waiting import until


class Source(Script):
    """A script of the test's own."""

    def __init__(self, source: str) -> None:
        super().__init__("tail")
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()


@pytest.fixture(params=["fakeredis", *SERVERS])
async def store(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> AsyncIterator[RedisChannel]:
    """Each store in turn, but the simulated one, which knows only what the library asks of it."""
    async with opened(request.param, servers) as store:
        yield store


ECHO = Source("return {ARGV[1], redis.call('INCR', KEYS[1])}")
FAIL = Source("return redis.error_reply('CUSTOM says no')")


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that never answers: its port, and what it was sent (``b""``: a connection ended)."""
    heard: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        data = b"-"
        while data:
            data = await reader.read(1000)
            heard.append(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await until(lambda: heard.count(b"") == len(writers))


# -- links ------------------------------------------------------------------------------------------


async def test_replies_are_not_decoded(store: RedisChannel) -> None:
    link, key = store.link(), store.keys.session("x")
    await link.call("SET", key, b"\xff\x00")
    assert await link.call("GET", key) == b"\xff\x00"
    assert await link.call("GET", key + "none") is None


async def test_replies_are_not_decoded_though_the_client_decodes(real: RedisChannel) -> None:
    assert real.server is not None
    client = redis.asyncio.Redis.from_url(real.server.url, decode_responses=True)
    link = RedisLink(RedisServers(client), 5)
    await link.call("SET", real.keys.meta, b"\xff\x00")
    assert await link.call("GET", real.keys.meta) == b"\xff\x00"
    await link.close()
    await client.aclose()


async def test_a_link_to_valkey_by_its_own_client(real: RedisChannel) -> None:
    assert real.server is not None
    client = valkey.asyncio.Valkey.from_url(real.server.url)
    link = RedisLink(RedisServers(client), 5)
    epoch, n, _, format, shards = await link.run(TAIL, [real.keys.log, real.keys.meta], [60_000, 1, 1, 0, 1, 0])
    assert (await real.numbers(), int(n)) == ([1], 1)
    assert await link.run(TAIL, [real.keys.log, real.keys.meta], [0, 1, 1, 0, 1, 0]) == [epoch, n, _, format, shards]
    await link.close()
    await client.aclose()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_either_protocol_will_do(real: RedisChannel, protocol: int) -> None:
    assert real.server is not None
    client = redis.asyncio.Redis.from_url(real.server.url, protocol=protocol)
    log = Log(
        real.keys,
        lambda timeout: RedisLink(RedisServers(client), timeout),
        None,
        60_000,
        0,
        5,
        logging.getLogger("test.log"),
    )
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("e"))
        await until(lambda: follower.entries)
    assert follower.numbers == [2]
    await client.aclose()


async def test_an_error_reply_leaves_the_link_in_step(store: RedisChannel) -> None:
    link = store.link()
    with pytest.raises(Exception, match="CUSTOM says no") as error:
        await link.run(FAIL, [], [])
    assert not isinstance(error.value, RedisUnavailable)
    assert await link.call("ECHO", "x") == b"x"


async def test_many_scripts_in_one_round_trip(store: RedisChannel) -> None:
    key = store.keys.session("x")
    one, failed, two = await store.link().run_many(
        [(ECHO, [key], ["a"]), (FAIL, [], []), (ECHO, [key], [b"\xff"])],
    )
    assert one == [b"a", 1]
    assert "CUSTOM says no" in str(failed)
    assert isinstance(failed, Exception)
    assert two == [b"\xff", 2]


async def test_a_closed_link_opens_again(store: RedisChannel) -> None:
    link = store.link()
    assert await link.call("ECHO", "a") == b"a"
    await link.close()
    await link.close()
    assert await link.call("ECHO", "b") == b"b"


async def test_a_cancelled_command_does_not_answer_the_next(store: RedisChannel) -> None:
    link = store.link()
    task = asyncio.ensure_future(link.call("XREAD", "BLOCK", 60_000, "STREAMS", store.keys.log, "0-0", timeout=60))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await link.call("ECHO", "mine") == b"mine"


async def test_a_late_reply_does_not_answer_the_next_command(real: RedisChannel) -> None:
    link = real.link()
    await link.call("PING")
    with pytest.raises(RedisUnavailable, match=r"0\.05 s"):
        await link.call("XREAD", "BLOCK", 4000, "STREAMS", real.keys.log, "0-0", timeout=0.05)
    assert await link.call("ECHO", "mine") == b"mine"


async def test_nobody_listens() -> None:
    client = redis.asyncio.Redis(host="127.0.0.1", port=free_port())
    link = RedisLink(RedisServers(client), 5)
    with pytest.raises(RedisUnavailable):
        await link.call("PING")
    await client.aclose()


async def test_a_server_that_never_answers() -> None:
    async with silent_server() as (port, _):
        client = redis.asyncio.Redis(host="127.0.0.1", port=port)
        with pytest.raises(RedisUnavailable, match=r"0\.1 s"):
            await RedisLink(RedisServers(client), 0.1).call("PING")
        calls = ScriptCalls(RedisLink(RedisServers(client), 0.1))
        with pytest.raises(RedisUnavailable, match=r"0\.3 s"):
            await calls.run(ECHO, ["k"], ["a"], 0.3)
        await calls.close()
        await client.aclose()


async def test_a_connection_that_timed_out_while_it_was_made_is_closed() -> None:
    async with silent_server() as (port, heard):
        client = redis.asyncio.Redis(host="127.0.0.1", port=port)
        link = RedisLink(RedisServers(client), 0.1)
        with pytest.raises(RedisUnavailable):
            await link.call("PING")
        await until(lambda: b"" in heard)
        await client.aclose()


async def test_a_command_whose_reply_was_lost_is_not_sent_again(real: RedisChannel) -> None:
    assert real.server is not None
    async with Proxy(real.server.port) as proxy:
        client = redis.asyncio.Redis.from_url(proxy.url)
        link = RedisLink(RedisServers(client), 5)
        proxy.lose_reply_to = b"INCR"
        with pytest.raises(RedisUnavailable):
            await link.call("INCR", real.keys.meta)
        assert proxy.lost == 1
        assert await link.call("GET", real.keys.meta) == b"1"
        await link.close()
        await client.aclose()


async def test_a_connection_is_tried_once() -> None:
    """Whoever calls decides how often, and waits in between."""
    tries = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    client = redis.asyncio.Redis(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    with pytest.raises(RedisUnavailable):
        await RedisLink(RedisServers(client), 5).call("PING")
    assert tries == 1
    server.close()
    await client.aclose()


async def test_a_server_that_can_not_write_now_is_unavailable(real: RedisChannel) -> None:
    await real.client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
            await real.link().call("SET", real.keys.meta, "x")
    finally:
        await real.client.config_set("min-replicas-to-write", 0)


# -- calls ------------------------------------------------------------------------------------------


async def test_many_calls_at_once_each_get_their_own_reply(store: RedisChannel) -> None:
    calls, key = store.calls(), store.keys.session("x")
    replies = await asyncio.gather(*(calls.run(ECHO, [key], [i], 5) for i in range(300)))
    assert [int(argument) for argument, _ in replies] == list(range(300))
    assert [n for _, n in replies] == list(range(1, 301))  # in order


async def test_many_calls_take_one_connection(real: RedisChannel) -> None:
    calls, key = real.calls(), real.keys.session("x")
    before = (await real.client.info("stats"))["total_connections_received"]
    for _ in range(3):
        await asyncio.gather(*(calls.run(ECHO, [key], [i], 5) for i in range(300)))
    assert (await real.client.info("stats"))["total_connections_received"] - before == 1


async def test_a_call_that_fails_does_not_fail_others(store: RedisChannel) -> None:
    calls, key = store.calls(), store.keys.session("x")
    replies: list[Any] = await asyncio.gather(
        *(calls.run(FAIL if i % 2 else ECHO, [] if i % 2 else [key], [i], 5) for i in range(10)),
        return_exceptions=True,
    )
    for i, reply in enumerate(replies):
        assert ("CUSTOM says no" in str(reply)) == bool(i % 2)
    assert (await calls.run(ECHO, [key], ["still"], 5))[0] == b"still"


async def test_one_call_that_can_not_be_encoded_fails_alone(store: RedisChannel) -> None:
    calls, key = store.calls(), store.keys.session("x")
    arguments = ["a", "\ud800", "c"]
    replies: list[Any] = await asyncio.gather(
        *(calls.run(ECHO, [key], [a], 5) for a in arguments), return_exceptions=True
    )
    assert isinstance(replies[1], ValueError)
    assert [r if isinstance(r, Exception) else r[0] for r in (replies[0], replies[2])] == [b"a", b"c"]


async def test_calls_are_run_again_when_the_connection_breaks(real: RedisChannel) -> None:
    assert real.server is not None
    async with Proxy(real.server.port) as proxy:
        client = redis.asyncio.Redis.from_url(proxy.url)
        calls = ScriptCalls(RedisLink(RedisServers(client), 5))
        proxy.lose_reply_to = b"retried"
        arguments: list[Any] = ["/", "", "retried", '"node","transport"', 60_000, 60_000, -1, '["changed","/","s1"]']
        keys = [real.keys.session("s1"), real.keys.log, real.keys.meta, real.keys.owned, real.keys.everyone("/")]
        birth = await calls.run(CREATE, keys, arguments, 5)
        assert proxy.lost == 1
        assert birth[:2] == (await calls.run(CREATE, keys, arguments, 5))[:2]
        assert await calls.run(SAVE, keys[:1], ["retried", "data", "{}"], 5) == 1
        await calls.close()
        await client.aclose()


async def test_calls_that_are_run_again_keep_their_order(real: RedisChannel) -> None:
    assert real.server is not None
    async with Proxy(real.server.port) as proxy:
        client = redis.asyncio.Redis.from_url(proxy.url)
        calls = ScriptCalls(RedisLink(RedisServers(client), 5))
        await calls.run(ECHO, [real.keys.meta], ["connects"], 5)
        proxy.lose_reply_to = b"last"
        names = [*(str(i) for i in range(30)), "last"]
        replies = await asyncio.gather(*(calls.run(ECHO, [real.keys.meta], [name], 5) for name in names))
        assert proxy.lost == 1
        assert [name.decode() for name, _ in replies] == names
        assert [n for _, n in replies] == sorted(n for _, n in replies)
        await calls.close()
        await client.aclose()


async def test_calls_after_a_script_flush(real: RedisChannel) -> None:
    calls, key = real.calls(), real.keys.session("x")
    await calls.run(ECHO, [key], ["a"], 5)
    await real.client.script_flush()
    replies = await asyncio.gather(*(calls.run(ECHO, [key], [i], 5) for i in range(50)))
    assert [int(argument) for argument, _ in replies] == list(range(50))
    assert sorted(n for _, n in replies) == list(range(2, 52))


@pytest.mark.parametrize("under_way", [False, True])
async def test_closing_ends_the_calls_that_wait(under_way: bool) -> None:
    async with silent_server() as (port, heard):
        client = redis.asyncio.Redis(host="127.0.0.1", port=port)
        calls = ScriptCalls(RedisLink(RedisServers(client), 60))
        waiting = [asyncio.ensure_future(calls.run(ECHO, ["k"], ["a"], 60)) for _ in range(3)]
        await asyncio.sleep(0)
        if under_way:
            await until(lambda: heard)
        await calls.close()
        _, late = await asyncio.wait(waiting, timeout=5)
        for task in late:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await client.aclose()
        assert not late


# -- URLs and clients -------------------------------------------------------------------------------


def settings(client: Any) -> dict[str, Any]:
    kwargs: dict[str, Any] = client.connection_pool.connection_kwargs
    return kwargs


def test_redis_urls() -> None:
    client = client_for("redis://user:secret@example.com:6380/3", {"client_name": "x"}, "s")
    assert type(client) is redis.asyncio.Redis
    expected = {"host": "example.com", "port": 6380, "db": 3, "username": "user", "password": "secret"}
    assert settings(client).items() >= {**expected, "client_name": "x"}.items()


def test_rediss_urls() -> None:
    client = client_for("rediss://example.com", {}, "s")
    assert client.connection_pool.connection_class is redis.asyncio.SSLConnection


def test_unix_urls() -> None:
    client = client_for("unix:///run/redis.sock?db=2", {}, "s")
    assert client.connection_pool.connection_class is redis.asyncio.UnixDomainSocketConnection
    assert settings(client)["path"] == "/run/redis.sock"


def test_valkey_urls() -> None:
    client = client_for("valkey://example.com:6390/1", {}, "s")
    assert type(client) is valkey.asyncio.Valkey
    assert settings(client).items() >= {"host": "example.com", "port": 6390, "db": 1}.items()
    tls = client_for("valkeys://example.com", {}, "s")
    assert tls.connection_pool.connection_class is valkey.asyncio.SSLConnection


@pytest.mark.parametrize(
    ("family", "pool_class"),
    [
        ("redis", redis.asyncio.sentinel.SentinelConnectionPool),
        ("valkey", valkey.asyncio.sentinel.SentinelConnectionPool),
    ],
)
@pytest.mark.parametrize(("path", "service"), [("/2/main", "main"), ("/2", "fallback"), ("", "fallback")])
def test_sentinel_urls(family: str, pool_class: type, path: str, service: str) -> None:
    client = client_for(f"{family}+sentinel://user:secret@one:26379,two:26380{path}", {}, "fallback")
    pool = client.connection_pool
    assert [type(pool)] == [pool_class]
    assert pool.service_name == service
    hosts = [(settings(s)["host"], settings(s)["port"]) for s in pool.sentinel_manager.sentinels]
    assert hosts == [("one", 26379), ("two", 26380)]
    expected = {"username": "user", "password": "secret", **({"db": 2} if path else {})}
    assert settings(client).items() >= expected.items()


@pytest.mark.parametrize("url", ["http://example.com", "localhost:6379", "", "kafka://x", "redis+other://x"])
def test_other_urls_are_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="unsupported Redis URL scheme"):
        client_for(url, {}, "s")


@pytest.mark.parametrize("client", [object(), None, {"url": "redis://"}, 6379])
def test_a_link_needs_a_client(client: object) -> None:
    with pytest.raises(TypeError, match=type(client).__name__):
        RedisLink(RedisServers(client), 1)


def test_a_link_needs_an_asyncio_client() -> None:
    for client in (redis.Redis(), valkey.Valkey(), fakeredis.FakeRedis()):
        with pytest.raises(TypeError, match="asyncio"):
            RedisLink(RedisServers(client), 1)


async def test_the_clients_pool_is_left_alone(real: RedisChannel) -> None:
    """Its limit is the application's, and its retries are not ours."""
    assert real.server is not None
    client = redis.asyncio.Redis.from_url(real.server.url, max_connections=1)
    links = [RedisLink(RedisServers(client), 5) for _ in range(3)]
    assert await asyncio.gather(*(link.call("ECHO", "x") for link in links)) == [b"x"] * 3
    assert await client.ping()
    for link in links:
        await link.close()
    await client.aclose()
