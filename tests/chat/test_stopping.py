"""A node stops, whatever its tasks are doing when they are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chat.events import Chat
from chat.settings import ChatSettings
from local.processes import die_with_parent
from local.redis_server import RedisServer


@pytest.mark.parametrize("steps", range(8))
async def test_a_node_stops_while_it_sends_a_heartbeat(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In some steps of a command, the cancellation of the task that waits for it gets lost (Python 3.11).

    :param steps: how many steps of the event loop after the beginning of a heartbeat the node is stopped.
    """
    redis = RedisServer(preexec=die_with_parent)
    try:
        chat = Chat(ChatSettings.of({"REDIS_URL": redis.url, "NODE_NAME": "node"}))
        begun, heartbeat = asyncio.Event(), chat.store.heartbeat

        async def observed(*arguments: Any) -> Any:
            begun.set()
            return await heartbeat(*arguments)

        try:
            await chat.start()
            monkeypatch.setattr(chat.store, "heartbeat", observed)
            await begun.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            async with asyncio.timeout(20):
                await chat.stop()
    finally:
        redis.stop()
