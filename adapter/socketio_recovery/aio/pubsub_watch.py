"""Notices who still emits by python-socketio's own Redis managers: by publish/subscribe, which nobody here hears.

A process that was forgotten in the change to this library (a Celery task, a script) publishes to the channel that has
the cluster's name, and gets no error. So a node subscribes to that channel and says so in its log. What is published is
not looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from .tasks import Backoff

#: Seconds between two warnings, at least.
AGAIN = 600.0
#: Seconds until it subscribes, at most.
FIRST = 1.0


class PubSubWatch:
    """Subscribes to the channel, as long as Redis allows that. What goes wrong does no harm.

    :param pubsub: makes a subscriber: ``client.pubsub``.
    """

    def __init__(self, pubsub: Callable[..., Any], channel: str, logger: logging.Logger) -> None:
        self.pubsub = pubsub
        self.channel = channel
        self.logger = logger
        self._warned: float | None = None

    async def run(self) -> None:
        """Listens for ever, from a moment after the start on: a node has something better to do first."""
        backoff = Backoff(first=FIRST, most=60)
        while True:
            await backoff.wait()
            try:
                await self._listen()
            except Exception as error:  # Redis is away, or does not allow it
                self.logger.debug("can't listen for publishers: %s", error)

    async def _listen(self) -> None:
        subscriber = self.pubsub(ignore_subscribe_messages=True)
        try:
            await subscriber.subscribe(self.channel)
            async for _ in subscriber.listen():
                self._heard()
        finally:
            await subscriber.aclose()

    def _heard(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._warned is None or now - self._warned >= AGAIN:
            self._warned = now
            self.logger.warning(
                "somebody publishes to the channel %r, as python-socketio's RedisManager and AsyncRedisManager do, and "
                "no client gets that. To emit from a process without a server, use RedisStreamsManager or "
                "AsyncRedisStreamsManager with write_only=True, with the same URL and channel",
                self.channel,
            )
