"""A Redis master with two replicas, watched by three Sentinels: real servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis.asyncio
import redis.exceptions

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.redis_commands import clients_of, run
from tests.support.waiting import until

SERVICE = "chaos"
#: How long the master may be silent until the Sentinels take it for dead, in ms.
DOWN_AFTER = 1000
#: The passwords of clients, and of the Sentinels and replicas.
PASSWORD = "of-clients"
SECRET = "of-the-others"


class RedisSentinels:
    """Six servers, on ports of their own. It runs while its ``async with`` block runs.

    The Sentinels and the replicas log in to the servers as a user of their own. So :meth:`cut_off` can part a master
    from them, while clients reach it as before.

    :param binary: path of the server program; if omitted, one that is installed.
    :param options: further command-line options of the master and its replicas.
    """

    def __init__(self, binary: Path | None = None, options: Sequence[str] = ()) -> None:
        self.binary = binary
        self.options = options
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        """A URL that names all Sentinels, as the library takes it."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{places}/0/{SERVICE}"

    async def __aenter__(self) -> RedisSentinels:
        try:
            self._start()
            await self.whole()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop()

    def _start(self) -> None:
        login = ("--requirepass", PASSWORD, "--masteruser", "other", "--masterauth", SECRET)
        user = ("--user", "other", "on", f">{SECRET}", "allchannels", "allkeys", "+@all")
        common = (*login, *user, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *self.options)
        for _ in range(3):
            follow = ("--replicaof", "127.0.0.1", str(self.servers[0].port)) if self.servers else ()
            self.servers.append(RedisServer(self.binary, (*common, *follow), die_with_parent))
        for _ in range(3):
            self.sentinels.append(RedisServer(self.binary, preexec=die_with_parent, sentinel=self._watch()))

    def _watch(self) -> str:
        """The configuration of a Sentinel."""
        return "\n".join(
            [
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2",
                f"sentinel auth-user {SERVICE} other",
                f"sentinel auth-pass {SERVICE} {SECRET}",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
                f"sentinel failover-timeout {SERVICE} 4000",
                "",
            ]
        )

    def _stop(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.stop()

    async def run(self, server: RedisServer, command: str) -> Any:
        """Runs a command on the master or on a replica, as a client."""
        return await run(server, command, password=PASSWORD)

    async def master(self) -> RedisServer:
        """Returns the master that the first Sentinel names."""
        _, port = await run(self.sentinels[0], f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}")
        return next(server for server in self.servers if server.port == int(port))

    async def failed_over(self, before: RedisServer) -> None:
        """Waits until all Sentinels name another master than ``before``, and it is one."""

        async def done() -> bool:
            with suppress(OSError, redis.exceptions.RedisError):
                named = [await run(s, f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}") for s in self.sentinels]
                if len({port for _, port in named}) == 1 and int(named[0][1]) != before.port:
                    return bool((await self.run(await self.master(), "ROLE"))[0] == "master")
            return False

        await until(done, "another master")

    async def cut_off(self, server: RedisServer) -> None:
        """Parts a server from the Sentinels and the other servers. Clients that know it reach it as before."""
        await self.run(server, "ACL SETUSER other off")
        await self.run(server, "CLIENT KILL USER other SKIPME yes")
        await self.run(server, "CLIENT KILL TYPE replica")

    async def end_some(self, server: RedisServer, ends: Callable[[], bool]) -> None:
        """Ends connections of clients to a server: those for which ``ends()`` is true."""
        for client in await clients_of(server, PASSWORD):
            if client["user"] == "default" and ends():
                await self.run(server, f"CLIENT KILL ID {client['id']}")

    async def join(self, server: RedisServer) -> None:
        """Ends what :meth:`cut_off` has begun."""
        await self.run(server, "ACL SETUSER other on")

    async def whole(self) -> None:
        """Waits until both replicas follow the master, and the Sentinels know all of that."""
        await until(self._is_whole, "a whole deployment")

    async def _is_whole(self) -> bool:
        with suppress(OSError, redis.exceptions.RedisError):
            master = await self.master()
            roles = [await self.run(server, "ROLE") for server in self.servers if server is not master]
            following = all(role[0] == "slave" and role[2] == master.port and role[3] == "connected" for role in roles)
            known = [await run(sentinel, f"SENTINEL CKQUORUM {SERVICE}") for sentinel in self.sentinels]
            seen = [await run(sentinel, f"SENTINEL REPLICAS {SERVICE}") for sentinel in self.sentinels]
            healthy = all(
                len(replicas) == 2 and not any("down" in replica[replica.index("flags") + 1] for replica in replicas)
                for replicas in seen
            )
            return following and healthy and all("OK 3 usable" in reply for reply in known)
        return False
