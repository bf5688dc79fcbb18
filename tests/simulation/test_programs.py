"""Random programs in the simulation: a client that recovers gets what its twin got, or is told that it can't.

``make simulation`` runs more of them. A failure prints the shortest program that Hypothesis found.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from socketio_recovery.entries import DISCONNECT, parse_entry

from .check import LOG, LogHistory, all_over, check, check_handlers, check_settled
from .participants import Observed, check_counts, check_participants
from .redis import Fields, Id
from .simulation import END, TTL, SimulatedClient, SimulatedNode, Simulation

#: How many programs to run; 0 stands for the number that CI runs.
PROGRAMS = int(os.environ.get("SIMULATION_PROGRAMS", "0"))
PARTS = 6

ROOMS = ("red", "blue", 7, "many")
which = st.integers(0, 5)
rooms = st.sampled_from(ROOMS[:3])
delays = st.sampled_from((0.0, 0.003, 0.02, 0.3, 1.5))


class Programs(RuleBasedStateMachine):
    """The steps that a program may consist of. A number chooses one of the nodes or clients that exist."""

    @initialize(
        seed=st.integers(0, 1 << 16),
        queue=st.sampled_from((5, 1000)),
        queue_bytes=st.sampled_from((3000, 16 << 20)),
        window=st.sampled_from((0, 5000, 64 << 20)),
        length=st.sampled_from((0, 0, 0, 15)),
        slow=st.sampled_from((0.0, 0.0, 0.03)),
        watched=st.sampled_from((False, False, True)),
    )
    def begin(
        self, seed: int, queue: int, queue_bytes: int, window: int, length: int, slow: float, watched: bool
    ) -> None:
        self.cluster = Simulation(
            seed, max_queue=queue, max_queue_bytes=queue_bytes, window_bytes=window, max_length=length
        )
        for node in self.cluster.nodes:
            node.slow_handlers = slow
        self.observed: list[Observed] = []
        if watched:
            self.cluster.when_made = self.watch
            for node in self.cluster.nodes:
                self.watch(node, True)
            self.cluster.run(0.2)  # they look for the first time, and find nobody
        self.history = LogHistory(self.cluster)
        self.cluster.store.appended.append(self.ends)
        self.history.trimmed = length > 0
        self.snapshot: Any = None
        self.set_back = 0.0
        self.tail_lost = False
        for n in range(3):
            self.cluster.open(self.node(n))
        self.cluster.run(0.1)
        for n, room in enumerate(("red", "red", "blue")):
            self.enter(0, n, room)

    def watch(self, node: SimulatedNode, from_the_beginning: bool = False) -> None:
        self.observed += (Observed(node, room, from_the_beginning) for room in (None, "red"))

    @invariant()
    def participants(self) -> None:
        """After each step."""
        if hasattr(self, "history"):
            check_participants(self.cluster, self.history, ROOMS)

    def node(self, i: int) -> SimulatedNode:
        alive = [node for node in self.cluster.nodes if not node.dead]
        return alive[i % len(alive)] if alive else self.cluster.nodes[0]

    def client(self, i: int) -> SimulatedClient:
        return self.cluster.clients[i % len(self.cluster.clients)]

    def sid(self, i: int) -> str:
        session = self.client(i).session
        return session.sid if session is not None else "nobody"

    # -- applications -------------------------------------------------------------------------------

    @rule(n=which)
    @precondition(lambda self: len(self.cluster.clients) < 6)
    def open(self, n: int) -> None:
        self.cluster.open(self.node(n))
        self.cluster.run(0.1)

    @rule(n=which, c=which, room=rooms)
    def enter(self, n: int, c: int, room: Any) -> None:
        sid, node = self.sid(c), self.node(n)
        self.cluster.do(node, lambda: node.sio.enter_room(sid, room))

    @rule(n=which, c=which, room=rooms)
    def leave(self, n: int, c: int, room: Any) -> None:
        sid, node = self.sid(c), self.node(n)
        self.cluster.do(node, lambda: node.sio.leave_room(sid, room))

    @rule(n=which, room=rooms)
    def close_room(self, n: int, room: Any) -> None:
        node = self.node(n)
        self.cluster.do(node, lambda: node.sio.close_room(room))

    @rule(n=which, c=which, count=st.integers(2, 60), leaves=st.booleans())
    def enter_many(self, n: int, c: int, count: int, leaves: bool) -> None:
        """The session's record grows, and sheds what it no longer needs."""
        sid, node = self.sid(c), self.node(n)
        for room in range(100, 100 + count):
            self.cluster.do(node, partial(node.sio.enter_room, sid, room))
            if leaves:
                self.cluster.do(node, partial(node.sio.leave_room, sid, room))

    @rule(n=which, to=st.sampled_from((None, *ROOMS, ("red", "blue"))), volatile=st.booleans(), binary=st.booleans())
    def emit(self, n: int, to: Any, volatile: bool, binary: bool) -> None:
        self.cluster.emit(self.node(n), to=list(to) if isinstance(to, tuple) else to, volatile=volatile, binary=binary)

    @rule(n=which, to=st.sampled_from((None, "red")), size=st.sampled_from((600, 4000)))
    def emit_large(self, n: int, to: Any, size: int) -> None:
        self.cluster.emit(self.node(n), to=to, size=size)

    @rule(n=which, count=st.integers(2, 30), pause=st.sampled_from((0.0, 0.002)))
    def emit_many(self, n: int, count: int, pause: float) -> None:
        for i in range(count):
            self.cluster.emit(self.node(n + i % 2), to=(None, "red")[i % 2])
            if pause:
                self.cluster.run(pause)

    @rule(n=which, c=which, skip=st.booleans())
    def emit_to_one(self, n: int, c: int, skip: bool) -> None:
        self.cluster.emit(self.node(n), to=None if skip else self.sid(c), skip_sid=self.sid(c) if skip else None)

    @rule(n=which, c=which)
    def call(self, n: int, c: int) -> None:
        self.cluster.call(self.node(n), self.sid(c))

    @rule(n=which, c=which)
    def end_session(self, n: int, c: int) -> None:
        node, session = self.node(n), self.client(c).session
        if session is not None:
            session.ended = True
            self.cluster.do(node, lambda: node.sio.disconnect(session.sid))

    @rule(n=which, to=st.sampled_from((None, "red", ("blue", 7))), c=which, room=rooms, leaves=st.booleans())
    def move_many(self, n: int, to: Any, c: int, room: Any, leaves: bool) -> None:
        """Many enter or leave rooms, all but one."""
        node, skip = self.node(n), self.sid(c)
        move = node.manager.sockets_leave if leaves else node.manager.sockets_join
        self.cluster.do(node, lambda: move([room, "many"], to=to, skip_sid=skip))

    @rule(n=which, to=st.sampled_from(("red", "many", 7)))
    def disconnect_many(self, n: int, to: Any) -> None:
        node = self.node(n)
        self.cluster.do(node, lambda: node.manager.disconnect_sockets(to))

    def ends(self, key: bytes, id: Id, fields: Fields) -> None:
        """Notes which sessions the application has ended, when that is stored."""
        if key == LOG and (entry := parse_entry(id[1], id[0], fields[2:])).kind == DISCONNECT:
            for client in self.cluster.clients:
                for session in client.sessions:
                    session.ended |= session.sid == entry.sid

    # -- clients ------------------------------------------------------------------------------------

    @rule(c=which, n=which, silently=st.booleans(), after=st.sampled_from((0.0, 0.01, 0.5, 1.5, 10.0)))
    def drop(self, c: int, n: int, silently: bool, after: float) -> None:
        self.client(c).drop(silently, self.node(n), after)

    @rule(c=which)
    def disconnect(self, c: int) -> None:
        self.client(c).disconnect()

    @rule(c=which, n=which)
    def connect(self, c: int, n: int) -> None:
        client = self.client(c)
        if not client.active and client.websocket is None:
            client.connect(self.node(n))

    @rule(c=which, reads=st.booleans())
    def slow(self, c: int, reads: bool) -> None:
        websocket = self.client(c).websocket
        if websocket is not None:
            (websocket.read_on if reads else websocket.stop_reading)()

    # -- faults -------------------------------------------------------------------------------------

    # A clock that is behind, a lost tail, and no node that had seen it: at most two of the three (docs/guarantees.md).

    def all_three(self, **more: bool) -> bool:
        now = {"clock": self.set_back > 0, "tail": self.tail_lost, "nodes": bool(self.cluster.crashed), **more}
        return all(now.values())

    @rule(n=which)
    @precondition(lambda self: not self.all_three(nodes=True))
    def crash(self, n: int) -> None:
        node = self.node(n)
        if not node.dead:
            self.cluster.crash(node)

    @rule(n=which)
    @precondition(lambda self: not self.all_three(nodes=True))
    def restart(self, n: int) -> None:
        self.cluster.restart(self.cluster.nodes[n % len(self.cluster.nodes)])

    @rule(n=which)
    def cut_redis(self, n: int) -> None:
        self.cluster.store.cut(self.node(n) if n else None)

    @rule(seconds=st.sampled_from((0.1, 1.0, TTL + 2)))
    def redis_down(self, seconds: float) -> None:
        self.history.outage |= seconds > TTL
        self.cluster.store.reachable = False
        self.cluster.store.cut()
        self.cluster.loop.call_later(seconds, setattr, self.cluster.store, "reachable", True)

    @rule(n=which, lag=st.sampled_from((0.0, 0.05, 0.5)))
    def lag(self, n: int, lag: float) -> None:
        self.node(n).lag = lag

    @rule(ms=st.sampled_from((-5000, 5000)))
    @precondition(lambda self: not self.all_three(clock=True))
    def clock(self, ms: int) -> None:
        self.history.outage |= ms > 0  # deadlines of sessions pass
        self.history.trimmed |= ms > 0  # the next append may trim entries that were just stored
        self.set_back += max(0, -ms) / 1000  # deadlines come so much later
        self.cluster.store.skew += ms

    @rule()
    def save(self) -> None:
        self.snapshot = self.cluster.store.snapshot()

    @rule()
    @precondition(lambda self: self.snapshot is not None and not self.all_three(tail=True))
    def fail_over(self) -> None:
        """Fails over to a replica that lacks the latest entries."""
        self.tail_lost = True
        self.cluster.store.fail_over(self.snapshot)
        self.history.fail_over(self.snapshot)
        self.snapshot = None

    @rule()
    def wipe(self) -> None:
        data = type(self.cluster.store.data)()
        self.cluster.store.fail_over(data)
        self.history.fail_over(data)
        self.snapshot = None

    @rule(keep=st.integers(0, 5))
    def trim(self, keep: int) -> None:
        self.history.trimmed = True
        self.cluster.store.do_xtrim(b"{m}:log", b"MAXLEN", b"~", b"%d" % keep)

    @rule(seconds=delays)
    def wait(self, seconds: float) -> None:
        self.cluster.run(seconds)

    # -- the end ------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "history"):
            return
        try:
            self._end()
        finally:
            self.cluster.close()

    def _end(self) -> None:
        cluster = self.cluster
        check(cluster, self.history)
        cluster.store.reachable = True
        for node in cluster.nodes:
            node.lag = 0.0
            if node.dead:
                cluster.restart(node)
        for client in cluster.clients:
            if client.websocket is not None:
                client.websocket.read_on()
        wanted = [client for client in cluster.clients if client.active]
        cluster.until(
            lambda: all(client.connected or not client.active for client in wanted), END, "everybody comes back"
        )
        cluster.run(0.5)
        for node in cluster.nodes:
            cluster.emit(node)
        cluster.run(2)
        cluster.until(
            lambda: all(client.connected or not client.active for client in wanted), END, "everybody comes back"
        )
        cluster.run(1)
        assert cluster.healthy()
        check_settled(cluster, self.history)
        check_participants(cluster, self.history, ROOMS)
        check_counts(cluster, self.history, ROOMS, self.set_back > 0)
        for observed in self.observed:
            if not observed.node.dead:
                assert not observed.faults, observed.faults
                cluster.until(observed.told_all, 1, f"{observed.node.name} is told all of {observed.room}")
        for number, answers in cluster.answers.items():
            assert answers in ([], [number])
        for client in cluster.clients:
            client.vanish()
        if not self.history.lost:
            cluster.until(lambda: all_over(cluster), END + self.set_back, "all sessions are over")
        cluster.run(TTL / 2)
        check_handlers(cluster, self.history)
        check_participants(cluster, self.history, ROOMS)
        check_counts(cluster, self.history, ROOMS, self.set_back > 0)


@pytest.mark.parametrize("part", range(PARTS))
def test_programs(part: int) -> None:
    machine = type(f"Programs{part}", (Programs,), {})
    if not PROGRAMS:
        seed(part)(machine)  # CI runs the same programs each time, so that the same code gives the same result
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=(PROGRAMS or 2000) // PARTS,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
