"""How far back a client can recover now: what the log and the window really hold.  No I/O.

A client recovers if everything after the time at which it left is still there. So what counts is when the newest entry
that is *missing* was stored: a log that holds only a few seconds may be young, quiet, or cut too short. The log does
not say when an entry that it lost was stored. So a node notes now and then where the log ends and when that was
stored. By these notes the time of every later number is known, a little too late rather than too early.

What was lost before the first note is not known. It is taken for old: after ``max_disconnection_duration`` it is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

#: How many notes are kept, roughly. Their times differ by the retention over this.
NOTES = 200


class Extent(NamedTuple):
    """What the log holds, as Redis tells it."""

    now: int  #: ms since 1970
    epoch: int
    last: int  #: the number of the newest entry
    ms: int  #: when that was stored
    lost: int  #: the number of the newest entry that is not held any more; 0 if none of this epoch is missing


class Retention:
    """How far back the log and the window reach.

    :param most: how long entries are kept, in milliseconds. Nothing reaches further back, as far as anybody needs.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._epoch = 0
        self._lost = 0
        #: Numbers of entries, ascending, and when each was stored.
        self._numbers: list[int] = []
        self._times: list[int] = []

    def note(self, extent: Extent) -> None:
        """Takes in what the log holds. To be called every few seconds."""
        if extent.epoch != self._epoch:
            self._epoch = extent.epoch
            self._numbers, self._times = [], []
        self._lost = extent.lost
        numbers, times = self._numbers, self._times
        if numbers and numbers[-1] >= extent.last:
            return
        if len(times) > 1 and times[-1] - times[-2] < self.most // NOTES:
            del numbers[-1], times[-1]  # what the next note says is exact enough
        numbers.append(extent.last)
        times.append(extent.ms)
        old = bisect_left(times, extent.now - self.most) - 1
        if old > 0:
            del numbers[:old], times[:old]

    def stream(self, now: int) -> float | None:
        """How far back the log reaches, in seconds; ``None`` before it was looked at.

        :param now: Redis's time (ms since 1970).
        """
        if not self._numbers:
            return None
        stored = self._stored(self._lost)
        return self._seconds(now, now - self.most if stored is None else stored)

    def window(self, floor: int, now: int) -> float | None:
        """How far back the window reaches, in seconds; ``None`` before the log was looked at.

        :param floor: the newest number that it does not hold.
        """
        if not self._numbers:
            return None
        stored = self._stored(floor)
        return self._seconds(now, self._times[0] if stored is None else stored)

    def _stored(self, n: int) -> int | None:
        """When entry ``n`` was stored, at the latest; ``None`` if it was before what is known."""
        if n < self._numbers[0]:
            return None
        i = bisect_left(self._numbers, n)
        return self._times[min(i, len(self._times) - 1)]

    def _seconds(self, now: int, stored: int) -> float:
        return max(0, min(now - stored, self.most)) / 1000


def shortage(reaches: float, needed: float, held: int, max_length: int, key: str) -> str:
    """What an operator should know if the log reaches less far back than clients may be away.

    :param reaches: how far back it reaches, in seconds.
    :param needed: ``max_disconnection_duration``, in seconds.
    :param held: how many entries the log holds.
    :param max_length: as this node has it, 0 for none.
    :param key: the log's name in Redis.
    """
    said = (
        f"clients that were away for more than {reaches:.3g} s can't recover now, though max_disconnection_duration is "
        f"{needed:g} s: the log holds no more than that. "
    )
    if max_length:
        enough = round(held * needed / max(reaches, 0.1) * 1.5)
        return said + f"Raise max_length, which is {max_length}: at this rate, {enough} would do. Or leave it out."
    return said + f"This node sets no max_length. Look which process sets one, or trims or deletes {key!r} in Redis."
