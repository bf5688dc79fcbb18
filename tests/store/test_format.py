"""The log's format, on each server: versions that know it work side by side, others leave it alone."""

from __future__ import annotations

import logging

import pytest
from socketio_recovery import UnsupportedFormat
from socketio_recovery.aio.log import Log
from socketio_recovery.redis.format import SUPPORTED, Formats

from tests.support.appends import event
from tests.support.background import running
from tests.support.redis_channel import RedisChannel


def log_of(store: RedisChannel, oldest: int, newest: int) -> Log:
    """The log, as a version sees it that knows these formats."""
    log = store.log()
    log.formats = Formats(oldest, newest)
    return log


async def meta(store: RedisChannel) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await store.client.hgetall(store.keys.meta)
    return found


async def test_a_log_begins_with_the_oldest_format(store: RedisChannel) -> None:
    await log_of(store, 1, 2).tail(store.link())
    assert (await meta(store))[b"format"] == b"%d" % SUPPORTED.oldest


async def test_a_log_that_does_not_say_its_format_has_the_first(store: RedisChannel) -> None:
    await store.client.hset(store.keys.meta, "epoch", 7)
    await store.client.hset(store.keys.meta, "n", 3)
    await store.client.hset(store.keys.meta, "ms", 9)
    with pytest.raises(UnsupportedFormat, match="has format 1"):
        await log_of(store, 2, 3).tail(store.link(), retention=5)
    assert set(await meta(store)) == {b"epoch", b"n", b"ms"}  # it is left alone
    await store.log().tail(store.link())
    assert (await meta(store))[b"format"] == b"1"


async def test_a_log_stays_in_its_format_until_that_is_raised(
    store: RedisChannel, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = log_of(store, 1, 1), log_of(store, 1, 2)
    async with running(old.write(), new.write()):
        for log in (old, new, old):
            await log.append(event("e"))
        await new.tail(store.link(), raise_format=True)
        assert (await meta(store))[b"format"] == b"2"
        await new.append(event("e"))
        with pytest.raises(UnsupportedFormat, match="has format 2"):
            await old.tail(store.link(), retention=5)
        with pytest.raises(UnsupportedFormat, match="has format 2"):
            await old.append(event("not stored"))
        assert [r.levelno for r in caplog.records if "has format 2" in r.getMessage()] == [logging.ERROR]
    assert b"retention" not in await meta(store)
    assert await store.heads() == ['["event","/"]'] * 4


async def test_a_writer_looks_at_the_format_before_it_writes(store: RedisChannel) -> None:
    await log_of(store, 1, 2).tail(store.link(), raise_format=True)
    old = log_of(store, 1, 1)
    async with running(old.write()):
        for _ in range(2):
            with pytest.raises(UnsupportedFormat):
                await old.append(event("not stored"))
    assert await store.heads() == []
