"""Which Redis server the links of one log lead to.

A failover can leave two servers that both take writes for a while: the new master, and the old one, which some nodes
still reach. What they store from then on differs. A node that reads from one and writes to the other could take an
entry of one for an entry of the other, because both count on from the same number. So the links of one log lead to
*one* server at a time. Each link asks on each new connection which server it is (``run_id``). When one of them reaches
another server than the others, these are closed, and look for their server anew.

A client for Redis Cluster knows many servers. All keys of one log are in one slot, so its links need one server: the
master of that slot. It is asked for, by ``CLUSTER SLOTS``, before the first connection and when a connection failed;
``MOVED`` names it too. ``ASK`` and ``TRYAGAIN`` mean that the slot is being moved. Redis then refuses scripts of which
some keys are here and some are there, and keys that are yet to be made count as missing. So it is waited until the move
is over: an exception from that rule (``ASKING``) could serve few commands, and none that writes.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
https://redis.io/docs/latest/commands/cluster-slots/, info
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

from ..errors import RedisUnavailable
from ..redis.slots import Address, SlotsReply, masters, slot_of

#: How long a server of a cluster may take to say which server has a slot, in seconds, at most.
DISCOVERY = 2.0


class Link(Protocol):
    """A connection to Redis that is closed when another server is the one to ask."""

    server: str | None

    def leave(self) -> None: ...


class RedisServers:
    """Makes the connections of one log's links: to one server, or to the master that Sentinels name.

    :param client: an asyncio client of redis-py, valkey-py or fakeredis. Its pool is not used.
    """

    def __init__(self, client: Any) -> None:
        pool: Any = getattr(client, "connection_pool", None)
        if not hasattr(pool, "make_connection") or not asyncio.iscoroutinefunction(pool.disconnect):
            raise TypeError(
                f"{type(client).__name__} can't be used: pass an asyncio client of redis-py or valkey-py "
                "(redis.asyncio.Redis or RedisCluster, valkey.asyncio.Valkey or ValkeyCluster), or a URL"
            )
        self._pool = pool
        self._links: WeakSet[Link] = WeakSet()

    async def connection(self, timeout: float) -> Any:
        """A connection that is not open yet, to the server that is the right one as far as is known.

        :param timeout: how long to look for that, in seconds.
        :raises RedisUnavailable: if it can't be found.
        """
        return self._pool.make_connection()

    def reached(self, link: Link, server: str) -> bool:
        """A link has opened a connection. Closes the links that lead to other servers.

        :param server: which server it is.
        :returns: whether there were such links.
        """
        link.server = server
        self._links.add(link)
        others = [other for other in self._links if other.server not in (None, server)]
        for other in others:
            other.leave()
        return bool(others)

    async def close(self) -> None:
        """Closes the connections to Sentinels that the client has opened to look for the master."""
        for sentinel in getattr(getattr(self._pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.aclose()

    def failed(self) -> None:
        """A connection could not be opened, or its server is not the one to ask: the next one looks again."""

    def moved(self, host: str, port: int) -> str:
        """A server of a cluster says where the slot is now. Returns what an operator should know of that."""
        return "this is a server of a Redis Cluster: use a URL that begins with redis+cluster://"


def servers_of(client: Any, key: str) -> RedisServers:
    """Where the links of one log lead.

    :param client: an asyncio client of redis-py, valkey-py or fakeredis.
    :param key: a key of the log.
    :raises TypeError: for a client of another kind.
    """
    return ClusterServers(client, key) if is_cluster(client) else RedisServers(client)


def is_cluster(client: Any) -> bool:
    """Whether it is an asyncio client for Redis Cluster."""
    return hasattr(client, "nodes_manager") and asyncio.iscoroutinefunction(getattr(client, "aclose", None))


class ClusterServers(RedisServers):
    """Makes the connections of one log's links to Redis Cluster: to the master of the log's slot.

    :param client: an asyncio cluster client of redis-py or valkey-py. Its connections are not used.
    :param key: a key of the log.
    :raises ValueError: if the log's keys would not be in one slot.
    """

    def __init__(self, client: Any, key: str) -> None:
        if key.startswith("{}"):
            raise ValueError(
                "with Redis Cluster a channel must not be empty, or begin with '}': its keys need one slot"
            )
        manager = client.nodes_manager
        self.slot = slot_of(key)
        self._links = WeakSet()
        self._client = client
        self._master: Address | None = None
        #: Servers that can be asked: those that the client was made with come last, for they may be names.
        self._known: list[Address] = []
        self._first: list[Address] = [(node.host, int(node.port)) for node in manager.startup_nodes.values()]
        node = next(iter(manager.startup_nodes.values()))
        self._make, self._options = node.connection_class, dict(node.connection_kwargs)
        # It asks for READONLY, if the client may read from replicas; a master that became one would go on answering.
        for library in ("redis", "valkey"):
            self._options.pop(f"{library}_connect_func", None)

    async def connection(self, timeout: float) -> Any:
        if self._master is None:
            self._master = await self._discover(timeout)
        return self._connection_to(self._master)

    def _connection_to(self, address: Address) -> Any:
        host, port = self._client.nodes_manager.remap_host_port(*address)
        return self._make(**{**self._options, "host": host, "port": port})

    async def _discover(self, timeout: float) -> Address:
        """Asks one server after the other who is the master of the slot."""
        known = random.sample(self._known, len(self._known))
        first = [address for address in self._first if address not in known]
        random.shuffle(first)  # one that hangs must not be the first each time
        addresses = [*known, *first]
        error: BaseException = RedisUnavailable("no server of the cluster is known")
        for address in addresses:
            try:
                async with asyncio.timeout(min(DISCOVERY, timeout / (len(addresses) + 1))):
                    reply = await self._ask(address)
            except Exception as failure:  # of whatever kind: the next one is asked
                error = failure
                continue
            found = masters(reply, address[0])
            self._known = sorted(found.servers) or self._known
            if (master := found.of(self.slot)) is not None:
                return master
            error = RedisUnavailable(f"slot {self.slot} has no server: a part of the cluster is down")
        raise RedisUnavailable(f"no server of the cluster can be asked: {type(error).__name__}: {error}") from None

    async def _ask(self, address: Address) -> SlotsReply:
        connection = self._connection_to(address)
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            return await connection.read_response(disable_decoding=True)  # type: ignore[no-any-return]
        finally:
            with suppress(Exception):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Does nothing: each question to a server has a connection of its own."""

    def failed(self) -> None:
        self._master = None

    def moved(self, host: str, port: int) -> str:
        self._master = (host, port)
        return f"the slot is on {host}:{port} now"
