"""The log: gapless, in one order, each entry once, and no hole unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from socketio_recovery.aio import log as log_module
from socketio_recovery.aio.log import Append, Log
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import RedisServers
from socketio_recovery.aio.tasks import Backoff
from socketio_recovery.entries import ENTER, EPOCH, EVENT, Entry, Payload, Position, event_head, payload_fields
from socketio_recovery.errors import PublishTimeout
from socketio_recovery.reasons import AppendResult, Fate
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.scripts import APPEND, RENEW, SEEK
from socketio_recovery.session_record import Pid

from local.ports import free_port
from tests.support.appends import event, forgets, moves
from tests.support.background import running
from tests.support.follower import Follower, partition
from tests.support.proxy import Proxy
from tests.support.redis_channel import TIMEOUT, RedisChannel
from tests.support.waiting import until


def names(entries: list[Entry]) -> list[str]:
    return [e.payload.data.decode() for e in entries if e.payload]


@asynccontextmanager
async def proxied(real: RedisChannel, timeout: float = TIMEOUT) -> AsyncIterator[tuple[Proxy, Log]]:
    """A log that reaches its server through a proxy.

    :param timeout: how long an append may take, in seconds.
    """
    assert real.server is not None
    async with Proxy(real.server.port) as proxy:
        client = redis.asyncio.Redis.from_url(proxy.url)
        try:
            link = partial(RedisLink, RedisServers(client))
            yield proxy, Log(real.keys, link, None, 60_000, 0, timeout, logging.getLogger("test.log"))
        finally:
            await client.aclose()


async def fill(log: Log, *events: str) -> None:
    async with running(log.write()):
        for name in events:
            await log.append(event(name))


# -- writing ----------------------------------------------------------------------------------------


async def test_numbers_of_many_writers_are_gapless_and_in_order(store: RedisChannel) -> None:
    logs = [store.log() for _ in range(3)]
    async with running(*(log.write() for log in logs)):
        await asyncio.gather(*(log.append(event(f"{i}:{k}")) for k in range(200) for i, log in enumerate(logs)))
    assert await store.numbers() == list(range(1, 602))  # 1 begins the epoch
    stored = [fields[5].decode() for _, fields in (await store.entries())[1:]]
    for i in range(3):
        assert [name for name in stored if name.startswith(f'["{i}:')] == [f'["{i}:{k}"]' for k in range(200)]


async def test_ids_never_go_back_though_the_clock_does(store: RedisChannel) -> None:
    log = store.log()
    await fill(log, "a")
    ahead = await store.now() + 3_600_000
    await store.client.hset(store.keys.meta, "ms", ahead)
    await fill(log, "b", "c")
    ids = [id.decode() for id, _ in await store.entries()]
    assert ids[-2:] == [f"{ahead}-3", f"{ahead}-4"]


async def test_binary_data_is_intact(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    attachments = [bytes(range(256)), b"", b"\r\n$5\r\n", b"\xff" * 100_000]
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("e", *attachments))
        await until(lambda: follower.entries)
    payload = follower.entries[0].payload
    assert payload is not None
    assert list(payload.attachments) == attachments


async def test_a_batch_sent_again_is_stored_once(store: RedisChannel) -> None:
    link = store.link()
    keys = [store.keys.log, store.keys.meta, store.keys.producer("p"), store.keys.closes, store.keys.closed]

    def batch(sequence: int, *names: str, epoch: object = "") -> list[Any]:
        arguments: list[Any] = [sequence, epoch, 60_000, 0, len(names), 1]
        for name in names:
            arguments += [4, "head", '["event","/"]', "data", name, ""]
        return arguments

    first = await link.run(APPEND, keys, batch(1, "a", "b"))
    epoch = int(first[0])
    assert await link.run(APPEND, keys, batch(1, "a", "b")) == [*first[:2], b"0"]
    await link.run(APPEND, keys, batch(2, "b", "c"))  # only the second is new
    await link.run(APPEND, keys, batch(4, "d"))
    assert [fields[5] for _, fields in (await store.entries())[1:]] == [b"a", b"b", b"c", b"d"]
    assert await store.numbers() == [1, 2, 3, 4, 5]
    again = await link.run(APPEND, keys, batch(5, "e", epoch=epoch - 1))  # it was sent before this epoch began
    assert again == [first[0], b"5", b"0", b"0", b"epoch"]
    assert await link.run(APPEND, keys, batch(4, "d", epoch=epoch - 1)) == [first[0], b"5", b"0"], (
        "it is stored already"
    )
    await link.run(APPEND, keys, batch(5, "e", epoch=epoch))
    assert await store.numbers() == [1, 2, 3, 4, 5, 6]


async def test_a_lone_entry_is_stored_like_others(store: RedisChannel) -> None:
    """The script has a short way for it, where nothing else is to be done."""
    link = store.link()
    await store.log().tail(link)  # says how many partitions there are
    keys = [store.keys.log, store.keys.meta, store.keys.producer("p"), store.keys.closes, store.keys.closed]
    sequence = 1

    async def append(*names: str) -> list[int]:
        arguments: list[Any] = [sequence, "", 60_000, 0, len(names), 1]
        for name in names:
            arguments += [4, "head", '["event","/"]', "data", name, ""]
        return [int(word) for word in await link.run(APPEND, keys, arguments)]

    async def left_behind() -> list[Any]:
        fields = {"n": keys[1], "ms": keys[1], "sequence": keys[2], "refused": keys[2]}
        return [await link.call("HGET", key, field) for field, key in fields.items()]

    for i in range(120):
        if i % 5 == 0:  # the batch before had something refused
            await store.client.hset(keys[2], "refused", "1\nunknown")
        many = [f"{i}"] if i % 3 else [f"{i}a", f"{i}b"]
        epoch, n, ms = await append(*many)
        entries = (await store.entries())[-len(many) :]
        assert [id.decode() for id, _ in entries] == [f"{ms}-{n - k}" for k in reversed(range(len(many)))]
        assert [fields[:2] + fields[5:] for _, fields in entries] == [
            [b"epoch", str(epoch).encode(), name.encode()] for name in many
        ]
        sequence += len(many)
        assert await left_behind() == [str(x).encode() for x in (n, ms, sequence - 1, "")]
    numbers = await store.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    sequence -= 1
    assert await append("119") == [epoch, n, 0], "it is stored already"
    sequence += 1
    await store.client.hset(store.keys.meta, "shards", 2)
    refused = await link.run(APPEND, keys, [sequence, "", 60_000, 0, 1, 1, 2, "head", '["event","/"]', ""])
    assert refused == [str(epoch).encode(), str(n).encode(), b"0", b"0", b"shards"]
    assert await store.numbers() == numbers


async def test_entries_of_two_producers_are_not_taken_for_each_other(store: RedisChannel) -> None:
    await fill(store.log(), "a")
    await fill(store.log(), "a")
    assert len(await store.heads()) == 2


async def test_what_is_too_old_by_the_stores_time_is_trimmed(store: RedisChannel) -> None:
    log = store.log(retention=100)
    async with running(log.write()):
        await asyncio.gather(*(log.append(event("old")) for _ in range(600)))
        await store.until(await store.now() + 150)
        await asyncio.gather(*(log.append(event("new")) for _ in range(60)))
    numbers = await store.numbers()
    assert numbers == list(range(numbers[0], 662))
    assert 60 <= len(numbers) < 280  # a stream is trimmed block by block


async def test_a_quiet_log_is_trimmed_too(store: RedisChannel) -> None:
    log = store.log()
    await fill(log, *"abc")
    tail, _ = await log.tail(store.link())
    await store.until(await store.now() + 20)
    assert (await log.tail(store.link(), retention=60_000))[0] == tail
    assert await store.numbers() == [1, 2, 3, 4]
    assert (await log.tail(store.link(), retention=10))[0] == tail
    assert await store.numbers() == []
    await fill(log, "d")
    assert await store.numbers() == [5]


async def test_what_another_node_needs_is_not_trimmed(store: RedisChannel) -> None:
    await store.log().tail(store.link(), retention=60_000)
    log = store.log(retention=1)
    async with running(log.write()):
        await asyncio.gather(*(log.append(event("old")) for _ in range(600)))
        await store.until(await store.now() + 5)
        await log.append(event("new"))
    assert await store.numbers() == list(range(1, 603))


async def test_max_length_bounds_the_log(store: RedisChannel) -> None:
    log = store.log(max_length=100)
    async with running(log.write()):
        await asyncio.gather(*(log.append(event("e")) for _ in range(1000)))
    numbers = await store.numbers()
    assert numbers == list(range(numbers[0], 1002))
    assert 100 <= len(numbers) < 300


async def test_an_entry_that_can_not_be_stored_fails_alone(store: RedisChannel) -> None:
    log = store.log()
    good = [event(f"good {i}") for i in range(4)]
    bad = event("bad", *[b""] * 5000)  # more than Lua can unpack
    waiting = [asyncio.ensure_future(log.append(a)) for a in (*good[:2], bad, *good[2:])]
    await asyncio.sleep(0)
    async with running(log.write()):
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert await log.append(event("later")) is AppendResult.STORED
    stored = [i for i, result in enumerate(results) if result is AppendResult.STORED]
    assert set(stored) >= {0, 1, 3, 4}
    numbers = await store.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    if store.server is not None:  # fakeredis runs another Lua, without the limit
        assert isinstance(results[2], RuntimeError)
        assert len(numbers) == 6


async def test_an_append_returns_after_this_node_has_dispatched_it(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        for i in range(20):
            await log.append(event(f"e{i}"))
            assert names(follower.entries)[-1] == f'["e{i}"]'

        async def one(i: int) -> None:
            await log.append(event(f"f{i}"))
            assert f'["f{i}"]' in names(follower.entries)

        await asyncio.gather(*(one(i) for i in range(300)))
    assert follower.reasons == ["boot"]


async def test_the_writer_reads_what_it_writes_while_the_reader_rests(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append is stored and dispatched in one round trip of the writer's."""
    log = store.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("e0"))
        monkeypatch.setattr(log, "_rest", asyncio.Event().wait)  # for ever, once it has read what is next
        for i in range(1, 10):
            await log.append(event(f"e{i}"))
            assert names(follower.entries)[-1] == f'["e{i}"]'


async def test_what_a_node_writes_alone_is_what_others_read(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = store.log(), store.log()
    follower, beside = Follower(log), Follower(other)
    entries = [
        *[event(f"e{i}") for i in range(30)],
        event("\u0645\u0631\u062d\u0628\u0627 \U0001f600", b"\xff\x00\r\n", b""),
        moves(log, "enter", "nobody", "room"),  # refused: it is not stored
        event("after it"),
    ]
    rests = asyncio.Event()

    async def rest() -> None:
        rests.set()
        await asyncio.Event().wait()

    async with running(log.write(), follower.run(), beside.run()):
        await until(lambda: follower.starts and beside.starts)
        monkeypatch.setattr(log, "_rest", rest)
        while not rests.is_set():
            await log.append(event("alone"))
        alone = len(follower.entries)
        monkeypatch.setattr(log, "_read", None)  # nothing is read back
        for entry in entries[:10]:
            await log.append(entry)
        await asyncio.gather(*map(log.append, entries[10:]))
        await until(lambda: len(beside.entries) >= alone + len(entries) - 1)
    own, theirs = ([[getattr(e, name) for name in Entry.__slots__] for e in f.entries] for f in (follower, beside))
    assert own == theirs
    assert len(follower.entries) == alone + len(entries) - 1
    mark, newest = log.partition.cursor.mark(), (await store.entries())[-1]  # type: ignore[union-attr]
    assert mark.id.encode() == newest[0]
    assert mark.newest == [newest[0], newest[1]], "it is what a look back finds"


async def test_a_node_that_did_not_write_alone_reads_what_others_wrote(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = store.log(), store.log()
    follower = Follower(log)
    run_many = RedisLink.run_many
    before: list[Append] = []

    async def late(self: RedisLink, calls: Any, *more: Any, limit: int = 0) -> Any:
        if calls and calls[0][0] is APPEND and calls[0][1][2] == log.keys.producer(log.producer.name):
            while before:
                await other.append(before.pop(0))
        return await run_many(self, calls, *more, limit=limit)

    monkeypatch.setattr(RedisLink, "run_many", late)
    async with running(log.write(), follower.run(), other.write()):
        await until(lambda: follower.starts)
        for i in range(12):
            before += [event(f"other {i}.{k}") for k in range(i % 4)]  # alone, and beside others, in turn
            await log.append(event(f"own {i}"))
            assert names(follower.entries)[-1] == f'["own {i}"]'
    assert follower.numbers == list(range(2, 2 + len(follower.numbers)))
    assert len(follower.numbers) == 12 + sum(i % 4 for i in range(12))
    assert follower.reasons == ["boot"]


async def test_what_writer_and_reader_have_both_read_counts_once(store: RedisChannel) -> None:
    logs = [store.log() for _ in range(3)]
    followers = [Follower(log) for log in logs]

    async def one(log: Log, name: str) -> None:
        for i in range(60):
            await log.append(event(f"{name}.{i}"))
            if i % 7 == 0:
                await asyncio.sleep(0.001)  # its reader is at work now and then

    async with running(*(log.write() for log in logs), *(follower.run() for follower in followers)):
        await until(lambda: all(follower.starts for follower in followers))
        await asyncio.gather(*(one(log, f"{i}{k}") for i, log in enumerate(logs) for k in range(3)))
        await until(lambda: all(len(follower.entries) >= 540 for follower in followers))
    last = (await store.numbers())[-1]
    for follower in followers:
        assert [entry.n for entry in follower.entries] == list(range(last - 539, last + 1))
        assert follower.reasons == ["boot"]


async def test_an_append_that_is_cancelled_before_it_is_sent_is_withdrawn(store: RedisChannel) -> None:
    log = store.log()
    task = asyncio.ensure_future(log.append(event("cancelled")))
    await asyncio.sleep(0)
    assert not log.idle
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert log.idle
    await fill(log, "other")
    assert len(await store.heads()) == 1


async def fate_at_deadline(log: Log, append: Append, when: Callable[[Append], bool]) -> Fate:
    """Queues an entry whose time is over as soon as ``when`` is true for it, and returns what its caller is told."""
    log.queue(append)
    await until(lambda: when(append))
    append.deadline = 0
    log._expire()
    with pytest.raises(PublishTimeout) as error:
        await log.answer(append)
    return error.value.fate


async def test_an_entry_that_this_node_has_not_dispatched_in_time_is_stored(store: RedisChannel) -> None:
    log = store.log()
    log.partition = partition()  # nobody follows the log
    async with running(log.write()):
        assert await fate_at_deadline(log, event("e"), lambda append: append.stored) == "stored"
    assert len(await store.heads()) == 1


async def test_without_redis_an_entry_is_withdrawn() -> None:
    """It was never sent."""
    client = redis.asyncio.Redis(host="127.0.0.1", port=free_port())
    log = Log(
        Keys("x"),
        lambda timeout: RedisLink(RedisServers(client), timeout),
        None,
        60_000,
        0,
        0.2,
        logging.getLogger("test.log"),
    )
    async with running(log.write()):
        with pytest.raises(PublishTimeout) as first:
            await log.append(event("the first"))
        with pytest.raises(PublishTimeout) as second:
            await log.append(event("behind it"))
        assert not log.appends
    assert (first.value.fate, second.value.fate) == ("withdrawn", "withdrawn")
    await client.aclose()


async def test_what_is_withdrawn_is_never_stored_and_what_is_unknown_once(real: RedisChannel) -> None:
    async with proxied(real) as (proxy, log):
        proxy.open.clear()
        async with running(log.write()):
            assert await fate_at_deadline(log, event("never sent"), lambda append: True) == "withdrawn"
            proxy.open.set()
            await proxy.cut()  # what opens the connection is not waited for any longer
            await log.append(event("opens the connection"))
            proxy.open.clear()
            assert await fate_at_deadline(log, event("first"), lambda append: append.sent) == "unknown"
            assert await fate_at_deadline(log, event("second"), lambda append: True) == "withdrawn"
            proxy.open.set()
            await proxy.cut()
            await until(lambda: log.idle)
            await log.append(event("third"))
        stored = [fields[5] for _, fields in (await real.entries())[1:]]
        assert stored == [b'["opens the connection"]', b'["first"]', b'["third"]']


@pytest.mark.parametrize("count", [1, 40])
async def test_a_batch_whose_reply_was_lost_is_stored_once(real: RedisChannel, count: int) -> None:
    async with proxied(real) as (proxy, log):
        async with running(log.write()):
            await log.append(event("before"))
            proxy.lose_reply_to = b"retried"
            assert (
                await asyncio.gather(*(log.append(event(f"retried {i}")) for i in range(count)))
                == [AppendResult.STORED] * count
            )
            assert proxy.lost == 1
            await log.append(event("after"))
        stored = [fields[5].decode() for _, fields in (await real.entries())[1:]]
        assert stored == ['["before"]', *(f'["retried {i}"]' for i in range(count)), '["after"]']


async def test_a_refusal_whose_reply_was_lost_is_still_told(real: RedisChannel) -> None:
    async with proxied(real) as (proxy, log):
        async with running(log.write()):
            proxy.lose_reply_to = b"retried"
            assert await log.append(moves(log, ENTER, "nobody", "retried")) == "unknown"
        assert proxy.lost == 1
        assert await real.heads() == []


async def test_what_a_session_that_was_ended_has_left_is_told_though_the_reply_was_lost(real: RedisChannel) -> None:
    sessions = real.sessions("A")
    await sessions.create("s1", Pid("s1", "p" * 22), "/", "t1", "transport")
    async with running((plain := real.log()).write()):
        await plain.append(moves(plain, ENTER, "s1", "red"))
        await plain.append(moves(plain, ENTER, "s1", "retried"))
    assert await sessions.detach("s1", "t1", "/", ["red", "retried"])
    async with proxied(real) as (proxy, log):
        async with running(log.write()):
            proxy.lose_reply_to = b"disconnect"
            assert await log.append(end := forgets(log, "s1")) == "stored"
        assert proxy.lost == 1
        assert sorted(end.left) == ['"red"', '"retried"']


async def test_an_entry_that_could_not_be_stored_is_told_though_the_reply_was_lost(real: RedisChannel) -> None:
    async with proxied(real) as (proxy, log):
        bad = event("bad", *[b""] * 5000)  # more than Lua can unpack
        waiting = [asyncio.ensure_future(log.append(a)) for a in (event("retried"), bad, event("good"))]
        await asyncio.sleep(0)
        proxy.lose_reply_to = b"retried"
        async with running(log.write()):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert proxy.lost == 1
        assert isinstance(results[1], RuntimeError)
        assert (results[0], results[2]) == ("stored", "stored")
        stored = [fields[5] for _, fields in (await real.entries())[1:]]
        assert stored == [b'["retried"]', b'["good"]']


async def test_a_batch_that_was_stored_is_told_so_though_redis_refuses_it_the_second_time(
    real: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert real.server is not None
    unhindered = Backoff.wait

    async def wait(self: Backoff) -> None:  # between the two tries
        await real.client.config_set("maxmemory", 1)
        await unhindered(self)

    monkeypatch.setattr(Backoff, "wait", wait)
    async with Proxy(real.server.port) as proxy:
        client = redis.asyncio.Redis.from_url(proxy.url)
        log = Log(
            real.keys,
            lambda timeout: RedisLink(RedisServers(client), timeout),
            None,
            60_000,
            0,
            5,
            logging.getLogger("test.log"),
        )
        waiting = [
            asyncio.ensure_future(log.append(append))
            for append in (event("retried"), moves(log, ENTER, "nobody", "retried"))
        ]
        await asyncio.sleep(0)
        proxy.lose_reply_to = b"retried"
        try:
            async with running(log.write()):
                assert await asyncio.gather(*waiting) == ["stored", "unknown"]
                with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
                    await log.append(event("never stored"))
                await real.client.config_set("maxmemory", 0)
                assert await log.append(event("after")) is AppendResult.STORED
        finally:
            await real.client.config_set("maxmemory", 0)
        assert proxy.lost == 1
        stored = [fields[5] for _, fields in (await real.entries())[1:]]
        assert stored == [b'["retried"]', b'["after"]']
        await client.aclose()


async def test_scripts_are_loaded_again_when_redis_forgot_them(real: RedisChannel) -> None:
    log = real.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("a"))
        await real.client.script_flush()
        await log.append(event("b"))
    assert names(follower.entries) == ['["a"]', '["b"]']


# -- reading ----------------------------------------------------------------------------------------


async def test_followers_read_the_same_in_the_same_order(store: RedisChannel) -> None:
    logs = [store.log() for _ in range(2)]
    followers = [Follower(log) for log in logs]
    async with running(*(log.write() for log in logs), *(f.run() for f in followers)):
        await until(lambda: all(f.starts for f in followers))
        await asyncio.gather(*(log.append(event(f"{i}:{k}")) for k in range(300) for i, log in enumerate(logs)))
        await until(lambda: all(len(f.entries) == 600 for f in followers))
    assert names(followers[0].entries) == names(followers[1].entries)
    for follower in followers:
        ((position, why),) = follower.starts
        assert why == "boot"
        assert follower.numbers == list(range(position.n + 1, position.n + 601))


async def test_a_boot_starts_after_the_last_entry(store: RedisChannel) -> None:
    await fill(store.log(), "a", "b")
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await fill(store.log(), "c")
        await until(lambda: follower.entries)
    assert names(follower.entries) == ['["c"]']
    assert follower.starts[0][0].n == 3


async def test_follow_run_again_goes_on_where_it_was(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await fill(store.log(), "a")
        await until(lambda: follower.entries)
    await fill(store.log(), "b", "c")
    async with running(follower.run()):
        await until(lambda: len(follower.entries) == 3)
    assert names(follower.entries) == ['["a"]', '["b"]', '["c"]']
    assert follower.reasons == ["boot"]


async def test_a_node_that_the_log_was_trimmed_past_knows_it(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
    await fill(store.log(), *"abcdef")
    await store.client.xtrim(store.keys.log, maxlen=3, approximate=False)
    async with running(follower.run()):
        await until(lambda: len(follower.entries) == 3)
    assert names(follower.entries) == ['["d"]', '["e"]', '["f"]']
    assert follower.reasons == ["boot", "trimmed"]
    assert follower.starts[1][0] == Position(follower.starts[0][0].epoch, 4)


async def wipe(store: RedisChannel) -> None:
    await store.client.delete(store.keys.log, store.keys.meta)


async def test_a_log_begun_anew_is_another_epoch(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await fill(store.log(), "a", "b")
        await until(lambda: len(follower.entries) == 2)
        await store.until(await store.now() + 2)
        await wipe(store)
        await fill(store.log(), "c")
        await until(lambda: len(names(follower.entries)) == 3)
    assert follower.reasons == ["boot", "epoch"]
    first, second = (position for position, _ in follower.starts)
    assert second.epoch > first.epoch
    assert names(follower.entries)[-1] == '["c"]'
    assert follower.position == Position(second.epoch, 2)


async def test_a_log_begun_anew_is_noticed_though_nobody_writes(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "READ_BLOCK", 0.05)
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await store.until(await store.now() + 2)
        await wipe(store)
        await until(lambda: len(follower.starts) == 2)
    assert follower.reasons == ["boot", "epoch"]


async def test_a_log_begun_anew_by_an_earlier_clock_is_noticed(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "READ_BLOCK", 0.05)
    await store.log().tail(store.link())
    await store.client.hset(store.keys.meta, "ms", await store.now() + 3_600_000)
    log = store.log()
    follower = Follower(log)
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await wipe(store)
        await fill(store.log(), "a")  # its id is earlier than what the reader asks for
        await until(lambda: len(follower.starts) == 2)
        await fill(store.log(), "b")
        await until(lambda: '["b"]' in names(follower.entries))
    assert follower.reasons == ["boot", "epoch"]


async def lose_tail(store: RedisChannel, count: int) -> None:
    """As a failover to a replica that lagged behind."""
    entries = await store.entries()
    await store.client.delete(store.keys.log)  # rather than XDEL, so that ids may go back
    for id, fields in entries[:-count]:
        await store.link().call("XADD", store.keys.log, id, *fields)
    await store.client.hset(store.keys.meta, "n", len(entries) - count)


@pytest.mark.parametrize("written", [0, 2, 3, 6])
async def test_a_lost_tail_is_a_new_epoch_for_every_node(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Whether nothing, less, as much or more was written since than what was lost."""
    monkeypatch.setattr(log_module, "READ_BLOCK", 0.05)
    followers = [Follower(store.log()) for _ in range(3)]
    async with running(*(f.run() for f in followers)):
        await until(lambda: all(f.starts for f in followers))
        await fill(store.log(), *"abcdef")
        await until(lambda: all(len(f.entries) == 6 for f in followers))
    before = followers[0].starts[0][0].epoch
    await lose_tail(store, 3)
    await store.until(await store.now() + 2)
    await fill(store.log(), *("lost and found" for _ in range(written)))
    async with running(*(f.run() for f in followers)):
        await until(lambda: all(len(f.starts) > 1 for f in followers))
        await fill(store.log(), "after")
        await until(lambda: all('["after"]' in names(f.entries) for f in followers))
    assert [f.reasons for f in followers] == [["boot", "epoch"]] * 3
    (epoch,) = {f.starts[1][0].epoch for f in followers}
    assert epoch > before
    tail, _ = await store.log().tail(store.link())
    assert {f.position for f in followers} == {tail}


async def test_a_lost_tail_is_noticed_though_the_next_number_fits(
    store: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that took over has a clock behind: what it stored in place of what was lost is not read."""
    monkeypatch.setattr(log_module, "READ_BLOCK", 0.05)
    follower = Follower(store.log())
    async with running(follower.run()):
        await until(lambda: follower.starts)
        await fill(store.log(), "a", "b")
        await store.until(await store.now() + 2)
        await fill(store.log(), "c")
        await until(lambda: len(follower.entries) == 3)
    await lose_tail(store, 1)
    last, fields = (await store.entries())[-1]
    ms, _, n = last.partition(b"-")
    await store.link().call("XADD", store.keys.log, ms + b"-%d" % (int(n) + 1), *fields[:4], "data", '["instead of c"]')
    await store.client.hset(store.keys.meta, "n", int(n) + 1)
    await fill(store.log(), "d")
    async with running(follower.run()):
        await until(lambda: len(follower.starts) > 1)
        await fill(store.log(), "after")
        await until(lambda: '["after"]' in names(follower.entries))
    assert follower.reasons == ["boot", "epoch"]
    assert names(follower.entries) == ['["a"]', '["b"]', '["c"]', '["after"]']


async def test_of_nodes_that_renew_at_once_one_does(store: RedisChannel) -> None:
    position, _ = await store.log().tail(store.link())
    keys = [store.keys.log, store.keys.meta]
    epochs = await asyncio.gather(*(store.link().run(RENEW, keys, [position.epoch]) for _ in range(5)))
    (epoch,) = {int(e) for e in epochs}
    assert epoch > position.epoch
    assert await store.numbers() == [1, 2]
    await fill(store.log(), "a")
    assert await store.numbers() == [1, 2, 3]
    assert [int(fields[1]) for _, fields in await store.entries()] == [position.epoch, epoch, epoch]


async def test_a_new_epoch_is_later_than_the_one_that_is_gone(store: RedisChannel) -> None:
    log = store.log()
    first, _ = await log.tail(store.link())
    await store.client.delete(store.keys.meta)  # the stream stays
    second, _ = await log.tail(store.link())
    assert second.epoch > first.epoch
    assert second.n == first.n + 1  # what else is left and names entries by their numbers stays older


async def test_foreign_and_unreadable_entries_do_not_stop_the_reader(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("a"))
        await store.client.xadd(store.keys.log, {"not": "ours"})
        await log.append(Append('["kind of a later version"]'))
        await log.append(Append("not JSON"))
        await log.append(event("b"))
        await until(lambda: len(follower.entries) == 4)
    assert follower.reasons == ["boot"]
    assert [entry.kind for entry in follower.entries] == [EVENT, EPOCH, EPOCH, EVENT]
    assert names(follower.entries) == ['["a"]', '["b"]']


async def test_the_reader_goes_on_when_the_connection_breaks(real: RedisChannel) -> None:
    async with proxied(real) as (proxy, log):
        follower = Follower(log)
        async with running(log.write(), follower.run()):
            await until(lambda: follower.starts)
            for i in range(5):
                await log.append(event(str(i)))
                await proxy.cut()
            await log.append(event("5"))
        assert names(follower.entries) == [f'["{i}"]' for i in range(6)]
        assert follower.reasons == ["boot"]


async def test_a_connection_that_died_without_a_word_does_not_cost_an_emit(real: RedisChannel) -> None:
    """Neither the writer's nor the reader's: an attempt takes a part of the time that callers wait."""
    async with proxied(real, 20) as (proxy, log):
        follower = Follower(log)
        async with running(log.write(), follower.run()):
            await until(lambda: follower.starts)
            await log.append(event("before"))
            proxy.silence()
            assert await log.append(event("after")) is AppendResult.STORED
            await until(lambda: len(follower.entries) == 2)
        assert names(follower.entries) == ['["before"]', '["after"]']
        assert (await real.numbers())[-1] == 3


async def test_a_slow_link_with_large_entries_is_read_to_its_end(real: RedisChannel) -> None:
    """A reply may take much longer than Redis may be silent; and 512 entries may be too much for one reply."""
    log = real.log()
    await fill(log, "first")
    async with proxied(real, 1.2) as (proxy, slow):
        follower = Follower(slow)
        async with running(log.write()):
            async with running(follower.run()):
                await until(lambda: follower.starts)
            await asyncio.gather(*(log.append(event(str(i), b"x" * 200_000)) for i in range(60)))
        proxy.bandwidth = 8_000_000
        async with running(follower.run()):
            await until(lambda: len(follower.entries) == 60)
        assert follower.reasons == ["boot"]
        assert slow._read_size.count < 20


# -- finding an entry by its number -----------------------------------------------------------------


async def test_an_entry_is_found_by_its_number(store: RedisChannel) -> None:
    """Many entries share a millisecond; the log was trimmed, and an epoch began in between."""
    log = store.log()
    await fill(log, *"abc")
    before, _ = await log.tail(store.link())
    await store.link().run(RENEW, [store.keys.log, store.keys.meta], [before.epoch])
    async with running(log.write()):
        for _ in range(4):
            await asyncio.gather(*(log.append(event("e")) for _ in range(9)))
            await store.until(await store.now() + 2)
    await store.client.xadd(store.keys.log, {"not": "ours"})
    await store.client.xtrim(store.keys.log, maxlen=30, approximate=False)
    tail, _ = await log.tail(store.link())
    entries = {int(id.partition(b"-")[2]): id for id, fields in await store.entries() if fields[0] == b"epoch"}
    assert len(entries) == 29
    keys = [store.keys.log, store.keys.meta]
    for number in range(1, tail.n + 1):
        expected = entries[max(number, min(entries))]
        assert await store.link().run(SEEK, keys, [tail.epoch, number]) == expected, number
    for epoch, number in ((tail.epoch, tail.n + 1), (before.epoch, 2)):
        assert await store.link().run(SEEK, keys, [epoch, number]) == b""


async def test_an_event_comes_out_as_it_went_in(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    payload = Payload("m", b"\x81\xa1x", (), 1)
    head = event_head("/n", ["röom", 7], ["s1"], payload, volatile=True, callback=("node", 3))
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(Append(head, payload_fields(payload)))
        await until(lambda: follower.entries)
    (entry,) = follower.entries
    assert (entry.namespace, entry.rooms, entry.skip, entry.payload) == (
        "/n",
        ("röom", 7),
        ("s1",),
        payload,
    )
    assert (entry.volatile, entry.callback) == (True, ("node", 3))
    now = await store.now()
    assert now - 60_000 < entry.ms <= now


def test_the_keys_of_a_channel_share_a_hash_tag() -> None:
    keys = Keys("chat")
    for key in (keys.log, keys.meta, keys.closes, keys.producer("p"), keys.session("s")):
        assert key.startswith("{chat}:")
