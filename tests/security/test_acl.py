"""The Redis user that SECURITY.md describes: enough, and no more than that."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import pytest
import redis.asyncio
from socketio_recovery.aio.participants import Participants
from socketio_recovery.entries import ENTER, LEAVE
from socketio_recovery.redis.eviction import eviction_policy
from socketio_recovery.redis.scripts import LEASE, SEEK, TAKE
from socketio_recovery.session_record import Heartbeat, Pid, Record

from local.processes import die_with_parent
from local.redis_server import RedisServer, servers_to_test
from tests.support.appends import closes, event, moves
from tests.support.background import running
from tests.support.follower import Follower
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.paths import ROOT
from tests.support.redis_channel import RedisChannel
from tests.support.waiting import PATIENCE, until

CHANNEL = "socketio"
#: What the publish/subscribe bridge needs besides; docs/migrating.md has it.
PUBSUB_BRIDGE = {"publish"}
SERVERS = {path.name: path for path in servers_to_test()}


def acl() -> list[str]:
    """The user's rules as SECURITY.md has them, the name first."""
    text = (ROOT / "SECURITY.md").read_text()
    (command,) = re.findall(r"^ACL SETUSER (.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(command).replace("\\\n", " ").split()


def commands() -> set[str]:
    return {rule[1:] for rule in acl() if rule.startswith("+")}


def url_of(server: RedisServer) -> str:
    name, password = acl()[0], next(rule[1:] for rule in acl() if rule.startswith(">"))
    return f"redis://{name}:{password}@127.0.0.1:{server.port}/0"


async def set_user(server: RedisServer, *more: str) -> None:
    """Makes the user, with some rules more."""
    admin: Any
    async with redis.asyncio.Redis.from_url(server.url) as admin:
        await admin.execute_command("ACL", "DELUSER", acl()[0])
        await admin.execute_command("ACL", "SETUSER", *acl(), *more)
        await admin.execute_command("ACL", "LOG", "RESET")


@pytest.fixture(scope="module", params=list(SERVERS))
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A real server of this module's own: users are the server's, not the channel's."""
    server = RedisServer(SERVERS[request.param], preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
async def admin(guarded: RedisServer) -> AsyncIterator[Any]:
    """Redis's default user, who may do everything."""
    client: Any
    async with redis.asyncio.Redis.from_url(guarded.url) as client:
        yield client


def used_by_scripts() -> set[str]:
    """The commands that the library's source names."""
    source = ROOT / "adapter" / "socketio_recovery"
    found: set[str] = set()
    for script in source.rglob("*.lua"):
        found.update(re.findall(r"redis\.p?call\(\s*'(\w+)'", script.read_text()))
    for module in source.rglob("*.py"):
        if module.parent.name == "cli":  # docs/cli.md has its user
            continue
        found.update(re.findall(r'\.call\(\s*\*?\(?\s*"([A-Z]+)"', module.read_text()))
        found.update(re.findall(r'\[?\("(EVAL\w*)"', module.read_text()))
    return {name.lower() for name in found}


def test_it_names_the_commands_in_the_source() -> None:
    assert commands() | PUBSUB_BRIDGE == used_by_scripts()


async def test_a_cluster_works_with_it(
    guarded: RedisServer, admin: Any, clients: JsClients, start_node: StartNode
) -> None:
    """A node connects clients, emits, moves them between rooms, recovers them, drains; and nothing is refused."""
    await set_user(guarded)
    manager = {"channel": CHANNEL, "heartbeat_interval": 0.1, "max_length": 10_000}
    a, b = [await start_node(redis=url_of(guarded), manager=manager) for _ in range(2)]
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await client.call("save", {"n": 1})
    for name in ("e", ""):
        await admin.xadd("{" + CHANNEL + "}:inbox", {"event": name, "rooms": sid})
    await client.received(1)
    await until(lambda: admin.exists("{" + CHANNEL + "}:inbox:rejected"))
    rooms = [f"room {i}" for i in range(70)]
    await a.do(*[("enter_room", [sid, room]) for room in rooms], *[("leave_room", [sid, room]) for room in rooms[1:]])
    await a.do(("close_room", ["room 0"]), ("enter_room", [sid, "room 0"]))
    assert await b.do(("call", ["question"], {"to": sid})) == [f"{client.name} got question"]
    await b.emit("e", 1, to="room 0")
    await client.received(3)
    await client.move(b)
    a.terminate()
    await b.emit("e", 2, to="room 0")
    assert (await client.connected(2))["recovered"] is True
    assert [e for e in await settle(b, client) if e[0] == "e"] == [("e",), ("e", 1), ("e", 2)]
    await until(lambda: _healthy(b), b.log)
    for node in (a, b):
        warnings = [line for line in node.log().splitlines() if f"{node.name} INFO " not in line]
        assert all("set aside" in line for line in warnings), warnings
    other = await clients.open(b, options=WEBSOCKET)
    await other.run("disconnect")
    refused = {entry[b"object"] for entry in await admin.execute_command("ACL", "LOG")}
    told_on_the_page = {b"client", b"client|setinfo", b"subscribe"}
    assert refused <= told_on_the_page, "the library does not mind, nor does that of Redis"


async def _healthy(node: NodeProcess) -> bool:
    return bool((await node.look())["healthy"])


async def test_the_bridge_works_with_what_its_page_adds(
    guarded: RedisServer, clients: JsClients, start_node: StartNode
) -> None:
    page = (ROOT / "docs" / "migrating.md").read_text()
    (more,) = re.findall(rf"^ACL SETUSER {acl()[0]} (.*)$", page, re.MULTILINE)
    await set_user(guarded, *more.split())
    manager = {"channel": CHANNEL}
    new = await start_node(redis=url_of(guarded), manager={**manager, "pubsub_bridge": True})
    old = await start_node(redis=guarded.url, manager=manager, pubsub=True)
    for node, other in ((new, old), (old, new)):
        client = await clients.open(node, options=WEBSOCKET)

        async def crosses(client: JsClient = client, other: NodeProcess = other) -> bool:
            await other.emit("e", other.name)
            return bool(client.events())

        await until(crosses, new.log)
    assert "can't" not in new.log()


@pytest.fixture
async def store(guarded: RedisServer, admin: Any) -> AsyncIterator[RedisChannel]:
    client = redis.asyncio.Redis.from_url(url_of(guarded), protocol=3)
    store = RedisChannel(client, guarded)
    store.keys = type(store.keys)(CHANNEL)
    yield store
    await store.close()
    await client.aclose()
    await admin.flushall()
    await admin.execute_command("SCRIPT", "FLUSH")


async def everything(store: RedisChannel) -> None:
    """What a node asks of Redis, in short.

    :raises Exception: what Redis refuses.
    """
    log, sessions = store.log(max_length=1000, publish_timeout=PATIENCE), store.sessions()
    link = store.link()
    await log.tail(link, 60_000)
    assert eviction_policy(await link.call("INFO", "memory")) == ("noeviction", 0)
    pid = Pid.new("sid")
    await sessions.create("sid", pid, "/", "one", "t")
    follower = Follower(log)
    following = asyncio.ensure_future(follower.run())
    async with running(log.write(), following):
        await until(lambda: follower.starts)
        for i in range(60):
            for kind in (ENTER, LEAVE):
                await _unless(following, log.append(moves(log, kind, "sid", i)))
        await _unless(following, log.append(closes(log, "x")))
        await _unless(following, log.append(event("e")))
    await sessions.heartbeat([Heartbeat("sid", "one", (1, 1), ["x"])])
    await sessions.save("sid", "one", {"n": 1})
    claimed = await sessions.claim(pid, "/", "two", "t")
    assert isinstance(claimed, Record)
    assert await sessions.detach("sid", "two")
    assert await sessions.due(1) == ([], False)
    asks = Participants(store.calls(), store.keys, PATIENCE)
    assert (await asks.count("/", [])).reconnecting
    assert set((await asks.members("/", ["sid"])).standings) == {"sid"}
    start = await link.run(SEEK, [store.keys.log, store.keys.meta], [claimed.last.epoch, 1])
    assert await link.call("XRANGE", store.keys.log, start, "+", "COUNT", 1)
    await sessions.claim(pid, "/", "three", "t")
    assert await sessions.forget("sid", "three")
    await link.call("DEL", store.keys.taker)  # of the nodes of another test
    assert await link.run(LEASE, [store.keys.taker], ["A", 1000]) == 1
    id = await link.call("XADD", store.keys.inbox, "*", "event", "e")
    await link.call("XREAD", "STREAMS", store.keys.inbox, "0")
    inbox = [store.keys.log, store.keys.meta, store.keys.inbox, store.keys.rejected]
    assert (await link.run(TAKE, inbox, [0, 0, 10, 10, 1, id, 0, "malformed"]))[2:] == [0, 1, b""]


async def _unless(other: asyncio.Task[None], work: Awaitable[Any]) -> None:
    """Waits for ``work``, or raises what ends the ``other`` task: an append is over only when the log was read."""
    working = asyncio.ensure_future(work)
    await asyncio.wait([working, other], return_when=asyncio.FIRST_COMPLETED)
    if other.done():
        working.cancel()
        other.result()
    await working


async def test_it_is_enough(guarded: RedisServer, store: RedisChannel) -> None:
    await set_user(guarded)
    await everything(store)


@pytest.mark.parametrize("command", sorted(commands()))
async def test_no_command_can_be_left_out(guarded: RedisServer, store: RedisChannel, command: str) -> None:
    await set_user(guarded, f"-{command}")
    with pytest.raises(Exception, match=r"(?i)no permissions|NOPERM|can't run this command"):
        await everything(store)


async def test_a_user_that_may_not_remove_from_the_inbox_stores_nothing(
    guarded: RedisServer, store: RedisChannel
) -> None:
    """Else the entry would be stored again and again."""
    await set_user(guarded, "-xdel")
    link = store.link()
    id = await link.call("XADD", store.keys.inbox, "*", "event", "e")
    inbox = [store.keys.log, store.keys.meta, store.keys.inbox, store.keys.rejected]
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)no permissions|NOPERM|can't run this command"):
            await link.run(TAKE, inbox, [0, 0, 10, 10, 1, id, 4, "head", '["event","/"]', "data", '["e"]'])
    assert await store.heads() == []


@pytest.mark.parametrize("key", ["other", "{other}:log", "{socketio}", "socketio:log", "{socketio}log"])
async def test_it_reaches_no_other_keys(guarded: RedisServer, store: RedisChannel, key: str) -> None:
    await set_user(guarded)
    with pytest.raises(redis.exceptions.NoPermissionError):
        await store.client.hset(key, "x", "x")
    assert await store.client.hset("{socketio}:test", "x", "x")


async def test_it_can_do_nothing_else(guarded: RedisServer, store: RedisChannel) -> None:
    await set_user(guarded)
    for command in (
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("SCRIPT", "FLUSH"),
        ("PUBLISH", "a", "b"),
        ("SUBSCRIBE", "a"),
        ("ACL", "LIST"),
        ("SORT", "{socketio}:log"),
        ("CLIENT", "KILL", "127.0.0.1:1"),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("MODULE", "LIST"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            await store.client.execute_command(*command)
