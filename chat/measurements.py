"""What a node measures about itself: how far it is behind the log, and how many events it sends per second."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from .store import UNAVAILABLE

#: Seconds between two measurements of the log's lag.
PROBE_INTERVAL = 2.0
#: The period over which events per second are averaged, in seconds.
RATE_PERIOD = 5.0


class LogLag:
    """How far a node is behind the log: the time from appending an entry until this node has read it.

    :param probe: appends an event that no client receives to the log; returns when this node has read it back.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._last = 0.0
        self._probing_since: float | None = None

    @property
    def seconds(self) -> float:
        """The last measured lag, or the time for which the current probe has been waiting if that is longer."""
        waiting = time.monotonic() - self._probing_since if self._probing_since is not None else 0.0
        return max(self._last, waiting)

    async def measure_forever(self) -> None:
        """Measures the lag every :data:`PROBE_INTERVAL` seconds until the task is cancelled."""
        while True:
            self._probing_since = time.monotonic()
            try:
                await self._probe()
                self._last = time.monotonic() - self._probing_since
            except UNAVAILABLE:
                self._last = time.monotonic() - self._probing_since
            self._probing_since = None
            await asyncio.sleep(PROBE_INTERVAL)


class EventRate:
    """How many events per second this node appends to the log, averaged over :data:`RATE_PERIOD` seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Counts one event that is being sent through the log now."""
        self._times.append(time.monotonic())

    @property
    def per_second(self) -> float:
        since = time.monotonic() - RATE_PERIOD
        while self._times and self._times[0] < since:
            self._times.popleft()
        return len(self._times) / RATE_PERIOD
