"""Bugs that were found once, each with the shortest program that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis.exceptions
from socketio_recovery.aio import sessions
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.metrics import NoMetrics

from .check import LogHistory, check_handlers
from .redis import SimulatedStream
from .simulation import HEARTBEAT, TTL, HandlerRun, SimulatedClient, SimulatedNode, Simulation


@pytest.fixture
def make() -> Iterator[Callable[..., Simulation]]:
    """Makes simulated clusters; with the same seed, so that each run is the same."""
    made: list[Simulation] = []

    def make(nodes: int = 3, **options: Any) -> Simulation:
        made.append(Simulation(1, nodes, **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


def opened(cluster: Simulation, node: SimulatedNode) -> tuple[SimulatedClient, str]:
    client = cluster.open(node)
    cluster.until(lambda: client.connected, 5, "it connects")
    assert client.session is not None
    return client, client.session.sid


def handled(cluster: Simulation, sid: str) -> list[HandlerRun]:
    """The disconnect handlers that ran for a session."""
    return [run for run in cluster.runs if run.what == "disconnect" and run.sid == sid]


def failing(method: Any, *errors: Exception) -> Any:
    """Wraps a method: its first calls raise these errors, one each; later calls run the method."""
    left = list(errors)

    async def call(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop(0)
        return await method(*arguments, **options)

    return call


OUT_OF_MEMORY = redis.exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")


async def saved(node: SimulatedNode, sid: str) -> None:
    await node.sio.save_session(sid, {"user": "ann"})
    await node.sio.enter_room(sid, "red")


@pytest.mark.parametrize("first", ["disconnect", "loss", "leave"])
def test_a_disconnect_while_the_handler_runs(make: Callable[..., Simulation], first: str) -> None:
    """The handler goes on with its session."""
    cluster = make()
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    seen: list[Any] = []

    async def handler(sid: str, reason: str) -> None:
        for pause in (0.5, 0.0):
            seen.append((await a.sio.get_session(sid), sorted(map(str, a.sio.rooms(sid)))))
            await asyncio.sleep(pause)

    a.sio.on("disconnect", handler)
    a.task(saved(a, sid))
    cluster.run(0.1)
    if first == "disconnect":
        a.task(a.sio.disconnect(sid))
    elif first == "loss":
        client.vanish()
    else:
        forget = a.parts.sessions.forget

        async def slowly(*arguments: Any, **options: Any) -> bool:
            await asyncio.sleep(0.2)
            return await forget(*arguments)

        a.parts.sessions.forget = slowly  # type: ignore[method-assign]
        assert client.websocket is not None
        client.websocket.write("41")
    cluster.run(0.1)
    a.task(a.sio.disconnect(sid))
    cluster.run(2)
    assert seen == [({"user": "ann"}, sorted(["red", sid]))] * 2


def test_what_is_owed_for_a_refused_recovery_is_not_asked_of_the_new_session(make: Callable[..., Simulation]) -> None:
    cluster = make()
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    client.drop(False, b, 1.0)
    for _ in range(3):
        cluster.emit(a)
    cluster.run(0.2)
    cluster.store.do_xtrim(b"{m}:log", b"MAXLEN", b"~", b"1")
    b.parts.partition.window.reset(b.parts.partition.position.n, cluster.store.ms)
    b.parts.sessions.detach = failing(b.parts.sessions.detach, RedisUnavailable("slow"))  # type: ignore[method-assign]
    cluster.until(lambda: client.connected, 5, "it is back")
    assert [why for why, _ in client.refusals] == ["trimmed"]
    websocket = client.websocket
    cluster.run(2 * TTL)
    assert client.websocket is websocket
    assert len(handled(cluster, sid)) == 1


def test_a_claim_whose_reply_came_too_late_is_given_back(make: Callable[..., Simulation]) -> None:
    cluster = make()
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    client.drop(False, b, 1.0)
    claim = b.parts.sessions.claim

    async def late(*arguments: Any, **options: Any) -> Any:
        await claim(*arguments)
        client.active = False  # it does not try again
        raise RedisUnavailable("too late")

    b.parts.sessions.claim = late  # type: ignore[method-assign]
    cluster.run(3 * TTL)
    assert [run.reason for run in handled(cluster, sid)] == ["transport close"]


def test_nobody_is_refused_for_the_entry_that_it_has(make: Callable[..., Simulation]) -> None:
    """All it missed is there; the last it has seen is not, but that is confirmed."""
    cluster = make()
    a, b = cluster.nodes[:2]
    client, _ = opened(cluster, a)
    cluster.emit(a)
    cluster.run(30)  # nothing happens
    cluster.restart(b)
    b = cluster.nodes[1]
    cluster.run(0.2)
    client.drop(False, b, 0.5)
    cluster.run(0.2)
    cluster.emit(a)
    cluster.until(lambda: client.connected, 5, "it is back")
    assert client.refusals == []


@pytest.mark.parametrize("times", [1, 1000])
def test_redis_refuses_to_detach(make: Callable[..., Simulation], times: int) -> None:
    """It is told again until it does; other sessions are kept meanwhile."""
    cluster = make()
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    other, other_sid = opened(cluster, a)
    websocket = other.websocket
    a.parts.sessions.detach = failing(a.parts.sessions.detach, *[OUT_OF_MEMORY] * times)  # type: ignore[method-assign]
    client.vanish()
    cluster.run(3 * TTL)
    assert other.websocket is websocket
    assert handled(cluster, other_sid) == []
    assert [run.reason for run in handled(cluster, sid) if run.node is a] == ["transport close"]
    assert len(handled(cluster, sid)) == (1 if times == 1 else 2)  # else nobody could know


def test_what_is_owed_is_paid_before_the_end(make: Callable[..., Simulation]) -> None:
    cluster = make()
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    a.parts.sessions.detach = failing(a.parts.sessions.detach, RedisUnavailable("slow"))  # type: ignore[method-assign]
    client.active = False

    async def stop() -> None:
        await a.manager.drain()
        await a.manager.close()

    a.task(stop())
    cluster.run(3 * TTL)
    assert len(handled(cluster, sid)) == 1


@pytest.mark.parametrize("nodes", [1, 3])
def test_who_lives_is_no_orphan_after_an_outage(
    make: Callable[..., Simulation], nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HEARTBEAT_COUNT", 2)  # as with more clients
    cluster = make(nodes)
    clients = [opened(cluster, node)[0] for node in cluster.nodes for _ in range(6 // nodes)]
    websockets = [client.websocket for client in clients]
    cluster.store.reachable = False
    cluster.store.cut()
    cluster.run(TTL + 2)
    cluster.store.reachable = True
    cluster.run(TTL)
    assert [client.websocket for client in clients] == websockets
    assert [run for run in cluster.runs if run.what == "disconnect"] == []


def test_a_foreign_entry_that_comes_and_goes_begins_no_epoch(make: Callable[..., Simulation]) -> None:
    cluster = make()
    a = cluster.nodes[0]
    client, _ = opened(cluster, a)
    cluster.emit(a)
    cluster.run(0.5)
    websocket, epoch = client.websocket, cluster.store.do_hget(b"{m}:meta", b"epoch")

    async def add() -> None:
        cluster.store.do_xadd(b"{m}:log", b"%d-999" % cluster.store.ms, b"not", b"ours")

    cluster.loop.run_until_complete(add())
    cluster.run(0.5)
    stream = cluster.store.read(b"{m}:log", SimulatedStream)
    del stream.ids[-1], stream.fields[-1]
    cluster.store.cut(a)
    cluster.run(3)
    assert client.websocket is websocket
    assert cluster.store.do_hget(b"{m}:meta", b"epoch") == epoch


def orphans(cluster: Simulation, count: int) -> None:
    """Creates sessions whose node is dead."""
    node = cluster.nodes[1]
    dead = sessions.Sessions(node.parts.sessions.calls, node.parts.membership.keys, "dead", 1000, 1, 1500, 5)

    async def create() -> None:
        await asyncio.gather(*(dead.create(f"o{i}", None, "/", f"token {i:05d}", "t") for i in range(count)))

    with node:
        cluster.loop.run_until_complete(create())


def test_a_handler_that_close_cut_off_runs_elsewhere(make: Callable[..., Simulation]) -> None:
    cluster = make()
    b, c = cluster.nodes[1:]
    cluster.crash(cluster.nodes[0])
    ended: list[str] = []

    async def handler(sid: str, reason: str) -> None:
        await asyncio.sleep(2)
        ended.append(sid)

    b.sio.on("disconnect", handler)
    c.sio.on("disconnect", handler)
    orphans(cluster, 10)
    cluster.until(lambda: bool(b.parts.orphans.heartbeats or c.parts.orphans.heartbeats), TTL, "one adopts")
    first = b if b.parts.orphans.heartbeats else c
    first.task(first.manager.close())
    cluster.run(3 * TTL)
    assert sorted(ended) == sorted(f"o{i}" for i in range(10))


def test_handlers_that_hang_do_not_pile_up(make: Callable[..., Simulation]) -> None:
    cluster = make(2)
    cluster.crash(cluster.nodes[0])
    b = cluster.nodes[1]

    async def handler(sid: str, reason: str) -> None:
        await asyncio.Event().wait()

    b.sio.on("disconnect", handler)
    orphans(cluster, 150)
    cluster.run(10 * HEARTBEAT)
    before = len(b.tasks)
    cluster.run(40 * HEARTBEAT)
    assert len(b.tasks) <= before + 5


def test_a_client_that_comes_while_its_node_boots(make: Callable[..., Simulation]) -> None:
    """Its session is older than what the node reads first: others emit meanwhile."""
    cluster = make()
    a, b = cluster.nodes[:2]
    cluster.restart(b)
    b = cluster.nodes[1]
    tail = b.parts.log.tail

    async def slowly(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.3)
        return await tail(*arguments)

    b.parts.log.tail = slowly  # type: ignore[method-assign]
    client = cluster.open(b)
    for _ in range(10):
        cluster.run(0.02)
        cluster.emit(a)
    cluster.until(lambda: client.connected, 5, "it connects")
    cluster.run(1)
    assert [(run.what, run.node) for run in cluster.runs] == [("connect", b)]
    assert client.refusals == []
    assert len(client.sessions) == 1
    assert client.sessions[0].got, "what was emitted since its session began"


def test_a_manager_that_closes_takes_nothing_more_on(make: Callable[..., Simulation]) -> None:
    """Else a busy node would never have stored everything, and clients would come to a node that is about to end."""
    cluster = make(2)
    a, b = cluster.nodes
    a.lag = 0.05
    said: list[str] = []

    async def says() -> None:
        for _ in range(3):
            try:
                await a.manager.emit("e", -1)
            except RuntimeError as error:
                said.append(str(error))
                said.append(str(a.manager.healthy))

    opened(cluster, a)
    begun = cluster.loop.time()
    for _ in range(3):
        cluster.emit(a)
    cluster.run(0.01)
    a.task(a.manager.close())
    cluster.run(0)
    a.task(says())
    cluster.run(2)
    assert said == ["this manager is closed", "False"] * 3
    assert cluster.loop.time() - begun < 3
    client = cluster.open(a)
    cluster.until(lambda: client.connected, 30, "another node takes it")
    assert client.node is b


def test_two_who_close_at_once(make: Callable[..., Simulation]) -> None:
    cluster = make(2)
    a = cluster.nodes[0]
    client, _ = opened(cluster, a)
    a.parts.sessions.detach = failing(a.parts.sessions.detach, RedisUnavailable("slow"))  # type: ignore[method-assign]
    client.vanish()
    cluster.run(0.1)
    a.lag = 0.1
    cluster.emit(a)
    cluster.run(0.01)
    closes = [a.task(a.manager.close()) for _ in range(2)]
    cluster.run(2)
    assert [close.result() for close in closes] == [None, None]


def test_a_replay_ends_though_its_connection_was_removed_before_its_transport_closed(
    make: Callable[..., Simulation],
) -> None:
    """As when the application removes a client that does not read, which then goes away."""

    def can_recover(environ: Any) -> bool:
        client = environ["simulation.client"]
        if client.pid is not None:
            client.websocket.congest()
        return True

    cluster = make(1, max_queue=100, can_recover=can_recover)
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    client.drop(False, a, 0.5)
    for _ in range(400):
        cluster.emit(a)

    def replays() -> list[Any]:
        return [task for task in a.tasks if "CatchUp" in getattr(task.get_coro(), "__qualname__", "")]

    cluster.until(lambda: bool(replays()), 2, "it catches up")
    cluster.run(0.2)
    assert len(replays()) == 1
    cluster.do(a, lambda: a.manager.disconnect(sid, "/", ignore_queue=True))
    cluster.run(0.1)
    client.vanish()
    cluster.run(10)
    assert replays() == []


def test_an_observer_of_rooms_that_raises_changes_nothing(make: Callable[..., Simulation]) -> None:
    """The Admin UI and others wrap ``basic_enter_room`` and ``basic_leave_room``."""
    cluster = make(2)
    a, b = cluster.nodes

    def fail(*arguments: Any) -> None:
        raise ValueError("a mistake of somebody else")

    for node in (a, b):
        setattr(node.manager, "basic_enter_room", fail)  # noqa: B010
        setattr(node.manager, "basic_leave_room", fail)  # noqa: B010
    first, sid = opened(cluster, a)
    second, other = opened(cluster, a)
    for one in (sid, other):
        cluster.do(a, lambda one=one: a.sio.enter_room(one, "red"))  # type: ignore[misc]
    cluster.run(0.2)
    cluster.emit(a, to="red")
    first.drop(False, a, 0.5)
    cluster.run(0.2)
    cluster.do(a, lambda: a.sio.close_room("red"))
    cluster.run(0.1)
    cluster.emit(a, to="red")
    cluster.emit(a)
    cluster.until(lambda: first.connected, 5, "it recovers")
    cluster.run(0.5)
    assert first.refusals == []
    for client in (first, second):
        assert client.session is not None
        assert client.session.got == [0, 2]


def test_a_connection_that_leaves_twice_is_counted_once(make: Callable[..., Simulation]) -> None:
    ended: list[Any] = []

    class Endings(NoMetrics):
        def ended(self, ending: Any) -> None:
            ended.append(ending)

    cluster = make(1, metrics=Endings())
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)

    async def twice() -> None:
        await asyncio.gather(*(a.manager.disconnect(sid, "/", ignore_queue=True) for _ in range(2)))

    a.task(twice())
    cluster.run(0.5)
    assert len(ended) == 1
    assert client.session is not None


def outage(cluster: Simulation, reachable: bool) -> None:
    cluster.store.reachable = reachable
    if not reachable:
        cluster.store.cut()


@pytest.mark.parametrize("last", ["transport lost", "disconnect packet"])
def test_a_node_that_dies_before_it_could_tell_redis_of_a_handler(make: Callable[..., Simulation], last: str) -> None:
    """Redis is away while the handler runs and when its node dies. Another node runs it again: it can't know."""
    cluster = make()
    history = LogHistory(cluster)
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    cluster.run(HEARTBEAT)
    outage(cluster, False)
    client.vanish() if last == "transport lost" else client.disconnect()
    cluster.until(lambda: bool(handled(cluster, sid)), TTL, "the handler runs")
    cluster.run(2)
    cluster.crash(a)
    outage(cluster, True)
    cluster.run(3 * TTL)
    assert [(run.node is a, run.reason == "node lost") for run in handled(cluster, sid)] == [
        (True, False),
        (False, True),
    ]
    check_handlers(cluster, history)
    cluster.runs.append(handled(cluster, sid)[-1])
    with pytest.raises(AssertionError, match="2 disconnect handlers"):  # but not a third time
        check_handlers(cluster, history)


@pytest.mark.parametrize("why", ["Redis knew", "its node lives"])
def test_a_handler_that_runs_twice_for_no_reason_is_noticed(make: Callable[..., Simulation], why: str) -> None:
    cluster = make()
    history = LogHistory(cluster)
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    if why == "its node lives":
        outage(cluster, False)
    client.vanish()
    cluster.until(lambda: bool(handled(cluster, sid)), TTL, "the handler runs")
    if why == "Redis knew":
        cluster.run(0.1)
        cluster.crash(a)
    outage(cluster, True)
    cluster.run(3 * TTL)
    check_handlers(cluster, history)
    cluster.runs.append(HandlerRun("disconnect", sid, b, "", "node lost"))
    with pytest.raises(AssertionError, match="2 disconnect handlers for the end"):
        check_handlers(cluster, history)
