"""Gathers the answers of several clients, or of several nodes, to one question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any


class Gathering:
    """Answers to one question. Only the first answer of each counts."""

    def __init__(self) -> None:
        #: The arguments of the answers, by who gave them.
        self.got: dict[str, Sequence[Any]] = {}
        self._missing: set[str] | None = None
        self._complete = asyncio.Event()

    def add(self, by: str, arguments: Sequence[Any]) -> None:
        """Somebody answers."""
        self.got.setdefault(by, arguments)
        if self._missing is not None:
            self._missing.discard(by)
            if not self._missing:
                self._complete.set()

    async def wait(self, names: Iterable[str], timeout: float) -> None:
        """Waits until all of these have answered, or ``timeout`` seconds have passed."""
        self._missing = set(names) - self.got.keys()
        if self._missing:
            try:
                async with asyncio.timeout(timeout):
                    await self._complete.wait()
            except TimeoutError:
                pass
