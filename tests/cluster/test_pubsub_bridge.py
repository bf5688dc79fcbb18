"""Old nodes, with python-socketio's own managers, and new ones in one cluster: docs/migrating.md."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import pytest
import redis.asyncio
import socketio
from socketio_recovery import AsyncRedisStreamsManager, RedisStreamsManager
from socketio_recovery.aio import pubsub_bridge
from socketio_recovery.pubsub_messages import mark_of
from socketio_recovery.redis.keys import Keys

from local.redis_server import RedisServer
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients
from tests.support.node_process import NodeProcess, StartNode
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE, until

BRIDGE = {"pubsub_bridge": True}
PAGE = (ROOT / "docs" / "migrating.md").read_text()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Any]:
    client: Any = redis.asyncio.Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def before(redis_server: RedisServer, channel: str) -> AsyncIterator[socketio.AsyncRedisManager]:
    """A process that emits as it did before the change to this library."""
    manager = socketio.AsyncRedisManager(redis_server.url, channel=channel, write_only=True)
    yield manager
    if manager.redis is not None:
        await manager.redis.aclose()


class Marks:
    """Listens to the channel for the nodes of the bridge that begin to hear it: each says so there, with a mark."""

    def __init__(self, subscriber: Any) -> None:
        self.subscriber = subscriber

    async def come(self, count: int = 1) -> None:
        """Waits for so many more."""
        async with asyncio.timeout(PATIENCE):
            async for message in self.subscriber.listen():
                count -= mark_of(json.loads(message["data"])) is not None
                if not count:
                    return


@pytest.fixture
async def marks(redis_server: RedisServer, channel: str) -> AsyncIterator[Marks]:
    client: Any = redis.asyncio.Redis.from_url(redis_server.url, client_name="marks")
    async with client, client.pubsub(ignore_subscribe_messages=True) as subscriber:
        await subscriber.subscribe(channel)
        yield Marks(subscriber)


async def hears(store: Any, channel: str, nodes: int = 1) -> None:
    """Waits until so many subscribe, and the bridge is at work in both directions."""
    keys = Keys(channel)

    async def ready() -> bool:
        (_, count), *_ = await store.pubsub_numsub(channel)
        return count >= nodes and bool(all(await store.hmget(keys.pubsub, "mark", "published")))

    await until(ready)


async def settled(nodes: Sequence[NodeProcess], clients: Sequence[JsClient]) -> list[list[tuple[Any, ...]]]:
    """Emits one more event from each node to all, waits for them, and returns what each client got before, by event."""
    before = [[client.events().count(("settled", node.name)) for node in nodes] for client in clients]
    for node in nodes:
        await node.emit("settled", node.name)
    await until(
        lambda: all(
            client.events().count(("settled", node.name)) > count
            for client, counts in zip(clients, before, strict=True)
            for node, count in zip(nodes, counts, strict=True)
        ),
        lambda: str([client.events()[-5:] for client in clients]),
    )
    return [[event for event in client.events() if event[0] != "settled"] for client in clients]


async def test_events_cross_in_both_directions_each_once(
    start_node: StartNode, clients: JsClients, store: Any, channel: str
) -> None:
    old, new = await start_node(pubsub=True), await start_node(manager=BRIDGE)
    there, here = await clients.open(old, options=WEBSOCKET), await clients.open(new, options=POLLING)
    await hears(store, channel, 2)
    for client in (there, here):
        await client.call("join", "room")
    one, two = there.connects()[0]["sid"], here.connects()[0]["sid"]
    binary = {"bytes": "0102ff"}
    expected: list[tuple[Any, ...]] = []
    for node in (old, new):
        await node.emit("all", node.name)
        await node.emit("room", [node.name], to="room")
        await node.emit("rooms", {"a": 1}, to=["room", "other"])
        await node.emit("several", {"tuple": [1, None, "three"]}, to="room")
        await node.emit("nothing", None, to="room")
        await node.emit("binary", {"x": binary, "y": [binary]})
        await node.emit("one", 1, to=one)
        await node.emit("two", 2, to=two)
        await node.emit("but", 1, skip_sid=one)
        await node.emit("but", 2, skip_sid=[two])
        await node.emit("nobody", to="nobody")
        expected += [("all", node.name), ("room", [node.name]), ("rooms", {"a": 1})]
        expected += [("several", 1, None, "three"), ("nothing",), ("binary", {"x": binary, "y": [binary]})]
        expected += [("one", 1), ("two", 2), ("but", 1), ("but", 2)]
        await settled([node], [there, here])
    got_there, got_here = await settled([old, new], [there, here])
    assert got_there == [event for event in expected if event not in (("two", 2), ("but", 1))]
    assert got_here == [event for event in expected if event not in (("one", 1), ("but", 2))]
    assert "no client gets that" not in new.log()


async def test_callbacks_rooms_and_disconnects_cross(
    start_node: StartNode, clients: JsClients, store: Any, channel: str
) -> None:
    old, new = await start_node(pubsub=True), await start_node(manager=BRIDGE)
    for node, other in ((old, new), (new, old)):
        client = await clients.open(node, options=WEBSOCKET, answer=["answer", {"n": 1}])
        await hears(store, channel, 2 if client.name != "client-0" else 1)
        sid = client.connects()[0]["sid"]
        watcher = await clients.open(other, options=WEBSOCKET)
        await hears(store, channel, 2)
        assert await other.do(("call", ["question"], {"to": sid})) == [["answer", {"n": 1}]]
        await other.do(("enter_room", [sid, "blue"]))
        await until(partial(_in_room, client, "blue"))
        await other.emit("first", to="blue")
        await until(lambda client=client: ("first",) in client.events())  # type: ignore[misc]
        await other.do(("leave_room", [sid, "blue"]))
        await until(partial(_not_in_room, client, "blue"))
        await other.emit("second", to="blue")
        for room in ("red", "green"):
            await client.call("join", room)
        await other.do(("close_room", ["red"]))
        await until(partial(_not_in_room, client, "red"))
        (events,) = await settled([other], [client])
        assert [event[0] for event in events] == ["question", "first"]
        await other.do(("disconnect", [sid]))
        await until(partial(client.of, "disconnect"))
        await watcher.run("shut")


async def _in_room(client: JsClient, room: str) -> bool:
    return room in (await client.state())["rooms"]


async def _not_in_room(client: JsClient, room: str) -> bool:
    return not await _in_room(client, room)


async def test_processes_that_only_write(
    start_node: StartNode,
    clients: JsClients,
    redis_server: RedisServer,
    store: Any,
    channel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = await start_node(pubsub=True), await start_node(manager=BRIDGE, server_kind="threading")
    there, here = await clients.open(old, options=WEBSOCKET), await clients.open(new, options=WEBSOCKET)
    await hears(store, channel, 2)
    sid = there.connects()[0]["sid"]
    before = socketio.RedisManager(redis_server.url, channel=channel, write_only=True)
    await asyncio.to_thread(before.emit, "e", "old")
    await until(lambda: all(("e", "old") in client.events() for client in (there, here)))

    # the writer waits for the node to publish what came before
    monkeypatch.setattr(pubsub_bridge, "BEHIND", PATIENCE)

    def write() -> None:
        with RedisStreamsManager(redis_server.url, channel, write_only=True, pubsub_bridge=True) as writer:
            writer.enter_room(sid, "/", "blue")
            writer.emit("e", "blue", room="blue")
            writer.emit("e", "new")
            writer.leave_room(sid, "/", "blue")
            writer.emit("e", "too late", room="blue")

    await asyncio.to_thread(write)
    await store.xadd(Keys(channel).inbox, {"event": "e", "data": '"inbox"'})
    await until(lambda: all(("e", "inbox") in client.events() for client in (there, here)))
    assert there.events() == [("e", "old"), ("e", "blue"), ("e", "new"), ("e", "inbox")]
    assert here.events() == [("e", "old"), ("e", "new"), ("e", "inbox")]


async def test_changes_of_rooms_that_come_with_other_messages(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer, store: Any, channel: str
) -> None:
    """Many messages are one batch for the log: an entry that is put together wrongly would spoil those after it."""
    new = await start_node(manager=BRIDGE)
    await hears(store, channel, 1)
    one = await clients.open(new, options=WEBSOCKET)
    two = await clients.open(new, options={**WEBSOCKET, "reconnection": False})
    sids = [client.connects()[0]["sid"] for client in (one, two)]
    before = socketio.RedisManager(redis_server.url, channel=channel, write_only=True)

    def write() -> None:
        for number in range(20):
            for sid in sids:
                before.enter_room(sid, "/", "blue")
            before.emit("e", number, room="blue")
            before.leave_room(sids[1], "/", "blue")
            before.emit("but", number, room="blue")
        before.enter_room(sids[1], "/", "green")
        before.close_room("green", "/")
        before.emit("end", None)

    await asyncio.to_thread(write)
    for client in (one, two):
        await until(lambda client=client: ("end",) in client.events(), lambda client=client: str(client.events()[-3:]))  # type: ignore[misc]
    got_one, got_two = [client.events()[:-1] for client in (one, two)]
    assert got_one == [event for number in range(20) for event in (("e", number), ("but", number))]
    assert got_two == [("e", number) for number in range(20)]
    manager = RedisStreamsManager(redis_server.url, channel, write_only=True)
    try:
        for room, inside in (("blue", sids[:1]), ("green", [])):
            found = await asyncio.to_thread(manager.participants, room)
            assert [participant.sid for participant in found] == inside
            assert (await asyncio.to_thread(manager.count, room)).connected == len(inside)
        await two.run("cut")  # from here on it is ended while it waits, and in a room
        await asyncio.to_thread(before.enter_room, sids[1], "/", "red")
        await store.publish(channel, json.dumps({"method": "disconnect", "sid": sids[1], "namespace": "/"}))
        await until(lambda: asyncio.to_thread(lambda: (manager.count("red").total, manager.count().total) == (0, 1)))
    finally:
        await asyncio.to_thread(manager.close)


async def test_each_once_while_new_nodes_are_killed(
    start_node: StartNode,
    clients: JsClients,
    redis_server: RedisServer,
    store: Any,
    channel: str,
    before: socketio.AsyncRedisManager,
    marks: Marks,
) -> None:
    """The node that is the bridge is killed, and replaced; old and new emitters go on meanwhile."""
    old = await start_node(pubsub=True)
    nodes: dict[str, NodeProcess] = {}

    async def add() -> NodeProcess:
        node = await start_node(manager=BRIDGE)
        nodes[(await node.do(("host_id",), on="manager"))[0]] = node
        return node

    there = await clients.open(old, options=WEBSOCKET)
    await until(partial(_hears_all, store, channel, 2))  # and this test
    await add()
    await add()
    last = await add()
    await marks.come(3)
    await hears(store, channel)
    here = await clients.open(last, options=WEBSOCKET, urls=[node.url for node in nodes.values()])
    emitted = {"old": 0, "new": 0}
    stop = asyncio.Event()

    async def emit_old() -> None:
        while not stop.is_set():
            await before.emit("old", emitted["old"])
            emitted["old"] += 1
            await asyncio.sleep(0.005)

    async def emit_new() -> None:
        async with AsyncRedisStreamsManager(redis_server.url, channel, write_only=True) as writer:
            while not stop.is_set():
                await writer.emit("new", emitted["new"])
                emitted["new"] += 1
                await asyncio.sleep(0.005)

    async def bridge() -> NodeProcess | None:
        name = await store.hget(Keys(channel).pubsub_lease, "node")
        return nodes.get(name.decode()) if name else None

    working = [asyncio.create_task(emit_old()), asyncio.create_task(emit_new())]
    try:
        for _ in range(2):
            victim = await until(bridge)
            seen = len(there.events()), len(here.events())
            await until(
                lambda seen=seen: len(there.events()) > seen[0] + 50 and len(here.events()) > seen[1] + 50  # type: ignore[misc]
            )
            victim.kill()
            nodes = {name: node for name, node in nodes.items() if node is not victim}
            await until(bridge)
            await add()
            await marks.come()
    finally:
        stop.set()
        await asyncio.gather(*working)
    for client in (there, here):
        for kind in ("old", "new"):
            await until(
                lambda client=client, kind=kind: (kind, emitted[kind] - 1) in client.events(),  # type: ignore[misc]
                lambda client=client, kind=kind: f"{kind} {emitted} {client.events()[-3:]}",  # type: ignore[misc]
            )
            numbers = [event[1] for event in client.events() if event[0] == kind]
            assert numbers == list(range(emitted[kind])), (client.name, kind)
    assert not [connect for connect in here.connects()[1:] if not connect["recovered"]]
    for node in nodes.values():
        assert "is lost" not in node.log()


async def _hears_all(store: Any, channel: str, nodes: int) -> bool:
    (_, count), *_ = await store.pubsub_numsub(channel)
    return bool(count >= nodes)


async def test_a_roll_out(
    start_node: StartNode,
    clients: JsClients,
    redis_server: RedisServer,
    store: Any,
    channel: str,
    before: socketio.AsyncRedisManager,
) -> None:
    """The steps of the page, under traffic: two old nodes, two new ones with the bridge, two without it."""
    nodes = [await start_node(pubsub=True) for _ in range(2)]
    listeners = [await clients.open(node, options=WEBSOCKET) for node in nodes]
    await until(partial(_hears_all, store, channel, 2))
    stop, emitted = asyncio.Event(), 0
    emits = asyncio.Lock()

    async def emit_by(manager: Any, until_stopped: asyncio.Event) -> None:
        nonlocal emitted
        while not until_stopped.is_set():
            async with emits:
                await manager.emit("e", emitted)
                emitted += 1
            await asyncio.sleep(0.005)

    async def carried_over() -> bool:
        last = await store.xrevrange(Keys(channel).log, count=20)
        return f'["e",{emitted - 1}]'.encode() in [fields.get(b"data") for _, fields in last]

    async def replace(at: int, **config: Any) -> list[bool]:
        """Starts another node, and sends the client of the old one there before the old one is stopped.

        Returns whether it recovered, for each time that it connected.
        """
        connects = len(listeners[at].connects())
        node = await start_node(**config)
        await listeners[at].move(node)
        if config.get("manager"):
            await hears(store, channel, 1)
        async with emits:  # what an old node's client has got already must not come after its new session has begun
            await until(carried_over)
            nodes[at].terminate()
        nodes[at] = node
        count = len(listeners[at].events())
        await until(lambda: len(listeners[at].connects()) > connects and len(listeners[at].events()) > count + 20)
        return [connect["recovered"] for connect in listeners[at].connects()[connects:]]

    emitting = asyncio.create_task(emit_by(before, stop))
    try:
        assert [await replace(at, manager=BRIDGE) for at in range(2)] == [[False], [False]]  # step 2
    finally:
        stop.set()
        await emitting
    await until(carried_over)
    stop = asyncio.Event()
    async with AsyncRedisStreamsManager(redis_server.url, channel, write_only=True) as after:
        emitting = asyncio.create_task(emit_by(after, stop))  # step 3
        try:
            assert [await replace(at) for at in range(2)] == [[True], [True]]  # step 4
        finally:
            stop.set()
            await emitting
    for listener in listeners:
        await until(lambda listener=listener: ("e", emitted - 1) in listener.events())  # type: ignore[misc]
        numbers = [event[1] for event in listener.events()]
        assert numbers == sorted(set(numbers)), "each once, in order"
        connected = listener.connects()[1]["at"]
        reports = [report for report in listener.of("event") if report["at"] >= connected]
        since = [report["args"][0] for report in reports]
        assert since == list(range(since[0], emitted)), "nothing is missing from the first new node on"
        missing = set(range(numbers[0], emitted)) - set(numbers)
        assert all(numbers[0] < number < since[0] for number in missing), "but while it had no node"


async def test_a_connection_that_is_lost_is_noticed(
    start_node: StartNode,
    clients: JsClients,
    store: Any,
    channel: str,
    before: socketio.AsyncRedisManager,
    marks: Marks,
) -> None:
    """A node whose own subscription was cut lets another go on, which has heard all."""
    nodes = {}
    for _ in range(2):
        node = await start_node(manager=BRIDGE)
        nodes[(await node.do(("host_id",), on="manager"))[0]] = node
    await marks.come(2)
    await hears(store, channel)
    client = await clients.open(next(iter(nodes.values())), options=WEBSOCKET)

    async def emit(first: int, count: int) -> None:
        for number in range(first, first + count):
            await before.emit("e", number)

    async def received(count: int) -> None:
        await until(lambda: len(client.events()) == count, lambda: f"{count} {client.events()[-3:]}")

    for turn in range(3):
        await emit(turn * 40, 20)
        await received(turn * 40 + 20)
        subscribers = [one for one in await store.client_list(_type="pubsub") if one["name"] != "marks"]
        await store.client_kill_filter(_id=subscribers[turn % len(subscribers)]["id"])
        await emit(turn * 40 + 20, 20)
        await received(turn * 40 + 40)
        await marks.come()  # the one that was cut hears again
    assert client.events() == [("e", number) for number in range(120)]


async def test_what_is_not_json_is_left_out_and_said(
    start_node: StartNode, clients: JsClients, store: Any, channel: str
) -> None:
    new = await start_node(manager=BRIDGE)
    client = await clients.open(new, options=WEBSOCKET)
    await hears(store, channel)
    await store.publish(channel, b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.")
    await store.publish(channel, '{"method":"emit","event":"e","data":[1],"namespace":"/","room":null}')
    assert await client.received(1) == [("e", 1)]
    assert "python-socketio before 5.14 publishes pickled data" in new.log()


def test_the_page_has_code_that_works() -> None:
    for block in re.findall(r"^ *```python\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL):
        names = {
            "AsyncRedisStreamsManager": AsyncRedisStreamsManager,
            "RedisStreamsManager": RedisStreamsManager,
            "socketio": socketio,
        }
        exec("\n".join(line[3:] for line in block.splitlines()), names)


def test_it_needs_a_url() -> None:
    with pytest.raises(ValueError, match="pass a URL"):
        AsyncRedisStreamsManager(redis.asyncio.Redis(), pubsub_bridge=True)
