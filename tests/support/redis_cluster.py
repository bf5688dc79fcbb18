"""A Redis Cluster of real servers: by default three masters, each with a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis.exceptions
from socketio_recovery.redis.slots import SLOTS, slot_of

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.redis_commands import run
from tests.support.waiting import until

#: How long a server may be silent until the others take it for dead, in ms: on a busy machine it is off the processor
#: for a moment.
NODE_TIMEOUT = 30_000
#: Options of servers whose replicas take over soon.
FAILS_OVER = ("--cluster-node-timeout", "1000")
#: The distance between a server's port and that of its cluster bus.
BUS = 10_000
OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT)),
    *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
)


class RedisCluster:
    """Servers on ports of their own. It runs while its ``async with`` block runs.

    :param binary: path of the server program; if omitted, one that is installed.
    :param options: further command-line options of the servers.
    :param masters: how many masters.
    :param replicas: whether each has a replica.
    """

    def __init__(
        self, binary: Path | None = None, options: Sequence[str] = (), masters: int = 3, replicas: bool = True
    ) -> None:
        self.binary = binary
        self.options = options
        self.masters = masters
        self.replicas = replicas
        self.servers: list[RedisServer] = []

    @property
    def url(self) -> str:
        """A URL that names all servers, as the library takes it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    async def __aenter__(self) -> RedisCluster:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()

    async def start(self) -> None:
        """Starts the servers, unless they run. In the calling thread, since they end when that does."""
        if self.servers:
            return
        try:
            for _ in range(self.masters * (2 if self.replicas else 1)):
                self.servers.append(RedisServer(self.binary, (*OPTIONS, *self.options), die_with_parent, (), BUS))
            await self._join()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the servers."""
        for server in self.servers:
            server.stop()
        self.servers = []

    async def _join(self) -> None:
        masters, replicas = self.servers[: self.masters], self.servers[self.masters :]
        for i, master in enumerate(masters):
            slots = range(SLOTS * i // self.masters, SLOTS * (i + 1) // self.masters)
            await run(master, "CLUSTER ADDSLOTS", *slots)
        for i, server in enumerate(self.servers, 1):
            await run(server, "CLUSTER SET-CONFIG-EPOCH", i)
            await run(self.servers[0], "CLUSTER MEET", "127.0.0.1", server.port)
        await until(self._all_know_all, "servers that know each other")
        for replica, master in zip(replicas, masters, strict=False):
            await run(replica, "CLUSTER REPLICATE", await self._id(master))
        await self.whole()

    async def _all_know_all(self) -> bool:
        found = [await run(server, "CLUSTER NODES") for server in self.servers]
        for server in self.servers:  # one that did not answer soon enough was forgotten
            if f":{server.port}@" not in found[0]:
                await run(self.servers[0], "CLUSTER MEET", "127.0.0.1", server.port)
        return all(len(lines.splitlines()) == len(self.servers) and "handshake" not in lines for lines in found)

    async def _id(self, server: RedisServer) -> str:
        return str(await run(server, "CLUSTER MYID"))

    async def whole(self) -> None:
        """Waits until all slots have a master, and each master a replica that has its data."""
        await until(self._is_whole, "a whole cluster")

    async def _is_whole(self) -> bool:
        with suppress(OSError, redis.exceptions.RedisError):
            roles = [await run(server, "ROLE") for server in self.servers]
            states = [await run(server, "CLUSTER INFO") for server in self.servers]
            followed = {role[2] for role in roles if role[0] == "slave" and role[3] == "connected"}
            masters = [server for server, role in zip(self.servers, roles, strict=True) if role[0] == "master"]
            return (
                all("cluster_state:ok" in state for state in states)
                and len(masters) == self.masters
                and followed == ({server.port for server in masters} if self.replicas else set())
            )
        return False

    async def master_of(self, key: str) -> RedisServer:
        """Returns the server that has a key's slot, as the first server that can be asked says."""
        slot = slot_of(key)
        for server in self.servers:
            with suppress(OSError, redis.exceptions.RedisError):
                for first, last, (_, port, *_), *_ in await run(server, "CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return next(server for server in self.servers if server.port == port)
        raise AssertionError(f"no server says who has slot {slot}")

    async def replica_of(self, master: RedisServer) -> RedisServer:
        """Returns the replica of a master."""
        for server in self.servers:
            with suppress(OSError, redis.exceptions.RedisError):
                role = await run(server, "ROLE")
                if role[0] == "slave" and role[2] == master.port:
                    return server
        raise AssertionError(f"no server is a replica of {master.port}")

    async def begin_move(self, key: str) -> tuple[RedisServer, RedisServer]:
        """Begins to move a key's slot to another master, or goes on with that.

        :returns: the servers from which and to which it moves.
        """
        slot, source = slot_of(key), await self.master_of(key)
        masters = await self._masters()
        target = masters[(masters.index(source) + 1) % len(masters)]
        await run(target, f"CLUSTER SETSLOT {slot} IMPORTING", await self._id(source))
        await run(source, f"CLUSTER SETSLOT {slot} MIGRATING", await self._id(target))
        return source, target

    async def move_slot(self, key: str, pause: float = 0) -> RedisServer:
        """Moves a key's slot to another master, a few keys at a time, as ``redis-cli --cluster reshard`` does.

        :param pause: how long to wait before each step, in seconds.
        :returns: the server that has it then.
        """
        slot = slot_of(key)
        source, target = await self.begin_move(key)
        while keys := await run(source, "CLUSTER GETKEYSINSLOT", slot, 10):
            await asyncio.sleep(pause)
            await run(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        await asyncio.sleep(pause)
        others = [master for master in await self._masters() if master not in (source, target)]
        for server in (target, source, *others):
            await run(server, f"CLUSTER SETSLOT {slot} NODE", await self._id(target))
        return target

    async def _masters(self) -> list[RedisServer]:
        return [server for server in self.servers if (await run(server, "ROLE"))[0] == "master"]
