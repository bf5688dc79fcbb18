"""The names of everything that one manager keeps in Redis."""

from __future__ import annotations

from zlib import crc32

from ..entries import Room, dump


def partition_of(namespace: str, shards: int) -> int:
    """The number of the partition that a namespace belongs to: its CRC-32 modulo the number of partitions."""
    return crc32(namespace.encode(errors="surrogatepass")) % shards if shards > 1 else 0


class Keys:
    """The names of one partition's keys. They share one hash tag, so that the scripts work on Redis Cluster.

    :param channel: the name of the cluster.
    :param partition: the number of the partition.
    """

    def __init__(self, channel: str, partition: int = 0) -> None:
        tag = "{" + (f"{channel}#{partition}" if partition else channel) + "}"
        self.partition = partition
        self.log = tag + ":log"
        self.meta = tag + ":meta"
        self.closes = tag + ":closes"
        self.closed = tag + ":closed"
        self.owned = tag + ":owned"
        #: A stream of other programs' events, what of it was malformed, and the node that takes it over.
        self.inbox = tag + ":inbox"
        self.rejected = tag + ":inbox:rejected"
        self.taker = tag + ":inbox:taker"
        #: What of the log and of python-socketio's channel was carried over to the other, and the node that does it.
        self.pubsub = tag + ":pubsub"
        self.pubsub_lease = tag + ":pubsub:lease"
        self.nodes = tag + ":nodes"
        #: What the names of rooms' members begin with.
        self.members_of = tag + ":members:"
        self._tag = tag

    def producer(self, name: str) -> str:
        """The key that remembers what a producer has stored."""
        return f"{self._tag}:producer:{name}"

    def everyone(self, namespace: str) -> str:
        """The key of a namespace's sessions, for questions; see ``lua/_members.lua``.

        :raises ValueError: for text that has no UTF-8 form.
        """
        key = f"{self._tag}:everyone:{namespace}"
        key.encode()
        return key

    def members_end(self, namespace: str) -> str:
        """What the names of rooms' members in a namespace end with."""
        return f"\n{namespace}"

    def members(self, namespace: str, room: Room) -> str:
        """The key of a room's members, for questions. The room is JSON, which holds no line break."""
        return self.members_named(namespace, dump(room))

    def members_named(self, namespace: str, room: str) -> str:
        """The key of a room's members; the room is given as JSON."""
        return f"{self.members_of}{room}{self.members_end(namespace)}"

    def session(self, sid: str) -> str:
        """The key of a session's record.

        :raises ValueError: for text that has no UTF-8 form, which no ``sid`` is.
        """
        key = f"{self._tag}:session:{sid}"
        key.encode()
        return key
