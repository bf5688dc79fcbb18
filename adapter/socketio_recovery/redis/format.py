"""The formats of what this library keeps in Redis.  No I/O.

A format is everything that processes of one cluster have to agree on: the entries, the records, the keys. A log stays
in the format that it has. So a version that knows the format before its own can take the place of nodes one by one;
when all have it, an operator raises the format (:meth:`AsyncRedisStreamsManager.raise_format`).
"""

from __future__ import annotations

from typing import NamedTuple


class Formats(NamedTuple):
    """The formats that a version knows: these two, and those between them."""

    oldest: int
    newest: int

    def include(self, format: int) -> bool:
        return self.oldest <= format <= self.newest


#: Of this version. A log that does not say its format has format 1.
SUPPORTED = Formats(1, 1)
