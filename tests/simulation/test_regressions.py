"""Bugs that were found once, each with the shortest program that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis.exceptions
from socketio_recovery.aio import sessions
from socketio_recovery.connections import State
from socketio_recovery.errors import PublishAbandoned, RedisUnavailable
from socketio_recovery.metrics import NoMetrics

from tests.support.redis_channel import no_witness

from .check import LogHistory, check_handlers
from .participants import Observed
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
    b.parts.partition.window.reset(b.parts.partition.position.n)
    b.parts.sessions.detach = failing(b.parts.sessions.detach, RedisUnavailable("slow"))  # type: ignore[method-assign]
    cluster.until(lambda: client.connected, 5, "it is back")
    assert [why for why, _ in client.refusals] == ["trimmed"]
    websocket = client.websocket
    cluster.run(2 * TTL)
    assert client.websocket is websocket
    assert len(handled(cluster, sid)) == 1


def test_a_session_that_enters_a_room_before_its_node_knows_that_it_exists(make: Callable[..., Simulation]) -> None:
    """Others see it as a participant from then on. It got an empty view of its rooms, and was called damaged."""
    cluster = make()
    a, b = cluster.nodes[:2]
    create = a.parts.sessions.create

    async def late(*arguments: Any, **options: Any) -> Any:
        birth = await create(*arguments)
        sid = (await b.manager.participants())[0].sid
        for work in (b.sio.enter_room(sid, "closed"), b.sio.close_room("closed"), b.sio.enter_room(sid, "red")):
            await work
        while not a.parts.partition.has_dispatched(b.parts.partition.position):
            await asyncio.sleep(0.01)
        return birth

    a.parts.sessions.create = late  # type: ignore[method-assign]
    client, sid = opened(cluster, a)
    cluster.emit(b, to="red")
    cluster.emit(b, to="closed")
    cluster.run(0.5)
    assert client.connected
    assert len(client.sessions) == 1
    assert client.session is not None
    assert client.session.got == [0]
    assert a.sio.rooms(sid) == [sid, "red"]


@pytest.mark.parametrize("error", [PublishAbandoned(), OUT_OF_MEMORY])
def test_a_client_is_told_that_it_was_disconnected_though_its_record_is_gone(
    make: Callable[..., Simulation], error: Exception
) -> None:
    """Another connection may have claimed the session: the log is to tell it, and does not take that."""
    cluster = make()
    a = cluster.nodes[0]
    client, sid = opened(cluster, a)
    cluster.store.do_del(f"{{m}}:session:{sid}".encode())
    membership = a.parts.membership
    membership.disconnect = failing(membership.disconnect, error)  # type: ignore[method-assign]
    a.task(a.sio.disconnect(sid))
    cluster.until(lambda: not client.active, 1, "it is told")
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
    calls, keys = node.parts.sessions.calls, node.parts.membership.keys
    dead = sessions.Sessions(calls, keys, "dead", 1000, 1, 1500, 5, no_witness)

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
    """It waits until the node follows the log: before that the node can't tell what the client would miss."""
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
    cluster.emit(a)
    cluster.run(0.2)
    assert client.sessions[0].got == [10], "what was emitted since its session began"


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


def test_a_disconnect_during_the_handshake_leaves_the_handler_to_the_one_who_runs_it(
    make: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call comes while the client is in its handshake. When it goes on, the handler is about to run."""
    cluster = make(1)
    a = cluster.nodes[0]
    a.slow_handlers = 0.1
    client = cluster.open(a)
    cluster.until(lambda: bool(a.parts.connections), 5, "it is in its handshake")
    (connection,) = a.parts.connections
    cluster.until(lambda: connection.state is State.CONNECTING, 5, "its handler runs")
    leaving = asyncio.Event()
    can_disconnect, forget = a.manager.can_disconnect, a.parts.leaving.endings.forget

    async def slow(sid: str, namespace: str) -> bool:
        result = await can_disconnect(sid, namespace)
        await leaving.wait()
        return result

    async def forgets(connection: Any) -> bool:
        leaving.set()
        await asyncio.sleep(0.01)
        return await forget(connection)

    monkeypatch.setattr(a.manager, "can_disconnect", slow)
    monkeypatch.setattr(a.parts.leaving.endings, "forget", forgets)
    ends = a.task(a.sio.disconnect(connection.sid))
    cluster.run(2)
    assert ends.done()
    assert a.faults == []
    assert [run.reason for run in handled(cluster, connection.sid)] == ["server disconnect"]
    assert not client.connected


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


def test_who_left_is_told_although_the_log_was_trimmed_past_that(make: Callable[..., Simulation]) -> None:
    cluster = make(2)
    a, b = cluster.nodes
    observed = Observed(b, None, True)
    cluster.run(0.2)
    client, sid = opened(cluster, a)
    cluster.until(lambda: sid in observed.states, 1, "it is told who joins")
    b.lag = 0.5
    cluster.emit(a)
    cluster.run(0.1)  # that is on its way to b, which asks for what follows only then
    client.disconnect()
    cluster.run(0.1)
    cluster.store.do_xtrim(b"{m}:log", b"MAXLEN", b"0")
    cluster.emit(a)
    b.lag = 0.0
    cluster.until(observed.told_all, 2, "it is told who left")
    assert (observed.states, observed.faults) == ({sid: None}, [])


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


@pytest.mark.parametrize("how", ["loss", "node lost"])
def test_a_disconnect_handler_that_leaves_rooms(make: Callable[..., Simulation], how: str) -> None:
    """It is what code that tidies up does. The session that waits for the client is not emptied by it."""
    cluster = make(2)
    a, b = cluster.nodes
    client, sid = opened(cluster, a)
    seen: list[list[str]] = []

    def tidy(node: SimulatedNode) -> Callable[..., Awaitable[None]]:
        async def handler(sid: str, reason: str) -> None:
            if node.dead:
                return
            seen.append(sorted(map(str, node.sio.rooms(sid))))
            for room in ("red", "blue"):
                await node.sio.leave_room(sid, room)
            await node.sio.enter_room(sid, "away")
            seen.append(sorted(map(str, node.sio.rooms(sid))))

        return handler

    for node in (a, b):
        node.sio.on("disconnect", tidy(node))
    for room in ("red", "blue"):
        cluster.do(a, partial(a.sio.enter_room, sid, room))
    cluster.run(0.2)
    if how == "loss":
        client.drop(False, b, 1.0)
        cluster.run(0.5)
    else:
        client.active = False
        cluster.crash(a)
        cluster.run(3 * TTL)
    assert seen == [sorted(["blue", "red", sid]), sorted(["away", sid])]
    if how == "loss":
        cluster.emit(b, to="red")
        cluster.emit(b, to="away")
        cluster.until(lambda: client.connected, 5, "it recovers")
        cluster.run(0.5)
        assert client.refusals == []
        assert client.session is not None
        assert client.session.got == [0]
        assert set(b.sio.rooms(sid)) == {"red", "blue", sid}


def test_redis_set_back_under_a_node_that_has_read_further(make: Callable[..., Simulation]) -> None:
    """The node notices it by the birth of a new session, and gives nobody the entries that the log lost."""
    cluster = make()
    a = cluster.nodes[0]
    _, sid = opened(cluster, a)
    snapshot = cluster.store.snapshot()
    for _ in range(5):
        cluster.emit(a)
    cluster.run(0.1)
    epoch = a.parts.partition.position.epoch
    cluster.store.data = snapshot  # no connection breaks
    client, again = opened(cluster, a)
    cluster.emit(a)
    cluster.run(1)
    assert client.session is not None
    assert (again != sid, client.session.got) == (True, [5])
    assert a.parts.partition.position.epoch > epoch
    assert cluster.healthy()


@pytest.mark.parametrize("what", ["claim", "heartbeat", "append"])
def test_each_answer_that_says_where_the_log_ends_proves_the_loss(make: Callable[..., Simulation], what: str) -> None:
    cluster = make()
    a, b = cluster.nodes[:2]
    client, _ = opened(cluster, a)
    if what == "claim":
        client.drop(False, b, 0.2)
    cluster.run(0.1)
    snapshot = cluster.store.snapshot()
    for _ in range(5):
        cluster.emit(b)
    cluster.run(0.05)
    cluster.store.data = snapshot
    if what == "append":
        cluster.emit(b)
    told = a if what == "heartbeat" else b
    epoch = told.parts.partition.position.epoch
    cluster.until(lambda: told.parts.partition.position.epoch > epoch, HEARTBEAT + 0.3, "it is noticed")
    cluster.until(lambda: client.connected and len(client.sessions) == 2, 5, "it starts fresh")


def test_a_batch_of_uncertain_fate_is_not_repeated_when_redis_was_wiped(make: Callable[..., Simulation]) -> None:
    """Clients may have seen it before."""
    cluster = make()
    a, b = cluster.nodes[:2]
    client, _ = opened(cluster, b)
    cut = [False]

    def stored(key: bytes, id: Any, fields: Any) -> None:
        if not cut[0] and b'["e",0]' in fields:
            cut[0] = True
            cluster.loop.call_soon(lose)

    def lose() -> None:
        cluster.store.cut(a)  # the reply is lost, and then Redis loses all its data, too
        cluster.loop.call_later(0.03, cluster.store.fail_over, type(cluster.store.data)())

    cluster.store.appended.append(stored)
    cluster.emit(a)
    cluster.until(lambda: cluster.emitted[0] is not None, 5, "the caller is told")
    cluster.until(lambda: client.connected and len(client.sessions) == 2, 5, "it starts fresh")
    cluster.emit(a)
    cluster.run(1)
    assert cluster.emitted == {0: "unknown", 1: "ok"}
    assert [session.got for session in client.sessions] == [[0], [1]]


def test_a_record_sheds_nothing_that_a_recovery_needs(make: Callable[..., Simulation]) -> None:
    """With ``max_length`` the stream may be shorter than what nodes have in memory."""
    cluster = make(max_length=300)
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    for room in range(49):
        cluster.do(a, partial(a.sio.enter_room, sid, room))
    cluster.run(0.2)
    client.drop(False, b, 2.0)
    cluster.run(0.1)
    cluster.emit(a, to=7)
    cluster.run(0.1)
    cluster.do(a, lambda: a.sio.leave_room(sid, 7))
    for _ in range(10):
        for _ in range(100):
            cluster.emit(a, to="nobody")
        cluster.run(0.1)
    for room in range(100, 120):
        cluster.do(a, partial(a.sio.enter_room, sid, room))
    cluster.until(lambda: client.connected, 5, "it is back")
    cluster.run(0.5)
    assert [why for why, _ in client.refusals] == ["trimmed"]


def test_what_others_say_does_not_decide_who_recovers(make: Callable[..., Simulation]) -> None:
    """The window is a cache: what it does not hold comes from the stream."""
    cluster = make(window_bytes=2000)
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    cluster.do(a, lambda: a.sio.enter_room(sid, "red"))
    cluster.run(0.1)
    client.drop(False, b, 1.5)
    cluster.run(0.1)
    expected = []
    for i in range(1000):
        if i % 100 == 0:
            expected.append(len(cluster.emitted))
            cluster.emit(a, to="red")
        cluster.emit(a, to="nobody", size=50)
        if i % 50 == 0:
            cluster.run(0.01)
    cluster.until(lambda: client.connected, 5, "it is back")
    for _ in range(5):
        expected.append(len(cluster.emitted))
        cluster.emit(b, to="red")
        cluster.run(0.1)
    cluster.until(lambda: len(client.sessions[0].got) >= len(expected), 5, "it has caught up")
    assert client.refusals == []
    assert client.sessions[0].got == expected
    assert b.parts.partition.window.bytes <= 2000


def test_a_record_that_disagrees_with_the_log(make: Callable[..., Simulation]) -> None:
    """Redis evicted the closings: the record has the client in a room that the log says was closed."""
    cluster = make()
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    cluster.do(a, lambda: a.sio.enter_room(sid, "red"))
    cluster.run(0.1)
    client.drop(False, b, 1.0)
    cluster.run(0.1)
    cluster.do(b, lambda: b.sio.close_room("red"))
    cluster.run(0.1)
    cluster.store.do_del(b"{m}:closes")
    cluster.until(lambda: len(client.sessions) == 2, 20, "it has a new session")
    assert [why for why, _ in client.refusals] == ["damaged"]
    connections = client.sessions[0].connections
    cluster.emit(b, to="red")
    cluster.emit(b)
    cluster.run(2)
    assert client.sessions[1].got == [1]
    assert (connections, client.sessions[1].connections) == (2, 1)


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


def test_a_client_whose_last_event_was_a_local_one(make: Callable[..., Simulation]) -> None:
    """Its offset is that of the entry before, which need not be an event."""
    cluster = make()
    a, b = cluster.nodes[:2]
    client, sid = opened(cluster, a)
    cluster.do(a, lambda: a.sio.enter_room(sid, "red"))
    cluster.run(0.1)
    cluster.do(a, lambda: a.sio.emit("e", (0,), to=sid, ignore_queue=True))
    cluster.emitted[0] = "ok"
    cluster.run(0.1)
    client.drop(False, b, 0.2)
    cluster.emit(a, to="red")
    cluster.until(lambda: client.connected and len(client.sessions[0].got) == 2, 5, "it is back and has caught up")
    assert client.refusals == []


def test_a_room_that_is_closed_between_the_claim_and_the_recovery(make: Callable[..., Simulation]) -> None:
    """The record learns of it by a heartbeat, before the closing is forgotten."""
    cluster = make()
    a, b, c = cluster.nodes
    client, sid = opened(cluster, a)
    cluster.do(a, lambda: a.sio.enter_room(sid, "red"))
    cluster.run(0.2)
    claim = b.parts.sessions.claim

    async def slowly(*arguments: Any, **options: Any) -> Any:
        record = await claim(*arguments, **options)
        await a.sio.close_room("red")
        await asyncio.sleep(0.1)  # the closing is dispatched before the connection is added
        return record

    b.parts.sessions.claim = slowly  # type: ignore[method-assign]
    client.drop(False, b, 0.2)
    cluster.run(1)
    b.parts.sessions.claim = claim  # type: ignore[method-assign]
    for node in (b, c):
        cluster.until(lambda: client.connected, 5, "it is back")
        assert "red" not in node.sio.rooms(sid)
        cluster.run(40)  # closings are forgotten meanwhile
        client.drop(False, c, 0.2)
        cluster.run(1)
    assert client.refusals == []


def test_a_node_is_healthy_again_though_nobody_emits(make: Callable[..., Simulation]) -> None:
    """An emit failed in an outage, and was withdrawn. A load balancer sends no client before the node is healthy."""
    cluster = make(1, publish_timeout=10)
    a = cluster.nodes[0]
    opened(cluster, a)
    cluster.store.reachable = False
    cluster.store.cut()
    cluster.run(15)
    cluster.emit(a)
    cluster.run(15)
    assert cluster.emitted == {0: "withdrawn"}
    cluster.store.reachable = True
    cluster.until(cluster.healthy, 15, "it is healthy again")


def test_closings_of_an_epoch_that_is_gone_say_nothing_of_the_next(make: Callable[..., Simulation]) -> None:
    """Somebody deletes the log's meta; the closings are still there."""
    cluster = make()
    a, b = cluster.nodes[:2]
    client, _ = opened(cluster, a)
    for _ in range(50):
        cluster.emit(a)
    cluster.do(a, lambda: a.sio.close_room("red"))
    cluster.run(0.3)
    cluster.store.do_del(b"{m}:meta")
    cluster.until(lambda: client.connected and len(client.sessions) == 2, 15, "it starts fresh")
    sid = client.sessions[1].sid
    cluster.do(a, lambda: a.sio.enter_room(sid, "red"))
    cluster.run(0.3)
    client.drop(False, b, 0.3)
    cluster.run(0.1)
    cluster.emit(a, to="red")
    cluster.until(lambda: client.connected and len(client.sessions[1].got) == 1, 5, "it has what it missed")
    assert [why for why, _ in client.refusals] == ["epoch"]
