"""How much to read from the log at once.  No I/O.

Redis counts entries, not bytes: 512 entries may be 50 kB or 100 MB. So the count follows the size of the entries that
were read last. It grows slowly, and a reply that turns out to be far too large is given up and asked for in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

#: Entries in the first read.
FIRST: Final = 32
#: A reply may take so many times the bytes that a read aims at before it is given up.
EXCESS: Final = 8


class ReadSize:
    """The number of entries to ask for.

    :param most: entries in one read, at most.
    :param size: bytes that a read aims at.
    """

    def __init__(self, most: int, size: int) -> None:
        self.most = most
        self.size = size
        #: How many entries to ask for.
        self.count = min(FIRST, most)

    @property
    def limit(self) -> int:
        """How many bytes the reply may take before it is given up; 0 for no limit: one entry has to be read."""
        return self.size * EXCESS if self.count > 1 else 0

    def read(self, items: Sequence[Any], size: int = 0) -> None:
        """Notes what was read.

        :param items: what Redis returned: pairs (id, fields).
        :param size: bytes of the reply, if they are known.
        """
        if items:
            size = size or sum(len(field) for _, fields in items for field in fields)
            fitting = self.size * len(items) // max(size, 1)
            self.count = max(1, min(self.most, fitting, self.count * 4))

    def too_large(self) -> None:
        """The reply was given up."""
        self.count = max(1, self.count // EXCESS)
