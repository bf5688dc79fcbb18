"""After a failover two servers may take writes: what a node does that has connections to both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from socketio_recovery.aio.log import Log
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import RedisServers
from socketio_recovery.aio.script_calls import ScriptCalls
from socketio_recovery.aio.sessions import Sessions
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.scripts import APPEND

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.store.channels import SERVERS
from tests.store.session_steps import created
from tests.support.appends import event
from tests.support.background import running
from tests.support.follower import Follower
from tests.support.redis_commands import clients_of, run
from tests.support.waiting import PATIENCE, until


class Masters:
    """A master and its replica, which becomes a master, too: a client whose new connections lead to one of them."""

    def __init__(self, binary: Any) -> None:
        self.old = RedisServer(binary, preexec=die_with_parent)
        follow = ("--replicaof", "127.0.0.1", str(self.old.port), "--repl-diskless-sync-delay", "0")
        self.new = RedisServer(binary, follow, die_with_parent)
        self._clients = [redis.asyncio.Redis(port=server.port) for server in (self.old, self.new)]
        self.connection_pool = self._clients[0].connection_pool
        self.servers = RedisServers(self)
        self.keys = Keys("test")

    def log(self) -> Log:
        """Makes a log whose links share these servers."""
        link = partial(RedisLink, self.servers)
        return Log(self.keys, link, None, 60_000, 0, PATIENCE, logging.getLogger("test.log"))

    async def store(self, server: RedisServer, name: str) -> None:
        """Appends an event on one of the servers, as another process."""
        client = self._clients[(self.old, self.new).index(server)]
        link = partial(RedisLink, RedisServers(client))
        log = Log(self.keys, link, None, 60_000, 0, PATIENCE, logging.getLogger("test.log"))
        async with running(log.write()):
            await log.append(event(name))

    async def part(self) -> None:
        """Makes a master of the replica, once it has everything. New connections lead there."""
        await until(self._is_in_step, "a replica that has everything")
        await run(self.new, "REPLICAOF NO ONE")
        self.servers._pool = self._clients[1].connection_pool

    async def _is_in_step(self) -> bool:
        found = [await run(server, "XLEN", self.keys.log) for server in (self.old, self.new)]
        return bool(found[0]) and found[0] == found[1]

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        for server in (self.old, self.new):
            server.stop()


@pytest.fixture(params=list(SERVERS))
async def masters(request: pytest.FixtureRequest) -> AsyncIterator[Masters]:
    masters = Masters(SERVERS[request.param])
    yield masters
    await masters.close()


def names(follower: Follower) -> list[str]:
    return [entry.payload.data.decode()[2:-2] for entry in follower.entries if entry.payload is not None]


async def end(masters: Masters, reader: bool) -> None:
    """Ends the reader's connection to the old master, which waits for entries; or the others."""

    async def found() -> list[str]:
        return [client["id"] for client in await clients_of(masters.old) if ("b" in client["flags"]) == reader]

    for id in await until(found):  # the reader may be between two looks
        await run(masters.old, f"CLIENT KILL ID {id}")


@pytest.mark.parametrize("who", ["writer", "reader"])
async def test_all_links_go_where_one_of_them_has_gone(masters: Masters, who: str) -> None:
    """Else the reader would wait on the old master for what the writer stores on the new one, or take what comes there
    for what follows."""
    log = masters.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("before"))
        await masters.part()
        await end(masters, who == "reader")
        if who == "writer":
            await log.append(event("mine"))
        await masters.store(masters.new, "theirs")
        await until(lambda: "theirs" in names(follower), lambda: names(follower))
        await masters.store(masters.old, "lost")
        await until(lambda: not log.queued)
        await log.append(event("last"))
        assert await clients_of(masters.old) == []
    expected = ["before", *(["mine"] if who == "writer" else []), "theirs", "last"]
    assert names(follower) == expected
    assert len(follower.starts) == 1


async def test_what_only_the_old_master_has_begins_a_new_epoch(masters: Masters) -> None:
    log = masters.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("before"))
        await masters.part()
        await masters.store(masters.old, "lost")
        await until(lambda: "lost" in names(follower))
        await end(masters, reader=True)
        await until(lambda: len(follower.starts) == 2)
        await log.append(event("after"))
    assert names(follower) == ["before", "lost", "after"]
    assert follower.reasons[1] == "epoch"


async def test_an_emit_whose_answer_was_lost_with_the_old_master_is_stored_again(
    masters: Masters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a later place. Who had it from the old master may get it again in a new session, which begins before that."""
    run_many = RedisLink.run_many
    log = masters.log()

    async def loses(self: RedisLink, calls: Any, *more: Any, limit: int = 0) -> Any:
        replies = await run_many(self, calls, *more, limit=limit)
        if calls[0][0] is APPEND:
            monkeypatch.setattr(RedisLink, "run_many", run_many)
            await self.close()
            await masters.store(masters.new, "theirs")
            raise RedisUnavailable("the answer was lost")
        return replies

    async with running(log.write()):
        await log.append(event("before"))
        await masters.part()
        monkeypatch.setattr(RedisLink, "run_many", loses)
        await log.append(event("mine"))
    stored = [
        [fields[5][2:-2] for _, fields in (await run(s, "XRANGE", masters.keys.log, "-", "+"))[1:]]
        for s in (masters.old, masters.new)
    ]
    assert stored == [["before", "mine"], ["before", "theirs", "mine"]]


async def test_a_session_that_begins_with_what_only_the_old_master_has_begins_a_new_epoch(masters: Masters) -> None:
    """Its node has not read that entry. On the new master another has its number, so nothing seems to be missing."""
    log = masters.log()
    follower = Follower(log)
    async with running(log.write(), follower.run()):
        await until(lambda: follower.starts)
        await log.append(event("before"))
    calls = ScriptCalls(RedisLink(masters.servers, PATIENCE))
    sessions = Sessions(calls, masters.keys, "A", 60_000, 60_000, 60_000, PATIENCE, log.witness)
    await created(sessions, "first")
    await masters.part()
    await masters.store(masters.old, "lost")
    _, birth = await created(sessions, "second")
    assert birth.n == follower.position.n + 1
    for name in ("other", "another"):
        await masters.store(masters.new, name)
    async with running(log.write(), follower.run()):
        await until(lambda: len(follower.starts) == 2)
    assert follower.reasons[1] == "epoch"
    assert names(follower) == ["before"]
    await calls.close()


async def test_an_exchange_that_is_under_way_on_the_old_master_is_given_up(masters: Masters) -> None:
    """Its answer would be that of a server that is not the one to ask."""
    first, second = (RedisLink(masters.servers, PATIENCE) for _ in range(2))
    await first.call("PING")
    waits = asyncio.create_task(first.call("XREAD", "BLOCK", 0, "STREAMS", "nothing", "0"))
    await until(lambda: clients_of(masters.old))
    masters.servers._pool = masters._clients[1].connection_pool
    await second.call("PING")
    with pytest.raises(RedisUnavailable):
        await waits
    assert first.server is None
    await first.call("PING")
    assert first.server == second.server
    for link in (first, second):
        await link.close()


async def test_an_idle_link_says_once_that_it_leads_elsewhere(masters: Masters) -> None:
    """Who uses it must look at the log anew before the next command, so it does not just connect again."""
    first, second = (RedisLink(masters.servers, PATIENCE) for _ in range(2))
    await first.call("PING")
    masters.servers._pool = masters._clients[1].connection_pool
    await second.call("PING")
    with pytest.raises(RedisUnavailable, match="another server"):
        await first.call("PING")
    assert await first.call("PING") == b"PONG"
    for link in (first, second):
        await link.close()
