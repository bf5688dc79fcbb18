"""The window: the recent part of the log that a node keeps in memory.  No I/O.

A node reads the whole log anyway. What it keeps of it, indexed by namespace and room, is a cache: it answers the
recovery of every client that was away for a short time, at the cost of what *that* client missed, not of what the
cluster said meanwhile. What the window no longer holds is read from the stream (``look_back.py``).

The window holds every entry n with ``floor < n <= last``, without a gap. Entries that no recovery needs
(volatile events, those with a callback, messages between nodes) keep their place, as their time alone.
It grows at the end as the node reads on. It loses its beginning when that is older than the retention,
or when it takes more than its share of memory.

Memory.  A node may keep hundreds of thousands of entries, so each is kept in parts, in parallel sequences: its time as
a machine integer, its data as it came, and a *key* with everything else, which entries to the same rooms share.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from .entries import CLOSE, DISCONNECT, ENTER, EVENT, LEAVE, Entry, Payload, Room

#: Trimming works on blocks of this many entries, so that its cost per entry is small.
BLOCK = 256
#: How many entries are kept as objects, for clients that come back at once and have missed the same.
MADE = 512
#: Bytes that an entry takes beside its data and its key, a key beside its text, and an attachment, roughly.
ENTRY, KEY, ATTACHMENT = 90, 500, 60

#: What entries share: ``(EVENT, namespace, rooms, skip, format, arity)`` or ``(kind, namespace, sid, room)``.
Key = tuple[Any, ...]
#: An entry's data: with its attachments in a tuple if there are any.
Body = bytes | tuple[bytes, ...]


class Window:
    """The entries of the log after ``floor``, up to ``last``.

    :param retention: how old an entry may be, in milliseconds, against the newest one (Redis's time).
    :param max_bytes: how much memory entries may take, in bytes, roughly.
    """

    def __init__(self, retention: int, max_bytes: int) -> None:
        self.retention = retention
        self.max_bytes = max_bytes
        self.reset(0)

    def reset(self, n: int) -> None:
        """Empties the window; the next entry is ``n + 1``."""
        self.floor = n
        self.bytes = 0
        self._ms = array("q")
        self._keys: list[Key | None] = []  # None: an entry that is not kept
        self._bodies: list[Body] = []
        #: The one object for each key, and how many entries share it.
        self._shared: dict[Key, Key] = {}
        self._sharing: dict[Key, int] = {}
        self._index: dict[str, dict[Room, array[int]]] = {}
        self._made: dict[int, Entry] = {}

    @property
    def last(self) -> int:
        """The number of the newest entry."""
        return self.floor + len(self._ms)

    def __len__(self) -> int:
        return len(self._ms)

    def __getitem__(self, n: int) -> Entry | None:
        """Entry ``n``, not to be changed; ``None`` where it is one that no recovery needs.

        :raises IndexError: outside ``floor < n <= last``.
        """
        if n in self._made:
            return self._made[n]
        i = n - self.floor - 1
        if i < 0:
            raise IndexError(n)
        key = self._keys[i]
        if key is None:
            return None
        if len(self._made) >= MADE:
            self._made.clear()
        entry = self._made[n] = _entry(n, self._ms[i], key, self._bodies[i])
        return entry

    def append(self, entry: Entry) -> None:
        """Adds the entry that follows ``last``."""
        self._ms.append(entry.ms)
        if not needed(entry):
            self._keys.append(None)
            self._bodies.append(b"")
            return
        key, body = _parts(entry)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = key
            self._sharing[key] = 0
            self.bytes += _size_of_key(key)
        self._sharing[key] += 1
        self._keys.append(shared)
        self._bodies.append(body)
        self.bytes += _size_of_body(body)
        rooms = self._index.get(entry.namespace)
        if rooms is None:
            rooms = self._index[entry.namespace] = {}
        for room in _places(key):
            numbers = rooms.get(room)
            if numbers is None:
                numbers = rooms[room] = array("q")
            numbers.append(entry.n)

    def trim(self, keep: int = sys.maxsize) -> None:
        """Forgets what is too old or too much. To be called now and then, after appending.

        :param keep: what is after this number is kept all the same.
        """
        if not self._ms:
            return
        oldest = self._ms[-1] - self.retention
        excess = self.bytes - self.max_bytes
        full = excess > 0
        most = min(len(self._ms), keep - self.floor)
        count = 0
        while count < most and (excess > 0 or self._ms[count] < oldest):
            if self._keys[count] is not None:
                excess -= _size_of_body(self._bodies[count])
            count += 1
        if count >= BLOCK or (full and count > 0):
            self._drop(count)

    def numbers(self, namespace: str, room: Room, after: int) -> Iterator[int]:
        """The numbers after ``after`` of the entries that concern ``room`` in ``namespace``, in order.

        The window must not change meanwhile.
        """
        numbers = self._index.get(namespace, {}).get(room)
        if not numbers or numbers[-1] <= after:
            return iter(())
        return map(numbers.__getitem__, range(bisect_right(numbers, after), len(numbers)))

    def between(self, namespace: str, room: Room, after: int, upto: int) -> Iterator[Entry]:
        """The entries that concern ``room`` in ``namespace`` with ``after < n <= upto``, in order."""
        for n in self.numbers(namespace, room, after):
            if n > upto:
                return
            entry = self[n]
            assert entry is not None
            yield entry

    def _drop(self, count: int) -> None:
        stale: set[tuple[str, Room]] = set()
        for key, body in zip(self._keys[:count], self._bodies[:count], strict=True):
            if key is None:
                continue
            self.bytes -= _size_of_body(body)
            self._sharing[key] -= 1
            if not self._sharing[key]:
                del self._sharing[key], self._shared[key]
                self.bytes -= _size_of_key(key)
            stale.update((key[1], room) for room in _places(key))
        del self._ms[:count], self._keys[:count], self._bodies[:count]
        self._made.clear()
        self.floor += count
        for namespace, room in stale:
            numbers = self._index[namespace][room]
            del numbers[: bisect_right(numbers, self.floor)]
            if not numbers:
                del self._index[namespace][room]
                if not self._index[namespace]:
                    del self._index[namespace]


def needed(entry: Entry) -> bool:
    """Whether a recovery may need the entry."""
    return entry.replayed or entry.kind in (ENTER, LEAVE, CLOSE, DISCONNECT)


def _parts(entry: Entry) -> tuple[Key, Body]:
    if entry.kind != EVENT:
        return (entry.kind, entry.namespace, entry.sid, entry.room), b""
    payload = entry.payload
    assert payload is not None
    key = (EVENT, entry.namespace, tuple(entry.rooms), tuple(entry.skip), payload.format, payload.arity)
    return key, (payload.data, *payload.attachments) if payload.attachments else payload.data


def _entry(n: int, ms: int, key: Key, body: Body) -> Entry:
    entry = Entry(key[0], n, ms)
    if key[0] != EVENT:
        _, entry.namespace, entry.sid, entry.room = key
    else:
        _, entry.namespace, entry.rooms, entry.skip, format, arity = key
        data, *attachments = body if isinstance(body, tuple) else (body,)
        entry.payload = Payload(format, data, attachments, arity)
    return entry


def _size_of_body(body: Body) -> int:
    if isinstance(body, bytes):
        return ENTRY + len(body)
    return ENTRY + sum(len(part) + ATTACHMENT for part in body)


def _size_of_key(key: Key) -> int:
    rooms: Sequence[Room] = (*key[2], *key[3]) if key[0] == EVENT else key[2:]
    return KEY + sum(len(room) + ATTACHMENT for room in rooms if isinstance(room, str))


def _places(key: Key) -> Sequence[Room]:
    """The rooms under which a window lists an entry: those that an event is for, or the room that is closed.

    An entry about one session is listed under the session's own room, the one named by its ``sid``.
    """
    if key[0] == EVENT:
        return key[2] or (None,)
    return key[3:] if key[0] == CLOSE else key[2:3]
