"""A sign of life on standard error, while a command looks at many keys. Nothing is written where nobody watches."""

from __future__ import annotations

import sys
from types import TracebackType

#: Keys looked at between two signs.
EVERY = 10_000


class Progress:
    """To be used in a ``with`` block; what it has shown goes with the block.

    :param what: what is looked at, in the plural.
    :param total: how many keys the database has.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.looked = 0

    def add(self, count: int) -> None:
        """So many more were looked at."""
        before, self.looked = self.looked, self.looked + count
        if self.looked // EVERY > before // EVERY:
            self._show(f"{self.looked:,} {self.what} so far; the database has {self.total:,} keys")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._show("")

    @staticmethod
    def _show(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
