"""Whether the event loop is busy: how late it runs a timer."""

from __future__ import annotations

import asyncio

from ..metrics import Metrics

#: How often it looks, in seconds.
EVERY = 0.5


async def measure_loop_delay(metrics: Metrics) -> None:
    """Tells how late the event loop runs a timer, for ever. To be run as a task."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        metrics.loop_delayed(max(0.0, loop.time() - due))
