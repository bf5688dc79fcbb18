"""Catching up: where replay meets live delivery, nothing is missed and nothing comes twice."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio_recovery.connections import Connection, Flow, State
from socketio_recovery.delivery import SLICE
from socketio_recovery.entries import DISCONNECT, Position
from socketio_recovery.packets import Message
from socketio_recovery.reasons import Ending, Outcome, RestartReason

from tests.support.past import Past, pasts
from tests.support.simulated_loop import Deadlock, SimulatedLoop
from tests.support.twin import rooms_after

from .dispatching import (
    EPOCH,
    DispatchingNode,
    FastQueue,
    Socket,
    event,
    evicting,
    moving,
    numbers,
    queued,
    volatile,
)


@settings(max_examples=250, deadline=None)
@given(past=pasts(), data=st.data())
def test_every_event_comes_once_and_in_order(past: Past, data: st.DataObject) -> None:
    """A client that returns while the log goes on gets what a twin got that never left."""
    join = data.draw(st.integers(0, len(past.entries)))
    start = data.draw(st.integers(0, join))
    steps = data.draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=20))
    limit = data.draw(st.integers(1, 10))

    async def run() -> None:
        node = DispatchingNode(max_queue=limit * 4)
        disconnected = node.disconnected
        if join:
            node.take(*past.entries[:join])
        connections: list[tuple[Connection, asyncio.Task[None]]] = []
        for (namespace, sid), twin in past.twins.items():
            if twin.ended is None or twin.ended > start:
                socket = Socket(f"{namespace} {sid}")
                socket.queue = FastQueue()
                rooms = list(rooms_after(twin, join)), list(rooms_after(twin, start))
                connection = node.behind(sid, start, *rooms, namespace=namespace, socket=socket)
                connections.append((connection, asyncio.create_task(node.catch_up.replay(connection))))
        rest = past.entries[join:]
        while rest:
            for size, turns in steps:
                if batch := rest[:size]:
                    node.take(*batch)
                rest = rest[size:]
                for _ in range(turns):
                    await asyncio.sleep(0)
            if all(size == 0 for size, _ in steps):
                break
        if rest:
            node.take(*rest)
        await asyncio.gather(*(task for _, task in connections))
        for connection, _ in connections:
            twin = past.twins[connection.namespace, connection.sid]
            expected = [n for n in twin.got if n > start] + [n for n in twin.fleeting if n > join]
            assert numbers(queued(connection)) == sorted(expected)
            assert (connection.flow is Flow.LIVE) == (twin.ended is None)
            assert (connection.ending is Ending.DISCONNECTED or connection in disconnected) == (twin.ended is not None)
            if connection.flow is Flow.LIVE:
                assert connection.rooms.keys() == twin.rooms.keys()
                members = node.connections.live.rooms(connection.namespace)
                at = {room for room, there in members.items() if connection in there}
                assert at == {None, connection.sid, *twin.rooms}
        assert node.aborted == []

    asyncio.run(run())


async def test_a_slow_client_gets_a_long_replay_in_slices_without_overflow() -> None:
    node = DispatchingNode(max_queue=20)
    node.take(*(event(str(i)) for i in range(500)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.catch_up.replay(connection))
    got: list[Message] = []
    while not task.done() or not connection.socket.queue.empty():
        if not connection.socket.queue.empty():
            assert connection.socket.queue.qsize() <= 20
            got.append(connection.socket.queue.get_nowait())
            if len(got) % 10 == 0:
                node.take(event("live"))
        await asyncio.sleep(0)
    await task
    assert connection.missed >= 500
    assert numbers(got) == list(range(1, node.last + 1))
    assert node.aborted == []


async def test_a_long_replay_lets_others_run() -> None:
    node = DispatchingNode(max_queue=10**6)
    node.take(*(event(str(i)) for i in range(SLICE * 5)))
    connection = node.behind("s1", 0)
    connection.socket.queue = FastQueue()
    task = asyncio.create_task(node.catch_up.replay(connection))
    seen = set()
    while not task.done():
        await asyncio.sleep(0)
        seen.add(len(connection.socket.queue.got))
    assert len(seen) >= 5


async def test_catching_up_ends_when_the_transport_closes() -> None:
    node = DispatchingNode(max_queue=20)
    node.take(*(event(str(i)) for i in range(100)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.catch_up.replay(connection))
    await asyncio.sleep(0)
    connection.socket.closed = True
    connection.socket.queue.wake()  # as when python-engineio says that the transport is lost
    await task
    assert connection.missed < 100
    assert connection.flow is not Flow.LIVE


async def test_catching_up_ends_when_the_connection_is_evicted() -> None:
    node = DispatchingNode(max_queue=20)
    node.take(*(event(str(i)) for i in range(100)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.catch_up.replay(connection))
    await asyncio.sleep(0)
    node.take(evicting("s1", "node", connection.transport))
    while not task.done():
        queued(connection)
        await asyncio.sleep(0)
    assert connection.flow is not Flow.LIVE
    assert connection not in node.connections.live.members("/", ())


async def test_what_the_window_lost_is_an_error() -> None:
    node = DispatchingNode()
    node.take(event())
    connection = node.behind("s1", 0)
    node.stream.upto(1)
    node.forget(1)
    with pytest.raises(LookupError):
        await node.catch_up.replay(connection)


async def test_traffic_that_is_not_replayed_does_not_cost_a_client_its_place() -> None:
    """Between joining and catching up the application's handler runs; volatile events go on meanwhile."""
    node = DispatchingNode(retention=10**6)
    connection = node.behind("s1", 0)
    for _ in range(10):
        node.take(*(volatile("v", "elsewhere") for _ in range(100)))
    await node.catch_up.replay(connection)
    assert connection.flow is Flow.LIVE
    node.take(event("e"))
    assert numbers(queued(connection)) == [1001]


def test_a_client_that_does_not_read_costs_nothing_while_it_waits() -> None:
    """No timer is set: the loop has nothing to do until the client reads, or its transport is lost."""
    loop = SimulatedLoop()
    asyncio.set_event_loop(loop)
    try:
        node = DispatchingNode(max_queue=20)
        node.take(*(event(str(i)) for i in range(100)))
        connection = node.behind("s1", 0)
        task = loop.create_task(node.catch_up.replay(connection))
        with pytest.raises(Deadlock):
            loop.run_until_complete(task)
        while connection.socket.queue.qsize():
            connection.socket.queue.get_nowait()  # it reads
        with pytest.raises(Deadlock):
            loop.run_until_complete(task)
        assert connection.after == 10
        connection.socket.closing = True
        connection.socket.queue.wake()
        loop.run_until_complete(task)
        assert connection.missed == 10
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def test_a_connection_that_was_muted_in_a_slice_pins_nothing() -> None:
    node = DispatchingNode()
    node.take(event())
    connection = node.behind("s1", 0)
    node.connections.mute(connection)
    slice = node.delivery.replay(connection)
    assert slice.done
    assert connection.flow is Flow.MUTED
    assert connection not in node.connections.live.members("/", ())
    node.take(*(event() for _ in range(10)))


async def test_a_node_without_clients_that_lost_its_place_closes_nothing() -> None:
    node = DispatchingNode()
    node.delivery.restart(Position(EPOCH + 1, 1), RestartReason.EPOCH)
    assert node.aborted == []


async def test_who_recovered_is_counted_with_what_it_missed(caplog: pytest.LogCaptureFixture) -> None:
    """From the stream and from the window."""
    caplog.set_level(logging.INFO)
    node = DispatchingNode()
    node.take(*(event() for _ in range(10)))
    node.forget(5)
    recovered, new = node.behind("s1", 2), node.behind("s2", 2)
    recovered.outcome, new.outcome = Outcome.RECOVERED, Outcome.NEW
    for connection in (recovered, new):
        await node.catch_up.start(connection)
        await node.catch_up.over(connection)
    assert "s1 caught up on 8 events" in caplog.text
    assert "s2" not in caplog.text
    assert [connection.state for connection in (recovered, new)] == [State.CONNECTED] * 2


@pytest.mark.parametrize("floor", [0, 3])
async def test_a_session_that_was_disconnected_while_it_was_away_has_its_handler_run(floor: int) -> None:
    node = DispatchingNode()
    node.take(event(), moving(DISCONNECT), event())
    node.forget(floor)
    connection = node.behind("s1", 0)
    await node.catch_up.start(connection)
    await asyncio.sleep(0)
    await node.catch_up.over(connection)
    assert numbers(queued(connection)) == [1]
    assert node.disconnected == [connection]
    assert node.aborted == []


async def test_a_connection_that_is_gone_is_left_alone() -> None:
    node = DispatchingNode(max_queue=4)
    node.take(*(event() for _ in range(10)))
    connection = node.behind("s1", 0)
    await node.catch_up.start(connection)
    node.connections.remove(connection)
    connection.socket.queue.wake()
    await node.catch_up.over(connection)
    await asyncio.sleep(0)
    assert (node.disconnected, node.aborted, connection.state) == ([], [], State.GONE)
