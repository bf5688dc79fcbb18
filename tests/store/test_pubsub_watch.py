"""The watch for publishers ends when it is told to, whatever it is about to do."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis.asyncio
from socketio_recovery.aio import pubsub_watch
from socketio_recovery.aio.life import Background
from socketio_recovery.aio.pubsub_watch import PubSubWatch
from socketio_recovery.metrics import NO_METRICS

from local.redis_server import RedisServer
from tests.support.logger import LOGGER
from tests.support.waiting import PATIENCE


async def test_it_ends_at_any_moment(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_watch, "FIRST", 0.0001)
    for _ in range(100):
        client = redis.asyncio.Redis.from_url(redis_server.url)
        background = Background(NO_METRICS, LOGGER)
        background.start({"watch": PubSubWatch(client.pubsub, "channel", LOGGER).run})
        await asyncio.sleep(random.uniform(0, 0.003))
        async with asyncio.timeout(PATIENCE):
            await background.stop()
        await client.aclose()
