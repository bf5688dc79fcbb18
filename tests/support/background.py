"""Runs endless work in the background of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from socketio_recovery.aio.tasks import cancelled


@asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Runs work that never ends by itself, such as a log's reader, while the ``async with`` block runs.

    :raises AssertionError: if some of the work has ended before the block did.
    """
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        await cancelled(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
