"""The window: the recent part of the log that a node keeps in memory.  No I/O.

A node reads the whole log anyway. What it keeps of it, indexed by namespace and room, answers every
recovery: the cost is what *that* client missed, not what the cluster said meanwhile.

The window holds every entry n with ``floor < n <= last``, without a gap. Entries that no recovery needs
(volatile events, those with a callback, messages between nodes) keep their place, as their time alone.
It grows at the end as the node reads on; it loses its beginning when that is older than the retention,
or when it takes more than its share of memory; and it grows at the beginning when a client returns to a
node that has not been up for long enough (:meth:`Window.prepend`).
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from .entries import CLOSE, DISCONNECT, ENTER, LEAVE, Entry, Packed, Room, pack, places, size_of, unpack

#: Trimming works on blocks of this many entries, so that its cost per entry is small.
BLOCK = 256


class Window:
    """The entries of the log after ``floor``, up to ``last``.

    :param retention: how old an entry may be, in milliseconds, against the newest one (Redis's time).
    :param max_bytes: how much memory entries may take, in bytes, roughly.
    """

    def __init__(self, retention: int, max_bytes: int) -> None:
        self.retention = retention
        self.max_bytes = max_bytes
        self.reset(0, 0)

    def reset(self, n: int, ms: int) -> None:
        """Empties the window; the next entry is ``n + 1``. Entry ``n`` was stored at ``ms``, or before."""
        self.floor = n
        self.newest_ms = ms
        self.bytes = 0
        self._entries: list[Packed | int] = []  # an int is the ms of an entry that is not kept
        self._index: dict[str, dict[Room, list[int]]] = {}

    @property
    def last(self) -> int:
        """The number of the newest entry."""
        return self.floor + len(self._entries)

    @property
    def full(self) -> bool:
        """Whether it takes more than its share of memory."""
        return self.bytes > self.max_bytes

    @property
    def floor_ms(self) -> int:
        """When entry ``floor`` was stored, or a little later (ms since 1970, Redis's time)."""
        return _ms(self._entries[0]) if self._entries else self.newest_ms

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, n: int) -> Entry | None:
        """Entry ``n``; ``None`` where it is one that no recovery needs.

        :raises IndexError: outside ``floor < n <= last``.
        """
        if n <= self.floor:
            raise IndexError(n)
        entry = self._entries[n - self.floor - 1]
        return None if isinstance(entry, int) else unpack(n, entry)

    def ms(self, n: int) -> int:
        """When entry ``n`` was stored (ms since 1970, Redis's time).

        :raises IndexError: outside ``floor < n <= last``.
        """
        if n <= self.floor:
            raise IndexError(n)
        return _ms(self._entries[n - self.floor - 1])

    def append(self, entry: Entry) -> None:
        """Adds the entry that follows ``last``."""
        self.newest_ms = entry.ms
        if not needed(entry):
            self._entries.append(entry.ms)
            return
        packed = pack(entry)
        self._entries.append(packed)
        self.bytes += size_of(packed)
        for room in places(packed):
            self._list(entry.namespace, room).append(entry.n)

    def prepend(self, entries: Sequence[Entry]) -> None:
        """Adds the entries, oldest first and without a gap, that end at ``floor``."""
        self._entries[:0] = new = [pack(entry) if needed(entry) else entry.ms for entry in entries]
        self.floor -= len(entries)
        found: dict[tuple[str, Room], list[int]] = {}
        for n, packed in enumerate(new, self.floor + 1):
            if not isinstance(packed, int):
                self.bytes += size_of(packed)
                for room in places(packed):
                    found.setdefault((packed[2], room), []).append(n)
        for (namespace, room), numbers in found.items():
            self._list(namespace, room)[:0] = numbers

    def trim(self, keep: int = sys.maxsize) -> None:
        """Forgets what is too old or too much. To be called now and then, after appending.

        :param keep: what is after this number is not too old: a client is about to get it. It may still be
            too much.
        """
        oldest = self.newest_ms - self.retention
        excess = self.bytes - self.max_bytes
        count = 0
        for entry in self._entries:
            if excess <= 0 and (_ms(entry) >= oldest or self.floor + count >= keep):
                break
            if not isinstance(entry, int):
                excess -= size_of(entry)
            count += 1
        if count >= BLOCK or self.full:
            self._drop(count)

    def after(self, namespace: str, room: Room, n: int) -> int | None:
        """The first entry after ``n`` that concerns ``room`` in ``namespace``; ``None`` if there is none."""
        numbers = self._index.get(namespace, {}).get(room)
        if not numbers or numbers[-1] <= n:
            return None
        return numbers[bisect_right(numbers, n)]

    def between(self, namespace: str, room: Room, after: int, upto: int) -> Iterator[Entry]:
        """The entries that concern ``room`` in ``namespace`` with ``after < n <= upto``, in order."""
        n = self.after(namespace, room, after)
        while n is not None and n <= upto:
            entry = self[n]
            assert entry is not None
            yield entry
            n = self.after(namespace, room, n)

    def _list(self, namespace: str, room: Room) -> list[int]:
        rooms = self._index.get(namespace)
        if rooms is None:
            rooms = self._index[namespace] = {}
        numbers = rooms.get(room)
        if numbers is None:
            numbers = rooms[room] = []
        return numbers

    def _drop(self, count: int) -> None:
        stale: set[tuple[str, Room]] = set()
        for entry in self._entries[:count]:
            if not isinstance(entry, int):
                self.bytes -= size_of(entry)
                stale.update((entry[2], room) for room in places(entry))
        del self._entries[:count]
        self.floor += count
        for namespace, room in stale:
            numbers = self._index[namespace][room]
            del numbers[: bisect_right(numbers, self.floor)]
            if not numbers:
                del self._index[namespace][room]
                if not self._index[namespace]:
                    del self._index[namespace]


def _ms(entry: Packed | int) -> int:
    return entry if isinstance(entry, int) else int(entry[1])


def needed(entry: Entry) -> bool:
    """Whether a recovery may need the entry."""
    return entry.replayed or entry.kind in (ENTER, LEAVE, CLOSE, DISCONNECT)
