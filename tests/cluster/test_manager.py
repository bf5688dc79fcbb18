"""Everything AsyncRedisManager does, across nodes; and clients that can't recover are left in peace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from socketio_recovery import AsyncRedisStreamsManager

from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import PATIENCE, until


async def test_call_and_callbacks_across_nodes(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, "ann", options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    for node in (a, b):
        assert await node.do(("call", ["question", 1], {"to": sid})) == ["ann got question"]
    assert [r["args"] for r in client.of("event")] == [[1, {"callback": True}]] * 2


async def test_binary_acknowledgements_and_several_arguments(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET, answer=[1, {"two": 2}])
    sid = client.connects()[0]["sid"]
    for node in (a, b):
        assert await node.do(("call", ["question"], {"to": sid})) == [[1, {"two": 2}]]
        assert await node.do(("call", ["question", {"bytes": "00ff"}], {"to": sid})) == [[1, {"two": 2}]]


async def test_a_call_that_nobody_answers(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET, answer=False)
    with pytest.raises(RuntimeError, match="TimeoutError"):
        await a.do(("call", ["question"], {"to": client.connects()[0]["sid"], "timeout": 0.2}))


async def test_events_with_callback_and_volatile_events_are_not_replayed(
    start_node: StartNode, clients: JsClients
) -> None:
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await b.do(("emit", ["volatile", 1], {"to": sid, "volatile": True}))
    await client.received(1)
    await client.move(b)
    a.kill()
    await b.do(("emit", ["volatile", 2], {"to": sid, "volatile": True}), ("emit", ["e", 3], {"to": sid}))
    await b.do(("emit", ["volatile", 4], {"room": sid, "namespace": "/", "volatile": True}), on="manager")
    assert (await client.connected(2))["recovered"] is True
    assert await settle(b, client) == [("volatile", 1), ("e", 3)]


async def test_an_event_without_an_offset_can_not_corrupt_the_position(
    start_node: StartNode, clients: JsClients
) -> None:
    """To the JavaScript client any trailing string is an offset: so every event has one."""
    a, b = await start_node(), await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await a.do(("emit", ["e", "a string"], {"to": sid}))
    await a.do(("emit", ["local", "a string"], {"to": sid, "ignore_queue": True}))
    await a.do(("emit", ["volatile", "a string"], {"to": sid, "volatile": True}))
    await client.received(3)
    assert all(len(r["args"]) == 2 for r in client.of("event"))
    await client.move(b)
    await client.run("cut")
    await b.emit("e", "another", to=sid)
    assert (await client.connected(2))["recovered"] is True
    assert [e[1] for e in await settle(b, client)] == ["a string"] * 3 + ["another"]


async def test_rooms_and_disconnect_from_another_node(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    one, two = await clients.open(a, options=WEBSOCKET), await clients.open(a, options=WEBSOCKET)
    sids = [c.connects()[0]["sid"] for c in (one, two)]
    await b.do(*[("enter_room", [sid, "room"]) for sid in sids], ("leave_room", [sids[1], "room"]))
    for client in (one, two):
        await settle(b, client)  # its own node has the changes of rooms by then, too
    assert (await one.state())["rooms"] == sorted([sids[0], "room"])
    assert (await two.state())["rooms"] == [sids[1]]
    await b.do(("close_room", ["room"]))
    await settle(b, one)
    assert (await one.state())["rooms"] == [sids[0]]
    with pytest.raises(RuntimeError, match="cannot enter a sid room"):
        await b.do(("enter_room", [sids[0], sids[1]]))
    with pytest.raises(RuntimeError, match="a room must be a str or an int"):
        await b.do(("enter_room", [sids[0], 2.5]))
    await b.do(("enter_room", ["nobody", "room"]))  # silently nothing, as with AsyncRedisManager


async def test_a_process_that_only_writes(start_node: StartNode, clients: JsClients, channel: str) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    async with AsyncRedisStreamsManager(a.config["redis"], channel=channel, write_only=True) as manager:
        await manager.enter_room(sid, "/", "room")
        await manager.emit("e", 1, room="room")
        await manager.emit("e", (2, b"\x00"), room=["room", "other"])
        await manager.leave_room(sid, "/", "room")
        await manager.emit("e", 3, room="room")
        await manager.emit("e", 4, to=sid, skip_sid=["x"])
        with pytest.raises(RuntimeError, match="context of a server"):
            await manager.emit("e", 5, to=sid, callback=print)
        await manager.disconnect(sid, "/")
    await until(lambda: client.of("disconnect"))
    assert client.events() == [("e", 1), ("e", 2, {"bytes": "00"}), ("e", 4)]
    async with AsyncRedisStreamsManager(a.config["redis"], channel=channel, write_only=True) as manager:
        await manager.emit("e", 6)


async def test_a_json_writer_and_msgpack_nodes(start_node: StartNode, clients: JsClients, channel: str) -> None:
    a = await start_node(server={"serializer": "msgpack"})
    client = await clients.open(a, options={**WEBSOCKET, "parser": "msgpack"})
    async with AsyncRedisStreamsManager(a.config["redis"], channel=channel, write_only=True) as manager:
        await manager.emit("e", ({"a": [1, "ä"]}, b"\x00\xff"))
    assert await client.received(1) == [("e", {"a": [1, "ä"]}, {"bytes": "00ff"})]
    assert await a.do(("call", ["question"], {"to": client.connects()[0]["sid"]})) == [f"{client.name} got question"]


#: A polling client of python-socketio leaves when its last poll ends, which is at the next ping.
FAST_PINGS = {"ping_interval": 1, "ping_timeout": 2}


class Handlers:
    """python-socketio's own client, with handlers of fixed arity."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.got: list[Any] = []
        client.on("one", lambda x: self.got.append(x))
        client.on("none", lambda: self.got.append("none"))
        client.on("two", lambda x, y: self.got.append((x, y)))

    async def expect(self, node: NodeProcess) -> None:
        sid = self.client.get_sid()
        await node.do(("emit", ["one", 1], {"to": sid}), ("emit", ["none"], {"to": sid}))
        await until(lambda: self.got == [1, "none"], lambda: str(self.got))


# The client forgets to close its last poll now and then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="+".join)
async def test_python_socketio_async_client(start_node: StartNode, transports: list[str]) -> None:
    a = await start_node(server=FAST_PINGS)
    client = socketio.AsyncClient()
    handlers = Handlers(client)
    await client.connect(a.url, transports=transports, wait_timeout=PATIENCE)
    try:
        await handlers.expect(a)
        assert await client.call("state") == {
            "node": "a",
            "sid": client.get_sid(),
            "rooms": [client.get_sid()],
            "session": {},
            "recovered": False,
            "reason": "client",
        }
    finally:
        await client.disconnect()


# The client forgets to close its last poll now and then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids="+".join)
async def test_python_socketio_sync_client(start_node: StartNode, transports: list[str]) -> None:
    a = await start_node(server=FAST_PINGS)
    client = socketio.Client()
    handlers = Handlers(client)
    await asyncio.to_thread(client.connect, a.url, transports=transports, wait_timeout=PATIENCE)
    try:
        await handlers.expect(a)
    finally:
        await asyncio.to_thread(client.disconnect)
