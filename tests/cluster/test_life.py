"""The life of a manager: forked processes, event loops that come and go, the first start, the end."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis
import socketio
from aiohttp import ClientSession, web
from socketio_recovery import AsyncRedisStreamsManager, UnsupportedFormat
from socketio_recovery.redis.format import Formats

from local.ports import free_port
from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.proxy import Proxy
from tests.support.waiting import PATIENCE, until

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def database(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A synchronous client: these tests run event loops of their own."""
    client = redis.Redis.from_url(redis_server.url)
    yield client
    client.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that no other test uses."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
def make(redis_server: RedisServer, channel: str) -> Callable[..., AsyncRedisStreamsManager]:
    """Makes managers of one cluster."""

    def make(**options: Any) -> AsyncRedisStreamsManager:
        return AsyncRedisStreamsManager(redis_server.url, channel, publish_timeout=PATIENCE, **options)

    return make


def serving(manager: AsyncRedisStreamsManager) -> AsyncRedisStreamsManager:
    """Gives the manager to a server."""
    socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    return manager


def emitted(database: redis.Redis, channel: str) -> list[str]:
    """The events in the log, in order."""
    entries: Any = database.xrange("{" + channel + "}:log")
    return [fields[b"data"].decode() for _, fields in entries if b"data" in fields]


def producers(database: redis.Redis, channel: str) -> list[bytes]:
    """The producers that Redis remembers."""
    return list(database.scan_iter("{" + channel + "}:producer:*"))


def in_fork(run: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Starts a forked process that runs a coroutine function on an event loop of its own."""
    process = FORK.Process(target=lambda: asyncio.run(run(*arguments)), daemon=True)
    process.start()
    return process


def joined(*processes: multiprocessing.process.BaseProcess) -> None:
    """Waits until processes end well."""
    for process in processes:
        process.join(PATIENCE)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)


async def five(manager: AsyncRedisStreamsManager, who: object, close: bool = True) -> None:
    for i in range(5):
        await manager.emit(f"{who}.{i}", None)
    if close:
        await manager.close()


def events(*who: object) -> list[str]:
    """What :func:`five` of these puts into the log."""
    return sorted(f'["{w}.{i}"]' for w in who for i in range(5))


@pytest.mark.parametrize("of_server", [False, True], ids=["write_only", "server"])
def test_forked_workers_lose_nothing(
    make: Callable[..., AsyncRedisStreamsManager], database: redis.Redis, channel: str, of_server: bool
) -> None:
    """Each worker is a producer of its own, and a node of its own, though one manager was made before the fork."""
    manager = serving(make()) if of_server else make(write_only=True)
    names = FORK.SimpleQueue()
    names.put(manager.host_id)

    async def work(who: int) -> None:
        names.put(manager.host_id)
        await five(manager, who)

    joined(*[in_fork(work, who) for who in range(3)])
    assert sorted(emitted(database, channel)) == events(0, 1, 2)
    assert producers(database, channel) == []
    assert len({names.get() for _ in range(4)}) == 4


def test_a_fork_takes_nothing_from_a_parent_that_is_at_work(
    make: Callable[..., AsyncRedisStreamsManager], database: redis.Redis, channel: str
) -> None:
    manager = make(write_only=True)

    async def parent() -> None:
        await five(manager, "before", close=False)
        processes = [in_fork(five, manager, who) for who in range(3)]
        await asyncio.to_thread(joined, *processes)
        await five(manager, "after")

    asyncio.run(parent())
    assert producers(database, channel) == []
    assert sorted(emitted(database, channel)) == events("before", 0, 1, 2, "after")


def test_a_server_that_was_started_before_a_fork_says_what_to_do(
    make: Callable[..., AsyncRedisStreamsManager], database: redis.Redis, channel: str
) -> None:
    manager = serving(make())

    async def child() -> None:
        with pytest.raises(RuntimeError, match=r"in the process that this one was forked from.*write_only=True"):
            await manager.emit("e", 1)
        assert not manager.healthy
        await manager.close()

    async def parent() -> None:
        await five(manager, "before", close=False)
        await asyncio.to_thread(joined, in_fork(child))
        await five(manager, "after")

    asyncio.run(parent())
    assert sorted(emitted(database, channel)) == events("before", "after")


@pytest.mark.parametrize("times", [2, 3])
def test_one_manager_on_event_loops_one_after_the_other(
    own_server: RedisServer, channel: str, times: int, recwarn: pytest.WarningsRecorder
) -> None:
    """As with ``asyncio.run()`` in a script, ``async_to_sync``, or in tasks of Celery."""
    manager = AsyncRedisStreamsManager(own_server.url, channel, publish_timeout=PATIENCE, write_only=True)
    with redis.Redis.from_url(own_server.url) as database:

        def connected() -> int:
            clients: Any = database.info("clients")  # a synchronous client does not return an awaitable
            return int(clients["connected_clients"])

        assert connected() == 1
        for i in range(times):
            asyncio.run(five(manager, i, close=False))
            asyncio.run(until(lambda: connected() == 1))  # Redis may see a moment later that a connection has ended
        assert len(producers(database, channel)) == 1
        asyncio.run(manager.close())
        assert producers(database, channel) == []
        assert emitted(database, channel) == [e for i in range(times) for e in events(i)]
    assert not [str(w.message) for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_one_manager_in_two_threads_says_what_to_do(
    make: Callable[..., AsyncRedisStreamsManager], database: redis.Redis, channel: str
) -> None:
    manager = make(write_only=True)
    at_work, done = threading.Event(), threading.Event()

    async def first() -> None:
        await manager.emit("first", None)
        at_work.set()
        await asyncio.to_thread(done.wait, PATIENCE)
        await manager.emit("still works", None)

    thread = threading.Thread(target=lambda: asyncio.run(first()))
    thread.start()
    try:
        assert at_work.wait(PATIENCE)
        with pytest.raises(RuntimeError, match=r"another event loop.*run_coroutine_threadsafe"):
            asyncio.run(manager.emit("second", None))
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(manager.close())
    finally:
        done.set()
        thread.join(PATIENCE)
    asyncio.run(manager.emit("third", None))
    assert emitted(database, channel) == ['["first"]', '["still works"]', '["third"]']


def test_a_server_on_a_second_event_loop_says_what_to_do(make: Callable[..., AsyncRedisStreamsManager]) -> None:
    manager = serving(make())

    async def first() -> None:
        await manager.start()
        refused = asyncio.to_thread(lambda: asyncio.run(manager.emit("e", 1)))
        with pytest.raises(RuntimeError, match=r"on another event loop.*write_only=True"):
            await refused

    asyncio.run(first())
    with pytest.raises(RuntimeError, match=r"on another event loop.*write_only=True"):
        asyncio.run(manager.emit("e", 1))
    asyncio.run(manager.close())


def test_calls_in_progress_end_with_their_event_loop(
    make: Callable[..., AsyncRedisStreamsManager], database: redis.Redis, channel: str
) -> None:
    """Also those that are made while it ends."""
    manager = make(write_only=True)
    ends: list[BaseException] = []

    async def busy() -> None:
        try:
            while True:
                await manager.emit("busy", None)
        finally:
            try:
                await manager.emit("last words", None)
            except BaseException as error:
                ends.append(error)

    async def run() -> None:
        tasks = [asyncio.create_task(busy()) for _ in range(20)]
        await manager.emit("e", None)
        del tasks

    asyncio.run(run())
    assert all(isinstance(error, (RuntimeError, TimeoutError)) for error in ends)
    asyncio.run(five(manager, "then"))
    assert emitted(database, channel)[-5:] == events("then")


async def test_a_probe_starts_the_node(make: Callable[..., AsyncRedisStreamsManager]) -> None:
    """A load balancer that waits until the node is ready would otherwise wait for the first client, and it for that."""
    manager = make()
    sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager)
    app = web.Application()
    sio.attach(app)

    async def ready(request: web.Request) -> web.Response:
        return web.Response(status=200 if manager.healthy else 503)

    app.router.add_get("/ready", ready)
    assert await asyncio.to_thread(lambda: manager.healthy) is False  # there is no event loop in that thread
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with ClientSession() as http:

            async def status() -> int:
                async with http.get(f"http://127.0.0.1:{port}/ready") as response:
                    return response.status

            assert await status() == 503
            await until(lambda: manager.healthy)
            assert await status() == 200
            assert await asyncio.to_thread(lambda: manager.healthy) is True
            await manager.close()
            assert await status() == 503
    finally:
        await runner.cleanup()


async def test_a_probe_never_raises() -> None:
    assert AsyncRedisStreamsManager().healthy is False  # no server has it
    writer = AsyncRedisStreamsManager(write_only=True)
    assert [writer.healthy, writer.healthy] == [False, True]
    await writer.close()
    assert writer.healthy is False


async def test_a_key_stays_if_a_copy_of_a_batch_may_still_be_on_its_way(
    redis_server: RedisServer, database: redis.Redis, channel: str
) -> None:
    """Without the key, that copy would be stored, too."""
    async with Proxy(redis_server.port) as proxy:
        manager = AsyncRedisStreamsManager(proxy.url, channel, write_only=True, publish_timeout=PATIENCE)
        await manager.emit("first", None)
        proxy.lose_reply_to = b"retried"
        await manager.emit("retried", None)
        assert proxy.lost == 1
        await manager.close()
    assert len(producers(database, channel)) == 1
    assert emitted(database, channel) == ['["first"]', '["retried"]']


async def test_closing_does_not_need_redis(redis_server: RedisServer, channel: str) -> None:
    async with Proxy(redis_server.port) as proxy:
        manager = AsyncRedisStreamsManager(proxy.url, channel, write_only=True, publish_timeout=PATIENCE)
        await manager.emit("e", None)
    await manager.close()
    assert not manager.healthy


@pytest.mark.parametrize("rule", ["+info", "-info"], ids=["allowed", "INFO forbidden"])
async def test_a_policy_that_loses_sessions_is_told_when_a_node_starts(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture, rule: str
) -> None:
    with redis.Redis.from_url(own_server.url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.config_set("maxmemory", 1 << 30)
        admin.execute_command("ACL", "SETUSER", "default", rule)
    manager = serving(AsyncRedisStreamsManager(own_server.url, publish_timeout=PATIENCE))
    manager.logger = logging.getLogger("test.life")
    assert manager.node is not None
    manager.node.logger = manager.logger
    caplog.set_level(logging.DEBUG, "test.life")
    await manager.start()
    await until(lambda: "maxmemory-policy" in caplog.text)
    await manager.close()
    said = [record for record in caplog.records if "maxmemory-policy" in record.getMessage()]
    if rule == "+info":
        assert [record.levelname for record in said] == ["WARNING"]
        assert "maxmemory-policy noeviction" in said[0].getMessage()
    else:
        assert [record.levelname for record in said] == ["DEBUG"]


async def test_a_rolling_upgrade_across_a_format(
    make: Callable[..., AsyncRedisStreamsManager],
    database: redis.Redis,
    channel: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nodes of the next version take the place of the others, and the format is raised when that is done."""
    old, new = serving(make()), serving(make())
    assert old.node is not None
    assert new.node is not None
    new.node.first.log.formats = Formats(1, 2)
    for manager in (old, new, old):
        await manager.start()
        await manager.emit("e", None)
    assert (old.healthy, new.healthy) == (True, True)
    await new.raise_format()
    await until(lambda: not old.healthy)
    await new.emit("e", None)
    assert new.healthy
    with pytest.raises(UnsupportedFormat):
        await old.emit("not stored", None)
    for late in (serving(make()), make(write_only=True)):
        with pytest.raises(UnsupportedFormat, match=r"has format 2.*install the version"):
            await late.start()
        assert not late.healthy
        await late.close()
    writer = make(write_only=True)
    with pytest.raises(UnsupportedFormat):
        await writer.emit("not stored", None)
    for manager in (old, new, writer):
        await manager.close()
    assert emitted(database, channel) == ['["e"]'] * 4
    told = [record for record in caplog.records if "has format 2" in record.getMessage()]
    assert {record.levelname for record in told} == {"ERROR"}
    assert not [record for record in told if record.exc_info], "an operator's mistake needs no traceback"
