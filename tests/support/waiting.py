"""Waits for conditions: a test never waits for a fixed time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

#: How many seconds a condition may take to become true before the test fails.
PATIENCE = 40.0


async def until(condition: Callable[[], Any], what: Callable[[], object] | str = "", patience: float = PATIENCE) -> Any:
    """Waits until ``condition()``, a function or a coroutine function, gives a true value, and returns this value.

    :param what: names what was waited for, in the error.
    :raises AssertionError: if the condition is still false after ``patience`` seconds.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if loop.time() > end:
            raise AssertionError(f"not within {patience} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.01)
