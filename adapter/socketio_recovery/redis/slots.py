"""The hash slots of Redis Cluster, and which server has them.  No I/O.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/, ``CLUSTER SLOTS``.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Host and port.
Address = tuple[str, int]
#: What ``CLUSTER SLOTS`` replies: first and last slot, then servers, the master first: host, port, and more.
SlotsReply = Sequence[Sequence[Any]]

SLOTS = 16384


def slot_of(key: str) -> int:
    """The slot of a key: that of the part in braces, its *hash tag*, if it has one that is not empty."""
    data = key.encode()
    start = data.find(b"{")
    end = data.find(b"}", start + 1)
    tag = data[start + 1 : end] if start >= 0 and end > start + 1 else data
    return binascii.crc_hqx(tag, 0) % SLOTS


class Masters(NamedTuple):
    """What a server says of the cluster."""

    ranges: Sequence[tuple[int, int, Address]]
    servers: frozenset[Address]  #: all, replicas too

    def of(self, slot: int) -> Address | None:
        """The master of a slot; ``None`` if it has none."""
        return next((address for first, last, address in self.ranges if first <= slot <= last), None)


def masters(reply: SlotsReply, asked: str) -> Masters:
    """Reads the reply to ``CLUSTER SLOTS``.

    :param asked: the host that was asked: a server has no name for itself before it has met others, and gives ``?`` if
        it is to say a name that it was not told.
    """
    ranges: list[tuple[int, int, Address]] = []
    servers: set[Address] = set()
    for first, last, *found in reply:
        addresses = [(_text(host) or asked, int(port)) for host, port, *_ in found]
        servers.update(addresses)
        if addresses:
            ranges.append((int(first), int(last), addresses[0]))
    return Masters(ranges, frozenset(servers))


def _text(host: bytes | str | None) -> str:
    text = host.decode() if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text
