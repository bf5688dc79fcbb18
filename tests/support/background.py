"""Runs endless work in the background of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress


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
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
