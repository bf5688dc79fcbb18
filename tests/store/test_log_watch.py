"""What a node finds out about the log: whether it holds what clients may come back for, and how far behind it is."""

from __future__ import annotations

import asyncio
import logging

import pytest
from socketio_recovery.aio import log_watch
from socketio_recovery.aio.log_watch import LogWatch
from socketio_recovery.partition import Partition
from socketio_recovery.redis.scripts import EXTENT

from tests.support.appends import event
from tests.support.background import running
from tests.support.follower import Follower, partition
from tests.support.redis_channel import RedisChannel
from tests.support.waiting import until

LOGGER = logging.getLogger("test.log_watch")
RETENTION = 60_000
NEEDED = 30.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_watch, "EVERY", 0.02)


def watching(store: RedisChannel, partition: Partition, max_length: int = 0) -> LogWatch:
    return LogWatch(store.calls(), store.keys, partition, RETENTION, NEEDED, max_length, 5, LOGGER)


async def extent(store: RedisChannel) -> list[int]:
    """The number of the last entry, and the newest that is not held any more."""
    _, _, last, _, lost = await store.calls().run(EXTENT, [store.keys.log, store.keys.meta], [], 5)
    return [int(last), int(lost)]


async def test_what_the_log_holds(store: RedisChannel) -> None:
    log = store.log()
    assert await extent(store) == [1, 0]  # which begins it
    async with running(log.write()):
        for _ in range(4):
            await log.append(event("e"))
        assert await extent(store) == [5, 0]
        await store.link().call("XTRIM", store.keys.log, "MAXLEN", 2)
        assert await extent(store) == [5, 3]
        await store.link().call("XTRIM", store.keys.log, "MAXLEN", 0)
        assert await extent(store) == [5, 5]
        await log.append(event("e"))
        assert await extent(store) == [6, 5]
        await store.link().call("DEL", store.keys.meta)
        last, lost = await extent(store)  # a new epoch
        assert (last, lost) == (7, 0)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_a_log_that_is_whole_is_no_cause_for_a_warning(
    store: RedisChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """It is young: that it holds only a moment means nothing."""
    log = store.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await log.append(event("e"))
        assert log.partition is not None
        watch = watching(store, log.partition)
        now = asyncio.get_running_loop().time
        assert (watch.stream(now()), watch.window(now()), watch.lag(now())) == (None, None, 0)
        async with running(watch.run()):
            await until(lambda: watch.stream(now()) is not None)
            await log.append(event("e"))
            assert watch.stream(now()) == RETENTION / 1000
            window = watch.window(now())
            assert window is not None
            assert 0 <= window < 40  # since it began to follow the log
    assert warned(caplog) == []


@pytest.mark.parametrize("max_length", [0, 10], ids=["by hand", "max_length"])
async def test_a_log_that_is_too_short_is_told_once(
    real: RedisChannel, caplog: pytest.LogCaptureFixture, max_length: int
) -> None:
    log = real.log(retention=RETENTION, max_length=max_length)
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await log.append(event("e"))
        assert log.partition is not None
        watch = watching(real, log.partition, max_length)
        now = asyncio.get_running_loop().time
        async with running(watch.run()):
            await until(lambda: watch.stream(now()) is not None)
            while not warned(caplog):
                for _ in range(100):
                    log.queue(event("e"))
                await log.append(event("e"))
                if not max_length:
                    await real.link().call("XTRIM", real.keys.log, "MAXLEN", 5)
            reaches = watch.stream(now())
            assert reaches is not None
            assert reaches < NEEDED
            looks = len(caplog.records)
            for _ in range(5):
                await asyncio.sleep(0.05)
                assert len(caplog.records) == looks
    (warning,) = warned(caplog)
    assert "max_disconnection_duration is 30 s" in warning
    assert ("Raise max_length, which is 10" if max_length else f"deletes '{real.keys.log}' in Redis") in warning


async def test_the_lag_is_how_long_the_node_takes_until_it_is_where_the_log_was(store: RedisChannel) -> None:
    log, here = store.log(), partition()
    watch = watching(store, here)
    now = asyncio.get_running_loop().time
    async with running(log.write()):
        await log.append(event("e"))
        async with running(watch.run()):
            await until(lambda: watch.lag(now()) > 0.2)  # nobody follows the log here
            log.partition = here
            async with running(Follower(log).run()):
                await until(lambda: watch.lag(now()) < 0.1)
                log.partition = None


async def test_while_redis_is_silent_the_lag_grows(store: RedisChannel) -> None:
    log = store.log()
    follower = Follower(log)
    now = asyncio.get_running_loop().time
    async with running(log.write(), follower.run()):
        await log.append(event("e"))
        assert log.partition is not None
        watch = watching(store, log.partition)
        watch.timeout = 0.05
        async with running(watch.run()):
            await until(lambda: watch.stream(now()) is not None)
            await watch.calls.close()  # from now on every call fails, as without Redis
            await until(lambda: watch.lag(now()) > 0.3)
