"""Entering and leaving rooms: several at once, and in ``connect`` handlers, which do not wait for Redis each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from socketio_recovery.errors import PublishTimeout

from .simulation import SimulatedClient, SimulatedNode, Simulation

Handler = Callable[[str], Awaitable[Any]]


@pytest.fixture
def cluster() -> Iterator[Simulation]:
    made = Simulation(1, 2)
    yield made
    made.close()


def on_connect(node: SimulatedNode, handler: Handler) -> None:
    """Runs ``handler(sid)`` in the node's ``connect`` handler."""

    async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        await node._connected(sid, environ, auth)
        return await handler(sid)

    node.sio.on("connect", connect)


def opened(cluster: Simulation, node: SimulatedNode) -> tuple[SimulatedClient, str]:
    client = cluster.open(node)
    cluster.until(lambda: client.connected, 5, "it connects")
    assert client.session is not None
    return client, client.session.sid


def stored(cluster: Simulation, sid: str) -> set[str]:
    """The rooms in a session's record."""
    record = cluster.store.key(b"{m}:session:" + sid.encode()) or {}
    return {field[3:-1].decode() for field in record if field.startswith(b'r:"')}


def batches(node: SimulatedNode) -> list[int]:
    """Notes how many entries go to Redis in each step, from now on."""
    sizes: list[int] = []
    take = node.parts.log._take

    def noting() -> Any:
        batch = take()
        sizes.append(len(batch))
        return batch

    node.parts.log._take = noting  # type: ignore[method-assign]
    return sizes


def done(cluster: Simulation, node: SimulatedNode, work: Awaitable[Any]) -> Any:
    """What some work on a node ends with: its result, or its error."""
    task = node.task(work)
    cluster.until(task.done, 10, "it is done")
    return task.exception() or task.result()


def test_a_connect_handler_does_not_wait_for_redis_at_each_room(cluster: Simulation) -> None:
    """It sees its client's rooms at once. Others do before the client is greeted."""
    a = cluster.nodes[0]
    rooms = [f"room {i}" for i in range(300)]
    seen: list[Any] = []

    async def handler(sid: str) -> None:
        for room in rooms:
            await a.sio.enter_room(sid, room)
        await a.sio.leave_room(sid, rooms[0])
        await a.sio.enter_room(sid, [*rooms[:2], 7])
        await a.sio.leave_room(sid, {rooms[0], "another"})
        seen.append((set(a.sio.rooms(sid)), stored(cluster, sid)))
        await a.sio.emit("e", 0, to=rooms[299])

    on_connect(a, handler)
    sizes = batches(a)
    greeted: list[set[str]] = []
    connected = SimulatedClient._connected

    def noting(client: SimulatedClient, data: dict[str, Any]) -> None:
        greeted.append(stored(cluster, data["sid"]))
        connected(client, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedClient, "_connected", noting)
        client, sid = opened(cluster, a)
    cluster.run(0.2)
    assert seen == [({sid, *rooms[1:], 7}, set())]
    assert greeted == [set(rooms[1:])]
    assert set(a.sio.rooms(sid)) == {sid, *rooms[1:], 7}
    assert len(sizes) == 1, "with the event, in one step"
    assert client.session is not None
    assert client.session.got == [0]


@pytest.mark.parametrize("always_connect", [False, True])
def test_a_room_that_is_refused_ends_the_handshake(cluster: Simulation, always_connect: bool) -> None:
    """As if the handler had raised it. The new session is forgotten, and the client tries again."""
    a, b = cluster.nodes
    _, other = opened(cluster, b)
    ran: list[str] = []

    async def handler(sid: str) -> None:
        ran.append(sid)
        if len(ran) == 1:
            await a.sio.enter_room(sid, other)
            await a.sio.enter_room(sid, "red")

    for node in cluster.nodes:
        node.sio.always_connect = always_connect
        on_connect(node, handler)
    client = cluster.open(a)
    cluster.until(lambda: len(ran) > 1 and client.connected, 5, "it tries again")
    assert client.session is not None
    assert client.session.sid == ran[1] != ran[0]
    assert cluster.store.key(b"{m}:session:" + ran[0].encode()) is None


def test_a_room_that_this_node_knows_to_be_anothers_is_refused_at_once(cluster: Simulation) -> None:
    a = cluster.nodes[0]
    _, other = opened(cluster, a)
    errors: list[str] = []

    async def handler(sid: str) -> None:
        try:
            await a.sio.enter_room(sid, ["red", other])
        except ValueError as error:
            errors.append(str(error))

    on_connect(a, handler)
    _, sid = opened(cluster, a)
    assert errors == [f"cannot enter a sid room: {other!r} is the id of another client"]
    assert stored(cluster, sid) == set()


def test_redis_is_away_when_a_connect_handler_enters_rooms(cluster: Simulation) -> None:
    node, other = cluster.nodes
    cluster.crash(other)
    ran: list[str] = []

    async def handler(sid: str) -> None:
        if not ran:
            cluster.store.reachable = False
            cluster.store.cut()
        ran.append(sid)
        await node.sio.enter_room(sid, "red")

    on_connect(node, handler)
    client = cluster.open(node)
    cluster.until(lambda: bool(ran), 5, "the handler runs")
    websocket = client.websocket
    cluster.run(2)
    assert not client.connected, "it is not greeted before its rooms are stored"
    cluster.run(2)
    assert client.websocket is not websocket, "publish_timeout is over"
    cluster.store.reachable = True
    cluster.until(lambda: client.connected, 15, "it tries again")
    assert client.session is not None
    assert client.session.sid != ran[0]
    assert stored(cluster, client.session.sid) == {"red"}


def test_a_connect_handler_that_raises_counts_more_than_what_it_queued(cluster: Simulation) -> None:
    a, b = cluster.nodes
    client, sid = opened(cluster, b)
    _, other = opened(cluster, b)

    async def handler(sid: str) -> None:
        await a.sio.enter_room(sid, other)
        await a.sio.enter_room(sid, "red")
        raise ConnectionRefusedError

    on_connect(a, handler)
    client.drop(False, a, 0.5)
    cluster.until(lambda: len([run for run in cluster.runs if run.node is a]) > 0, 5, "it comes to the handler")
    cluster.run(0.5)
    assert not client.connected
    assert client.websocket is not None, "it is refused, and not sent away to try again"
    assert stored(cluster, sid) == {"red"}, "it was so before, too: the session is given back with its rooms"


def test_a_local_event_comes_after_the_rooms_that_the_handler_entered(cluster: Simulation) -> None:
    a = cluster.nodes[0]

    async def handler(sid: str) -> None:
        await a.sio.enter_room(sid, "red")
        await a.sio.emit("e", 1, to="red", ignore_queue=True)

    on_connect(a, handler)
    client, _ = opened(cluster, a)
    cluster.run(0.2)
    assert client.session is not None
    assert client.session.got == [1]


def test_a_task_that_outlives_its_connect_handler_waits_for_redis(cluster: Simulation) -> None:
    a = cluster.nodes[0]
    seen: list[set[str]] = []
    tasks: list[asyncio.Task[None]] = []

    async def later(sid: str) -> None:
        await asyncio.sleep(0.3)
        await a.sio.enter_room(sid, "red")
        seen.append(stored(cluster, sid))

    async def handler(sid: str) -> None:
        tasks.append(asyncio.ensure_future(later(sid)))

    on_connect(a, handler)
    opened(cluster, a)
    cluster.run(1)
    assert seen == [{"red"}]


def test_several_rooms_are_one_step(cluster: Simulation) -> None:
    a, b = cluster.nodes
    _, sid = opened(cluster, a)
    _, other = opened(cluster, b)
    sizes = batches(a)
    rooms = [f"room {i}" for i in range(20)]
    assert done(cluster, a, a.sio.enter_room(sid, (*rooms, None, sid))) is None
    assert (stored(cluster, sid), sizes) == (set(rooms), [20])
    assert done(cluster, a, a.sio.leave_room(sid, frozenset(rooms[1:]))) is None
    assert (stored(cluster, sid), sizes) == ({rooms[0]}, [20, 19])
    error = done(cluster, a, a.sio.enter_room(sid, ["red", other, "blue"]))
    assert str(error) == f"cannot enter a sid room: {other!r} is the id of another client"
    assert stored(cluster, sid) == {rooms[0], "red", "blue"}, "the others are entered all the same"
    for wrong in (["green", 2.5], ["green", "\ud800"]):
        assert isinstance(done(cluster, a, a.sio.enter_room(sid, wrong)), (TypeError, ValueError))
    assert "green" not in stored(cluster, sid), "nothing is queued then"
    assert done(cluster, a, a.sio.enter_room("nobody", ["red", "blue"])) is None


def test_several_rooms_while_redis_is_away(cluster: Simulation) -> None:
    a = cluster.nodes[0]
    _, sid = opened(cluster, a)
    cluster.store.reachable = False
    cluster.store.cut()
    cluster.emit(a)  # the batch that the writer is busy with
    cluster.run(0.5)
    waits = a.task(a.sio.enter_room(sid, ["red", "blue"]))
    cluster.run(0.5)
    waits.cancel()
    assert isinstance(done(cluster, a, a.sio.enter_room(sid, ["green", "white"])), PublishTimeout)
    cluster.store.reachable = True
    cluster.run(5)
    assert waits.cancelled()
    assert stored(cluster, sid) == set(), "all was withdrawn"
