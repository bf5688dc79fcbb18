"""Flask-SocketIO: Flask's session goes on where its client does, and handlers run for the clients of dead nodes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from local.redis_server import RedisServer
from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodePair, NodeProcess, StartNode
from tests.support.waiting import until

KINDS = ("flask-threading", "flask-gevent")
#: Sessions end soon.
SHORT = {"max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}
#: python-engineio tells clients the interval in whole seconds, rounded down.
PINGS = {"ping_interval": 1, "ping_timeout": 2}


@pytest.fixture
def start(start_node: StartNode) -> StartNode:
    """Starts nodes with threads."""
    return partial(start_node, server_kind=KINDS[0])


@pytest.fixture(scope="module")
def shared_nodes(redis_server: RedisServer) -> Iterator[list[NodeProcess]]:
    """Two nodes with threads, for ``pair``."""
    manager = {"channel": "test-" + uuid.uuid4().hex[:12]}
    nodes = [NodeProcess(name, redis_server.url, manager=manager, server_kind=KINDS[0]) for name in "ab"]

    async def start() -> None:
        await asyncio.gather(*(node.start() for node in nodes))

    try:
        asyncio.run(start())
        yield nodes
    finally:
        for node in nodes:
            node.stop()


async def seen(what: str, *nodes: NodeProcess) -> list[dict[str, Any]]:
    return [entry for node in nodes for entry in (await node.look())["seen"] if entry["what"] == what]


@pytest.mark.parametrize(("kind", "options"), [(KINDS[0], WEBSOCKET), (KINDS[0], POLLING), (KINDS[1], {})])
async def test_session_rooms_and_missed_events_after_a_kill(
    start_node: StartNode, clients: JsClients, kind: str, options: dict[str, Any]
) -> None:
    a, b = await start_node(server_kind=kind), await start_node(server_kind=kind, factory=True)
    client = await clients.open(a, options=options, auth={"session": {"from": "connect"}})
    assert await client.call("set", "user", "ann") == {"from": "connect", "user": "ann"}
    await client.call("join", "red")
    sid = client.connects()[0]["sid"]
    await client.move(b)
    a.kill()
    await b.emit("missed", 1, to="red")
    again = await client.connected(2)
    assert (again["recovered"], again["sid"]) == (True, sid)
    [entry] = await seen("connect", b)
    expected = {"sid": sid, "rooms": sorted([sid, "red"]), "session": {"from": "connect", "user": "ann"}}
    assert entry == {"what": "connect", "namespace": "/", "recovered": True, **expected}
    assert await client.state() == {**entry, "what": "state", "node": "b"}
    assert await settle(b, client) == [("missed", 1)]
    assert "Traceback" not in b.log(), b.log()


async def test_what_is_taken_out_stays_out(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("set", "user", "ann")
    await client.call("pop", "user")
    await client.move(b)
    await client.run("cut")
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {}


async def test_what_a_disconnect_handler_tidies_up_is_there_when_the_client_comes_back(
    pair: NodePair, clients: JsClients
) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET, auth={"session": {"user": "ann"}})
    sid = client.connects()[0]["sid"]
    await client.move(b)
    await client.run("away")
    [entry] = await until(lambda: of("disconnect", sid, a), a.log)
    assert entry["session"] == {"user": "ann", "left": True}
    await client.run("back")
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {"user": "ann"}


async def test_from_node_to_node(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    for turn, node in enumerate([b, a, b], 1):
        await client.call("set", "turn", turn)
        await client.move(node)
        await client.run("cut")
        assert (await client.connected(turn + 1))["recovered"]
        assert (await client.state())["session"]["turn"] == turn


async def test_the_namespaces_of_a_client_share_a_session(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET, namespaces=["/", "/other", "/class"])
    await client.call("set", "by class", 0, nsp="/class")
    await client.call("set", "by main", 1)
    await client.call("set", "by other", 2, nsp="/other")
    expected = {"by class": 0, "by main": 1, "by other": 2}
    await client.move(b)
    await client.run("cut")
    for nsp in ("/", "/other"):
        assert (await client.connected(2, nsp))["recovered"]
        assert (await client.state(nsp))["session"] == expected


async def test_a_handler_that_fails_has_changed_the_session(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    await client.run("emit", event="fail", args=["user", "ann"])
    await until(lambda: has_session(client, {"user": "ann"}), a.log)
    await client.move(b)
    await client.run("cut")
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {"user": "ann"}


async def has_session(client: Any, session: dict[str, Any]) -> bool:
    return bool((await client.state())["session"] == session)


async def test_what_a_refused_recovery_changed_is_gone(start: StartNode, clients: JsClients) -> None:
    a, b, c = [await start() for _ in "abc"]
    client = await clients.open(a, options=WEBSOCKET, auth={"session": {"user": "ann"}, "refuse": "recovery"})
    pid = client.connects()[0]["pid"]
    await client.move(b)
    a.kill()
    await until(lambda: client.of("connect_error"), b.log)
    other = await clients.open(c, options=WEBSOCKET, auth={"pid": pid})
    state = await other.state()
    assert (state["recovered"], state["session"]) == (True, {"user": "ann"})


@pytest.mark.parametrize("kind", KINDS)
async def test_the_handler_of_a_dead_nodes_client_has_the_session(
    start_node: StartNode, clients: JsClients, kind: str
) -> None:
    """On a node that has never had a client."""
    a, b = [await start_node(manager=SHORT, socketio=PINGS, server_kind=kind) for _ in "ab"]
    options = {**WEBSOCKET, "reconnection": False}
    client = await clients.open(a, options=options, namespaces=["/", "/class"], auth={"session": {"user": "ann"}})
    await client.call("join", "red")
    sid = client.connects()[0]["sid"]
    a.kill()
    await until(lambda: _two(b), b.log)
    by_namespace = {entry["namespace"]: entry for entry in await seen("disconnect", b)}
    expected = {"session": {"user": "ann", "left": True}, "reason": "node lost", "cookie": None}
    assert by_namespace["/"] == {
        **expected,
        "what": "disconnect",
        "namespace": "/",
        "sid": sid,
        "rooms": sorted([sid, "red"]),
    }
    assert by_namespace["/class"]["session"]["user"] == "ann"
    assert "Traceback" not in b.log(), b.log()


async def _two(node: NodeProcess) -> bool:
    return len(await seen("disconnect", node)) == 2


async def test_the_handler_of_a_client_that_left_while_it_connected(pair: NodePair, clients: JsClients) -> None:
    """Its transport, and python-socketio's environ with it, is gone when the handler runs."""
    a, b = pair
    options = {**WEBSOCKET, "extraHeaders": {"Cookie": "name=ann"}}
    client = await clients.open(a, options=options, auth={"session": {"user": "ann"}, "slow": 1})
    sid = client.connects()[0]["sid"]
    await client.move(b)
    await client.run("cut")
    await until(lambda: of("connect", sid, b), b.log)
    await client.run("away")
    [entry] = await until(lambda: of("disconnect", sid, b), b.log)
    assert (entry["session"], entry["cookie"]) == ({"user": "ann", "left": True}, "ann")


async def of(what: str, sid: str, node: NodeProcess) -> list[dict[str, Any]]:
    return [entry for entry in await seen(what, node) if entry["sid"] == sid]


async def test_what_can_not_be_stored_is_logged_and_the_rest_is_stored(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    assert await client.call("odd") == "done"
    await client.call("odd_state")
    fault = "for recovery. flask.session['object']: a value of the type dict would"
    assert a.log().count(fault) == 1, "it is logged once, though a handler has run since"
    await client.move(b)
    await client.run("cut")
    assert (await client.connected(2))["recovered"]
    assert await client.call("odd_state") == [
        "('_flashes', [('message', 'a message')])",
        r"('bytes', b'\xff')",
        "('when', datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc))",
    ]


async def test_without_managed_sessions_flask_reads_the_cookie(start: StartNode, clients: JsClients) -> None:
    a, b = [await start(manager=SHORT, socketio={"manage_session": False, **PINGS}) for _ in "ab"]
    gone = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    headers = {"extraHeaders": {"Cookie": "name=ann"}}
    client = await clients.open(a, options={**WEBSOCKET, **headers})
    await client.call("set", "user", "ann")
    await client.move(b)
    a.kill()
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {}
    assert await client.call("cookie") == "ann"
    [entry] = await until(lambda: of("disconnect", gone.connects()[0]["sid"], b), b.log)
    assert (entry["reason"], entry["session"]) == ("node lost", {"left": True})
    assert "Traceback" not in a.log() + b.log()


async def test_an_asyncio_node_keeps_the_session_for_the_next_one(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(server_kind=KINDS[0]), await start_node()
    client = await clients.open(a, options=WEBSOCKET, auth={"session": {"user": "ann"}})
    await client.move(b)
    await client.run("cut")
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {}, "python-socketio's session, which is another"
    await client.move(a)
    await client.run("cut")
    assert (await client.connected(3))["recovered"]
    assert (await client.state())["session"] == {"user": "ann"}
