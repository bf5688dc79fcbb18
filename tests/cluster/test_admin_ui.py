"""``sio.instrument()``, for the Socket.IO Admin UI: clients recover as without it, and the Admin UI is told of them.

It wraps methods of the server after this library has, and methods of the Engine.IO sockets' class. So each test starts
node processes of its own.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients
from tests.support.node_process import NodeProcess, StartNode, quiet
from tests.support.waiting import until

MODES = ["development", "production"]
#: Sessions whose node died end soon.
SHORT = {"max_disconnection_duration": 0.3, "heartbeat_interval": 0.1}
PINGS = {"ping_interval": 1, "ping_timeout": 2}
#: As many pings, but a busy machine may be late with the answers.
PATIENT = {**PINGS, "ping_timeout": 10}
#: The events that tell of single clients. Only ``mode="development"`` has them.
OF_CLIENTS = {"socket_connected", "socket_disconnected", "event_received", "room_joined", "room_left"}


def instrument(mode: str) -> dict[str, Any]:
    """Arguments of ``sio.instrument()``. The Admin UI gets the changes of rooms with the statistics."""
    return {"auth": False, "mode": mode, "server_stats_interval": 0.1}


async def open_admin(clients: JsClients, node: NodeProcess) -> JsClient:
    """Opens a client as the Admin UI does."""
    return await clients.open(node, "admin", namespaces=["/admin"], options=WEBSOCKET)


def reports(admin: JsClient, event: str) -> list[tuple[Any, ...]]:
    """The arguments of all events of one name that the Admin UI got."""
    return [arguments for name, *arguments in admin.events("/admin") if name == event]  # type: ignore[misc]


async def reported(admin: JsClient, event: str, *beginning: Any, times: int = 1) -> list[tuple[Any, ...]]:
    """Waits until the Admin UI got an event ``times`` times, with arguments that begin with ``beginning``."""

    def found() -> list[tuple[Any, ...]]:
        return [a for a in reports(admin, event) if tuple(a[: len(beginning)]) == beginning]

    await until(lambda: len(found()) >= times, lambda: f"{event} {beginning}: {admin.events('/admin')[-20:]}")
    return found()


async def connected(admin: JsClient, sid: str, times: int) -> list[dict[str, Any]]:
    """Waits until the Admin UI was told ``times`` times that a client is connected."""

    def found() -> list[dict[str, Any]]:
        return [socket for socket, _ in reports(admin, "socket_connected") if socket["id"] == sid]

    await until(lambda: len(found()) >= times, lambda: str(reports(admin, "socket_connected")))
    return found()


async def disconnects(node: NodeProcess, sid: str) -> list[str]:
    """The reasons for which the ``disconnect`` handler ran for a session."""
    seen = (await node.look())["seen"]
    return [entry["reason"] for entry in seen if entry["what"] == "disconnect" and entry["sid"] == sid]


async def disconnected(node: NodeProcess, sid: str, times: int) -> list[str]:
    """Waits until the ``disconnect`` handler ran ``times`` times for a session."""

    async def ran() -> bool:
        return len(await disconnects(node, sid)) >= times

    await until(ran, node.log)
    return await disconnects(node, sid)


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_recovers_on_another_node(start_node: StartNode, clients: JsClients, mode: str) -> None:
    a, b = [await start_node(instrument=instrument(mode)) for _ in "ab"]
    admin = await open_admin(clients, b)
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await client.call("join", "red")
    await client.call("save", {"name": "Ann"})
    await a.emit("news", 1, to="red")
    await client.received(1)
    a.kill()
    for number in (2, 3):
        await b.emit("news", number, to="red")
    await client.move(b)
    again = await client.connected(2)
    assert (again["recovered"], again["sid"]) == (True, sid)
    assert await client.received(3) == [("news", 1), ("news", 2), ("news", 3)]
    state = await client.state()
    assert (state["node"], state["rooms"], state["session"]) == ("b", sorted(["red", sid]), {"name": "Ann"})
    await client.run("disconnect")
    assert await disconnected(b, sid, 1) == ["client disconnect"]
    stats = await reported(admin, "server_stats")
    assert {"clientsCount", "namespaces", "aggregatedEvents"} <= stats[0][0].keys()
    if mode == "development":
        await connected(admin, sid, 2)
        await reported(admin, "socket_disconnected", "/", sid, "client disconnect")
    else:
        assert {name for name, *_ in admin.events("/admin")} <= {"config", "server_stats"}
    quiet(b)


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_loses_its_transport_recovers(start_node: StartNode, clients: JsClients, mode: str) -> None:
    """The Admin UI's Engine.IO handlers take the place of this library's, and call them."""
    a = await start_node(instrument=instrument(mode))
    admin = await open_admin(clients, a)
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await client.call("join", "red")
    for times in (2, 3):
        await client.run("cut")
        await a.emit("news", times, to="red")
        again = await client.connected(times)
        assert (again["recovered"], again["sid"]) == (True, sid)
        assert (await client.received(times - 1))[-1] == ("news", times)
        assert len(await disconnected(a, sid, times - 1)) == times - 1
    await client.run("disconnect")
    assert (await disconnected(a, sid, 3))[2:] == ["client disconnect"]
    await reported(admin, "server_stats")
    if mode == "development":
        await reported(admin, "socket_disconnected", "/", sid, times=3)
    quiet(a)


@pytest.mark.parametrize("options", [WEBSOCKET, {}], ids=["websocket", "upgrade"])
async def test_it_is_told_of_clients_also_when_one_takes_its_session_over(
    start_node: StartNode, clients: JsClients, options: dict[str, Any]
) -> None:
    """A client comes back while its old connection is half-open: for a moment its sessions have two connections each.

    The ``disconnect`` handler of the old connection to ``/`` takes a while. That to ``/other`` is next. So the client
    has connected to ``/other`` again before the Admin UI is told that it has disconnected.
    """
    a = await start_node(instrument=instrument("development"), slow_disconnect=0.5)
    admin = await open_admin(clients, a)
    client = await clients.open(a, options=options, namespaces=["/", "/other"])
    sids = {nsp: client.connects(nsp)[0]["sid"] for nsp in ("/", "/other")}
    for nsp, sid in sids.items():
        assert (await connected(admin, sid, 1))[0]["nsp"] == nsp
        await client.call("join", "red", nsp=nsp)
        await reported(admin, "event_received", nsp, sid, ["join", "red"])
        await reported(admin, "room_joined", nsp, "red", sid)

    await client.run("half_open")
    for nsp, sid in sids.items():
        again = await client.connected(2, nsp)
        assert (again["recovered"], again["sid"]) == (True, sid)
        await client.call("join", "blue", nsp=nsp)
        await client.call("leave", "red", nsp=nsp)
        await reported(admin, "room_left", nsp, "red", sid)
    for nsp, sid in sids.items():
        assert len(await disconnected(a, sid, 1)) == 1
        await reported(admin, "socket_disconnected", nsp, sid)
        assert sorted((await client.state(nsp))["rooms"]) == sorted(["blue", sid])

    for nsp, sid in sids.items():
        await client.run("disconnect", nsp=nsp)
        assert (await disconnected(a, sid, 2))[1:] == ["client disconnect"]
        await reported(admin, "socket_disconnected", nsp, sid, "client disconnect")
    last = await clients.open(a, options=WEBSOCKET)  # what was reported before this one is reported by now
    await last.call("join", "red")
    await reported(admin, "room_joined", "/", "red", last.connects()[0]["sid"])
    for nsp, sid in sids.items():
        assert len(await disconnects(a, sid)) == 2
        assert len(await reported(admin, "socket_disconnected", nsp, sid)) == 2
        for room in ("red", "blue"):
            assert len(await reported(admin, "room_joined", nsp, room, sid)) == 1
    quiet(a)


async def test_the_handler_of_an_orphan_runs_on_a_node_that_never_saw_it(
    start_node: StartNode, clients: JsClients
) -> None:
    """Upstream's ``disconnect`` wrapper forgets when the client connected, which this node never knew."""
    config: dict[str, Any] = {"manager": SHORT, "instrument": instrument("development")}
    a, b = [await start_node(server=pings, **config) for pings in (PINGS, PATIENT)]
    admin = await open_admin(clients, b)
    client = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    sid = client.connects()[0]["sid"]
    a.kill()
    assert await disconnected(b, sid, 1) == ["node lost"]
    await reported(admin, "socket_disconnected", "/", sid, "node lost")
    quiet(b)


async def test_the_admin_can_move_and_disconnect_clients(start_node: StartNode, clients: JsClients) -> None:
    a = await start_node(instrument=instrument("development"))
    admin = await open_admin(clients, a)
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await admin.run("emit", nsp="/admin", event="join", args=["/", "red", sid])
    await reported(admin, "room_joined", "/", "red", sid)
    await admin.run("emit", nsp="/admin", event="emit", args=["/", "red", "news", 1])
    await until(lambda: ("news", 1) in client.events(), lambda: str(client.reports))
    await reported(admin, "event_sent", "/", sid, ["news", 1])
    await admin.run("emit", nsp="/admin", event="_disconnect", args=["/", False, sid])
    assert await disconnected(a, sid, 1) == ["server disconnect"]
    await reported(admin, "socket_disconnected", "/", sid, "server disconnect")
    quiet(a)


async def test_what_the_admin_ui_can_not_be_told_of_goes_on_all_the_same(
    start_node: StartNode, clients: JsClients
) -> None:
    """While Redis does not answer, each event for the Admin UI is lost; handlers, pings and statistics are not."""
    server = RedisServer(preexec=die_with_parent)
    assert server.process is not None
    try:
        # a node that has to start within publish_timeout may be too late on a busy machine
        short: dict[str, Any] = {"manager": {"publish_timeout": 0.3}, "start": False}
        a = await start_node(instrument=instrument("development"), redis=server.url, server=PATIENT, **short)
        admin = await open_admin(clients, a)
        stays, goes = [await clients.open(a, options=WEBSOCKET) for _ in range(2)]
        sid = goes.connects()[0]["sid"]
        await reported(admin, "server_stats")
        server.process.send_signal(signal.SIGSTOP)
        await goes.run("cut")
        assert await disconnected(a, sid, 1) == ["transport close"]
        await until(lambda: a.log().count("the Admin UI could not be told of 'socket_connected'") >= 3, a.log)  # pings
        server.process.send_signal(signal.SIGCONT)
        before = len(reports(admin, "server_stats"))
        await reported(admin, "server_stats", times=before + 3)
        await goes.connected(2)
        assert len(stays.connects()) == len(admin.connects("/admin")) == 1
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.stop()
