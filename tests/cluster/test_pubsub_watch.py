"""A process that was forgotten in the change to this library emits by python-socketio's own manager."""

from __future__ import annotations

import asyncio

import socketio

from local.redis_server import RedisServer
from tests.support.node_process import StartNode
from tests.support.waiting import until


async def test_a_node_says_in_its_log_that_nobody_hears_it(
    start_node: StartNode, redis_server: RedisServer, channel: str
) -> None:
    a = await start_node()
    stranger = socketio.RedisManager(redis_server.url, channel=channel, write_only=True)

    async def heard() -> bool:
        await asyncio.to_thread(stranger.emit, "news", "text")
        return "no client gets that" in a.log()

    await until(heard)
    await until(heard)
    assert a.log().count("no client gets that") == 1
    assert f"publishes to the channel '{channel}'" in a.log()
    assert "write_only=True" in a.log()
