"""What the command line shows of session records. It asks for nothing that is secret, nor for the session's data."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from .channel import Channel
from .text import decoded

#: What is asked of a record. ``hash``, ``open``, ``data`` and ``extra`` stay in Redis.
FIELDS = ("ns", "token", "holder", "deadline", "adopted", "birth", "claims", "epoch")
#: Where the log is looked at, to tell the time of numbers.
SAMPLES = 256

CONNECTED, RECONNECTING, LOST, EXPIRED = "connected", "reconnecting", "lost", "expired"
STATES = (CONNECTED, RECONNECTING, LOST, EXPIRED)


class Row(NamedTuple):
    """A session.

    ``state``: ``"connected"``; ``"reconnecting"``: it waits for its client; ``"lost"``: its node is dead, and another
    one runs its ``disconnect`` handler; ``"expired"``: its time is over.
    """

    sid: str
    namespace: str
    state: str
    node: str  #: the name of its node; ``""`` while it waits
    claims: int  #: how often its client connected
    birth: int  #: the last number of the log when it was created
    epoch: int
    left: float  #: how long it lives if nothing happens, in seconds; below 0 for one that is over
    rooms: list[str]


class Ages:
    """Tells when numbers of the log were given, from some entries of it.

    :param found: (number, ms) of entries, in order.
    """

    def __init__(self, epoch: int, found: Sequence[tuple[int, int]], now: int) -> None:
        self.epoch = epoch
        self.now = now
        self._numbers = [n for n, _ in found]
        self._times = [ms for _, ms in found]

    def age(self, row: Row) -> float | None:
        """How old a session is, in seconds, to within a few of the retention; ``None`` if it is older than the log."""
        at = bisect_right(self._numbers, row.birth)
        if row.epoch != self.epoch or not at or not self._numbers:
            return None
        return max(0.0, (self.now - self._times[min(at, len(self._times) - 1)]) / 1000)


async def ages(channel: Channel) -> Ages:
    """Looks at entries of the log that are spread evenly over time."""
    key = channel.keys.log
    now = await channel.now()
    epoch = int(await channel.call("HGET", channel.keys.meta, "epoch") or 0)
    ends = (
        await channel.call("XRANGE", key, "-", "+", "COUNT", 1),
        await channel.call("XREVRANGE", key, "+", "-", "COUNT", 1),
    )
    if not ends[0]:
        return Ages(epoch, [], now)
    first, last = (int(end[0][0].partition(b"-")[0]) for end in ends)
    times = [first + (last - first) * i // SAMPLES for i in range(SAMPLES)]
    replies = await channel.call_many([("XRANGE", key, time, "+", "COUNT", 1) for time in times])
    found = {
        _numbered(items[0][0])
        for items in (*replies, ends[1])
        if items and items[0][1][:2] == [b"epoch", b"%d" % epoch]
    }
    return Ages(epoch, sorted(found), now)


def _numbered(id: bytes) -> tuple[int, int]:
    ms, _, n = id.partition(b"-")
    return int(n), int(ms)


async def rows(channel: Channel, now: int, keys: Sequence[bytes], rooms: bool = True) -> AsyncIterator[Row]:
    """The sessions of some keys; what is no session record is left out.

    :param rooms: ask for their rooms, too.
    """
    found = await _records(channel, keys)
    names: list[list[bytes]] = [[] for _ in found]
    if rooms:
        replies = await channel.call_many([("HKEYS", key) for key, _ in found])
        names = [[name[2:] for name in reply if name.startswith(b"r:")] for reply in replies]
    prefix = len(channel.keys.session("").encode())
    names = await _still_open(channel, found, names)
    for (key, values), present in zip(found, names, strict=True):
        namespace, token, holder, deadline, adopted, birth, claims, epoch = values
        left = (_number(deadline) - now) / 1000
        state = CONNECTED if token else RECONNECTING
        if adopted or left < 0:
            state = LOST if token else EXPIRED
        yield Row(
            *(decoded(key[prefix:]), decoded(namespace), state, _node(holder) if token else "", _number(claims)),
            *(_number(birth), _number(epoch), left, sorted(map(_room, present))),
        )


async def _records(channel: Channel, keys: Sequence[bytes]) -> list[tuple[bytes, list[bytes | None]]]:
    replies = await channel.link.run_many([], *[("HMGET", key, *FIELDS) for key in keys]) if keys else []
    return [
        (key, reply)
        for key, reply in zip(keys, replies, strict=True)
        if not isinstance(reply, Exception) and reply[0] is not None
    ]


async def _still_open(
    channel: Channel, records: Sequence[tuple[bytes, list[bytes | None]]], names: list[list[bytes]]
) -> list[list[bytes]]:
    """The rooms of records without those that were closed since; see ``redis/lua/_rooms.lua``."""
    open_: list[list[bytes]] = []
    fields = [
        [(values[0] or b"") + b"\n" + room for room in rooms] for (_, values), rooms in zip(records, names, strict=True)
    ]
    replies = iter(await channel.call_many([("HMGET", channel.keys.closes, *some) for some in fields if some]))
    for (key, _), rooms in zip(records, names, strict=True):
        closings = next(replies) if rooms else []
        if any(closings):
            entered = await channel.call("HMGET", key, *[b"r:" + room for room in rooms])
            rooms = [
                room
                for room, numbers, since in zip(rooms, closings, entered, strict=True)
                if not any(int(n) > _number(since) for n in (numbers or b"").split() if n.isdigit())
            ]
        open_.append(rooms)
    return open_


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() and len(value) < 20 else 0


def _node(holder: bytes | None) -> str:
    try:
        return str(json.loads(b"[" + (holder or b"") + b"]")[0])
    except (ValueError, IndexError, RecursionError):
        return ""


def _room(name: bytes) -> str:
    """The room in a record's field: JSON."""
    try:
        room: Any = json.loads(name)
    except (ValueError, RecursionError):
        return decoded(name)
    return decoded(str(room).encode(errors="surrogatepass"))
