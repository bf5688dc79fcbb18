"""What a node measures about itself: how many events it sends per second."""

from __future__ import annotations

import time
from collections import deque

#: The period over which events per second are averaged, in seconds.
RATE_PERIOD = 5.0


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
