"""The inbox: entries are moved to the log once, in order, whoever takes them, and whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from socketio_recovery.aio import inbox as module
from socketio_recovery.aio import lease, tasks
from socketio_recovery.aio.inbox import Inbox
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.metrics import NO_METRICS
from socketio_recovery.redis.scripts import LEASE, TAKE

from local.redis_server import RedisServer
from tests.store.channels import SERVERS, opened
from tests.support.background import running
from tests.support.follower import Follower, partition
from tests.support.logger import LOGGER
from tests.support.redis_channel import RedisChannel
from tests.support.waiting import PATIENCE, until


@pytest.fixture(params=["fakeredis", *SERVERS])
async def store(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> AsyncIterator[RedisChannel]:
    """A channel on each server in turn. The simulated one has no inbox."""
    async with opened(request.param, servers) as store:
        yield store


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that takes over the inbox has its lease for the whole test, or until it has given it up."""
    monkeypatch.setattr(lease, "LOOK", 0.05)
    monkeypatch.setattr(lease, "LEASE_TIME", 60)
    monkeypatch.setattr(tasks, "AGAIN", PATIENCE)


class Node:
    """A node that follows the log and takes over the inbox."""

    def __init__(self, store: RedisChannel, name: str, logger: logging.Logger = LOGGER) -> None:
        self.log = store.log()
        self.log.partition = partition()
        self.follower = Follower(self.log)
        self.inbox = Inbox(store.keys, self.log, store.link, PATIENCE, NO_METRICS, logger)
        self.inbox.lease.node = name

    @property
    def events(self) -> list[bytes]:
        return [entry.payload.data for entry in self.follower.entries if entry.payload is not None]

    def work(self) -> tuple[Any, Any]:
        return self.follower.run(), self.inbox.run()


async def put(store: RedisChannel, *events: object) -> None:
    for number in events:
        await store.client.xadd(store.keys.inbox, {"event": "e", "data": number})


def named(*numbers: object) -> list[bytes]:
    return [f'["e",{number}]'.encode() for number in numbers]


async def test_what_is_put_in_is_taken_over_in_order_and_removed(store: RedisChannel) -> None:
    await put(store, *range(50))
    node = Node(store, "a")
    async with running(*node.work()):
        await until(lambda: len(node.events) == 50)
        await put(store, *range(50, 100))
        await until(lambda: len(node.events) == 100)
    assert node.events == named(*range(100))
    assert await store.client.xlen(store.keys.inbox) == 0
    assert await store.client.xlen(store.keys.rejected) == 0


async def test_two_nodes_that_take_the_same_entries_store_them_once(store: RedisChannel) -> None:
    """As when one of them was frozen, and its lease is over."""
    await put(store, *range(10))
    link = store.link()
    first, second = Node(store, "a"), Node(store, "b")
    async with running(first.follower.run(), second.follower.run()):
        await until(lambda: first.follower.starts and second.follower.starts)
        early = (await first.inbox._read(link))[:7]
        late = await second.inbox._read(link)
        await first.inbox._take(link, early[:4])
        await second.inbox._take(link, late[:6])
        await first.inbox._take(link, early)
        await second.inbox._take(link, late)
        await first.inbox._take(link, late)
        await until(lambda: len(first.events) >= 10)
    assert first.events == named(*range(10))
    assert await store.client.xlen(store.keys.inbox) == 0


async def test_malformed_entries_are_set_aside_with_the_reason(
    store: RedisChannel, caplog: pytest.LogCaptureFixture
) -> None:
    await put(store, 1)
    bad = await store.client.xadd(store.keys.inbox, {"event": "e", "room": "typo", b"\xff": b"\x00\xfe"})
    await put(store, "NaN", 2)
    node = Node(store, "a", logging.getLogger("test.inbox"))
    async with running(*node.work()):
        await until(lambda: len(node.events) == 2)
        await until(lambda: "are set aside" in caplog.text)
    assert node.events == named(1, 2)
    first, second = await store.client.xrange(store.keys.rejected)
    assert first[1][b"id"] == bad
    assert first[1][b"event"] == b"e"
    assert first[1][b"room"] == b"typo"
    assert first[1][b"\xff"] == b"\x00\xfe"
    assert b"is not UTF-8" in first[1][b"reason"]
    assert b"data has NaN" in second[1][b"reason"]
    assert "2 malformed entries of the inbox are set aside" in caplog.text
    assert "is not UTF-8" in caplog.text


async def test_what_is_set_aside_is_bounded(store: RedisChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 300)
    monkeypatch.setattr(module, "KEPT_BYTES", 20_000)
    for number in range(40):
        await store.client.xadd(store.keys.inbox, {"event": "disconnect", "data": "x" * 1000, "number": number})
    node = Node(store, "a")
    async with running(*node.work()):
        await until(lambda: _empty(store))
        kept = [int(fields[b"number"]) for _, fields in await store.client.xrange(store.keys.rejected)]
        assert kept == list(range(40 - len(kept), 40))
        assert 15 <= len(kept) <= 20
        for _ in range(600):
            await store.client.xadd(store.keys.inbox, {"event": ""})
        await until(lambda: _empty(store))
    assert await store.client.xlen(store.keys.rejected) <= 400  # whole nodes of 100 are trimmed


async def _empty(store: RedisChannel) -> bool:
    return bool(await store.client.xlen(store.keys.inbox) == 0)


async def test_an_entry_of_thousands_of_fields_is_set_aside(store: RedisChannel) -> None:
    await store.client.xadd(store.keys.inbox, {str(number): "x" for number in range(20_000)})
    await put(store, 1)
    node = Node(store, "a")
    async with running(*node.work()):
        await until(lambda: node.events)
    assert await store.client.xlen(store.keys.rejected) == 1


async def test_one_node_has_the_lease_and_gives_it_up(store: RedisChannel) -> None:
    link, taker = store.link(), [store.keys.taker]
    assert await link.run(LEASE, taker, ["a", 60_000]) == 1
    assert await link.run(LEASE, taker, ["b", 60_000]) == 0
    assert await link.run(LEASE, taker, ["b", 0]) == 0
    assert await link.run(LEASE, taker, ["a", 60_000]) == 1
    assert 0 < await store.client.pttl(store.keys.taker) <= 60_000
    await link.run(LEASE, taker, ["a", 0])
    assert await link.run(LEASE, taker, ["b", 1]) == 1
    await store.until(await store.now() + 2)
    assert await link.run(LEASE, taker, ["a", 60_000]) == 1


async def test_a_node_that_stops_hands_the_inbox_over(store: RedisChannel) -> None:
    first, second = Node(store, "a"), Node(store, "b")
    async with running(second.follower.run()):
        async with running(*first.work()):
            await put(store, 1)
            await until(lambda: first.events)
            assert await store.client.hget(store.keys.taker, "node") == b"a"
        assert not await store.client.exists(store.keys.taker)
        async with running(second.inbox.run()):
            await put(store, 2)
            await until(lambda: len(second.events) == 2)
            assert await store.client.hget(store.keys.taker, "node") == b"b"
    assert second.events == named(1, 2)


async def test_a_node_that_does_not_follow_the_log_takes_nothing(store: RedisChannel) -> None:
    await put(store, 1)
    node = Node(store, "a")
    async with running(node.inbox.run()):
        await asyncio.sleep(0.05)
        assert await store.client.xlen(store.keys.inbox) == 1
    assert not await store.client.exists(store.keys.taker)


async def test_what_redis_refuses_stays_in_the_inbox(store: RedisChannel) -> None:
    """Here the stream of malformed entries is something else."""
    await store.client.set(store.keys.rejected, "planted")
    await put(store, 1)
    await store.client.xadd(store.keys.inbox, {"event": ""})
    await put(store, 2)
    node = Node(store, "a")
    link = store.link()
    async with running(node.follower.run()):
        await until(lambda: node.follower.starts)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"can't take an entry over from the inbox.*(?i:wrong)"):
                await node.inbox._take(link, await node.inbox._read(link))
        assert await store.client.xlen(store.keys.inbox) == 2
        await store.client.delete(store.keys.rejected)
        async with running(node.inbox.run()):
            await until(lambda: len(node.events) == 2)
    assert node.events == named(1, 2)
    assert await store.numbers() == [1, 2, 3]


async def test_a_batch_whose_reply_is_lost_is_stored_once(store: RedisChannel) -> None:
    await put(store, *range(5))
    node = Node(store, "a")
    link = store.link()
    run = link.run
    lost: list[Any] = []

    async def loses(script: Any, *arguments: Any) -> Any:
        reply = await run(script, *arguments)
        if script is TAKE and not lost:
            lost.append(reply)
            raise RedisUnavailable("lost")
        return reply

    link.run = loses  # type: ignore[assignment, method-assign]
    node.inbox._link = lambda timeout: link
    async with running(*node.work()):
        await put(store, *range(5, 8))
        await until(lambda: len(node.events) == 8)
        await until(lambda: lost)
    assert node.events == named(*range(8))


async def test_the_log_is_trimmed_by_what_is_taken_over(store: RedisChannel) -> None:
    node = Node(store, "a")
    node.log.max_length = 100
    async with running(*node.work()):
        for first in range(0, 500, 100):
            await put(store, *range(first, first + 100))
            await until(lambda first=first: len(node.events) == first + 100)  # type: ignore[misc]
    assert await store.client.xlen(store.keys.log) < 350
