"""Flask-SocketIO: Flask's session goes on where its client goes on, and is there in the handler of a dead node's client."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import until

KINDS = ("flask-threading", "flask-gevent")
#: Sessions end soon.
SHORT = {"max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}
PINGS = {"ping_interval": 0.5, "ping_timeout": 1}


@pytest.fixture
def start(start_node: StartNode) -> StartNode:
    """Starts nodes with threads."""
    return partial(start_node, server_kind="flask-threading")


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


async def test_what_is_taken_out_stays_out(start: StartNode, clients: JsClients) -> None:
    a, b = [await start() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("set", "user", "ann")
    await client.call("pop", "user")
    await client.move(b)
    a.kill()
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {}


async def test_from_node_to_node(start: StartNode, clients: JsClients) -> None:
    a, b = [await start() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET)
    for turn, node in enumerate([b, a, b], 1):
        await client.call("set", "turn", turn)
        await client.move(node)
        await client.run("cut")
        assert (await client.connected(turn + 1))["recovered"]
        assert (await client.state())["session"]["turn"] == turn


async def test_the_namespaces_of_a_client_share_a_session(start: StartNode, clients: JsClients) -> None:
    a, b = [await start() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET, namespaces=["/", "/other", "/class"])
    await client.run("emit", event="set", args=["by class", 0], nsp="/class")
    await client.call("set", "by main", 1)
    await client.call("set", "by other", 2, nsp="/other")
    expected = {"by class": 0, "by main": 1, "by other": 2}
    await client.move(b)
    a.kill()
    for nsp in ("/", "/other"):
        assert (await client.connected(2, nsp))["recovered"]
        assert (await client.state(nsp))["session"] == expected


async def test_a_handler_that_fails_has_changed_the_session(start: StartNode, clients: JsClients) -> None:
    a, b = [await start() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET)
    await client.run("emit", event="fail", args=["user", "ann"])
    await until(lambda: has_session(client, {"user": "ann"}), a.log)
    await client.move(b)
    a.kill()
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
    expected = {"session": {"user": "ann", "left": True}, "reason": "node lost"}
    assert by_namespace["/"] == {
        **expected,
        **{"what": "disconnect", "namespace": "/", "sid": sid, "rooms": sorted([sid, "red"])},
    }
    assert by_namespace["/class"]["session"]["user"] == "ann"
    assert "Traceback" not in b.log(), b.log()


async def _two(node: NodeProcess) -> bool:
    return len(await seen("disconnect", node)) == 2


@pytest.mark.parametrize("manage_session", [True, False])
async def test_the_handler_of_a_client_that_left_while_it_connected(
    start: StartNode, clients: JsClients, manage_session: bool
) -> None:
    """Its transport, and python-socketio's environ with it, is gone when the handler runs."""
    a, b = [await start(socketio={"manage_session": manage_session}) for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET, auth={"session": {"user": "ann"}, "slow": 1})
    await client.move(b)
    await client.run("cut")
    await until(lambda: _any(b, "connect"), b.log)
    await client.run("cut")
    await until(lambda: _any(b, "disconnect"), b.log)
    if manage_session:
        assert (await seen("disconnect", b))[0]["session"]["user"] == "ann"


async def _any(node: NodeProcess, what: str) -> bool:
    return bool(await seen(what, node))


async def test_what_can_not_be_stored_is_logged_and_the_rest_is_stored(start: StartNode, clients: JsClients) -> None:
    a, b = [await start() for _ in "ab"]
    client = await clients.open(a, options=WEBSOCKET)
    assert await client.call("odd") == "done"
    await client.call("odd_state")
    assert a.log().count("can't be stored for recovery: flask.session['object'] is or contains a dict") == 1
    await client.move(b)
    a.kill()
    assert (await client.connected(2))["recovered"]
    assert await client.call("odd_state") == [
        "('_flashes', [('message', 'a message')])",
        r"('bytes', b'\xff')",
        "('when', datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc))",
    ]


async def test_without_managed_sessions_flask_reads_the_cookie(start: StartNode, clients: JsClients) -> None:
    a, b = [await start(socketio={"manage_session": False}) for _ in "ab"]
    headers = {"extraHeaders": {"Cookie": "name=ann"}}
    client = await clients.open(a, options={**WEBSOCKET, **headers})
    await client.call("set", "user", "ann")
    await client.move(b)
    a.kill()
    assert (await client.connected(2))["recovered"]
    assert (await client.state())["session"] == {}
    assert await client.call("cookie") == "ann"
    assert "Traceback" not in a.log() + b.log()
