"""The checker: it passes a sound history, and finds what is wrong with a broken one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from .check import KINDS, MARGIN, Kind, Verdict, check
from .history import (
    ClientHistory,
    Connected,
    Emit,
    Logged,
    Lost,
    Received,
    ReportedState,
    Room,
    RunHistory,
    Step,
    greeting,
)

ROOM = "room"


class SampleRun:
    """A sound run, which tests then break: a client drops and recovers, another never drops, a third is a witness.

    The number of an entry is also its time: entry 10 was stored at second 10.
    """

    def __init__(self, max_disconnection: float = 60) -> None:
        self.epoch = 1000
        self.log: list[Logged] = []
        self.emits: list[Emit] = []
        self.clients: dict[str, ClientHistory] = {}
        self.losses: list[tuple[float, float]] = []
        self.max_disconnection = max_disconnection
        for name, witness in (("dropper", False), ("steady", False), ("witness", True)):
            self.clients[name] = ClientHistory(name, witness=witness)
            self.fresh(name, f"{name}-1")
            self.control("enter", f"{name}-1", ROOM)
            self.emit(greeting(f"{name}-1"), f"{name}-1", reason="new")
        for i in range(5):
            self.emit(f"live.{i}", ROOM)
        self.lose("dropper")
        for i in range(5):
            self.emit(f"missed.{i}", *([ROOM] if i % 2 else []))
        self.recover("dropper")
        for i in range(5):
            self.emit(f"later.{i}", ROOM)

    @property
    def now(self) -> float:
        return float(len(self.log) + 1)

    def steps(self, name: str) -> list[Step]:
        return self.clients[name].steps

    def sid(self, name: str) -> str:
        return next(s.sid for s in reversed(self.steps(name)) if isinstance(s, Connected))

    def fresh(self, name: str, sid: str) -> None:
        self.steps(name).append(Connected(self.now, sid, recovered=False))
        self.clients[name].state = None

    def lose(self, name: str) -> None:
        self.steps(name).append(Lost(self.now))

    def recover(self, name: str) -> None:
        """The client is recovered, and receives what it missed."""
        seen = [s.id for s in self.steps(name) if isinstance(s, Received)]
        sid = self.sid(name)
        last = next(e.n for e in self.log if e.id == seen[-1])
        self.steps(name).append(Connected(self.now, sid, recovered=True))
        for entry in self.log:
            if entry.kind == "event" and entry.n > last and (not entry.rooms or ROOM in entry.rooms):
                self.steps(name).append(Received(self.now, entry.id, (entry.epoch, entry.n)))

    def control(self, kind: str, sid: str = "", room: Room | None = None) -> None:
        self.log.append(Logged(self.epoch, len(self.log) + 1, self.now, kind, sid=sid, room=room))

    def emit(self, id: str, *rooms: Room, reason: str | None = None) -> None:
        """Emits an event, which all connected clients receive that it is meant for. Greeted clients are in the room."""
        at = self.now
        entry = Logged(self.epoch, len(self.log) + 1, at, "event", id, rooms)
        self.log.append(entry)
        if reason is None:
            self.emits.append(Emit(id, "emitter", rooms, (), at - 0.4, at + 0.4))
        for client in self.clients.values():
            connected = client.steps and not isinstance(client.steps[-1], Lost)
            if connected and (not rooms or ROOM in rooms or self.sid(client.name) in rooms):
                client.steps.append(Received(at, id, (entry.epoch, entry.n), reason))

    def begin_anew(self) -> None:
        """Redis is wiped: all clients get a new session, and are told why."""
        self.losses.append((self.now, self.now + 0.5))
        self.epoch += 1
        for name in self.clients:
            self.lose(name)
        for name in self.clients:
            self.fresh(name, f"{name}-2")
            self.control("enter", f"{name}-2", ROOM)
            self.emit(greeting(f"{name}-2"), f"{name}-2", reason="epoch")

    def verdict(self) -> Verdict:
        self.emit("end")
        for client in self.clients.values():
            sid = self.sid(client.name)
            client.state = client.state or ReportedState(sid, frozenset({ROOM, sid}), {"name": client.name})
        clients = list(self.clients.values())
        return check(RunHistory(self.emits, self.log, clients, "end", self.max_disconnection, self.losses))

    def found(self) -> dict[Kind, int]:
        verdict = self.verdict()
        return {kind: verdict.count(kind) for kind in KINDS if verdict.count(kind)}

    def where(self, name: str, id: str) -> int:
        return next(i for i, s in enumerate(self.steps(name)) if isinstance(s, Received) and s.id == id)

    def forget(self, name: str, *ids: str) -> None:
        """Removes events from what the client received."""
        self.clients[name].steps = [s for s in self.steps(name) if not isinstance(s, Received) or s.id not in ids]


def test_a_sound_run() -> None:
    verdict = SampleRun().verdict()
    assert verdict.violations == []
    assert verdict.outcomes == {"recovered": 1, "new": 3}
    assert (verdict.drops, verdict.twins) == (1, 1)
    assert verdict.deliveries == 3 * 16 + 3


def test_a_sound_run_over_a_wiped_log() -> None:
    run = SampleRun()
    run.begin_anew()
    verdict = run.verdict()
    assert verdict.violations == []
    assert verdict.outcomes == {"recovered": 1, "new": 3, "epoch": 3}


@pytest.mark.parametrize("ids", [["missed.0"], ["missed.4"], ["missed.1", "missed.2"]])
def test_lost_in_a_recovery(ids: Sequence[str]) -> None:
    run = SampleRun()
    run.forget("dropper", *ids)
    assert run.found() == {"lost": len(ids), "wrongly recovered": 1}


@pytest.mark.parametrize("id", ["live.3", "later.0", "later.4"])
def test_lost_while_connected(id: str) -> None:
    run = SampleRun()
    run.forget("steady", id)
    assert run.found() == {"lost": 1}


def test_lost_right_after_the_greeting() -> None:
    run = SampleRun()
    run.forget("witness", "live.0")
    assert run.found() == {"lost": 1}


def test_lost_greeting() -> None:
    run = SampleRun()
    run.forget("steady", greeting("steady-1"))
    assert run.found() == {"lost": 1}


def test_lost_to_the_end() -> None:
    run = SampleRun()
    run.lose("steady")
    run.emit("unseen", ROOM)
    run.steps("steady").append(Connected(run.now, "steady-1", recovered=True))
    assert run.found() == {"lost": 1, "wrongly recovered": 1}


def test_lost_for_everybody() -> None:
    run = SampleRun()
    run.emits.append(Emit("nowhere", "emitter", (ROOM,), (), 5, 6))
    assert run.found() == {"lost": 1}


@pytest.mark.parametrize("fate", ["unknown", "withdrawn"])
def test_not_stored_and_the_emitter_was_told(fate: str) -> None:
    run = SampleRun()
    run.emits.append(Emit("nowhere", "emitter", (ROOM,), (), 5, 6, fate))  # type: ignore[arg-type]
    assert run.found() == {}


def test_stored_though_withdrawn() -> None:
    run = SampleRun()
    run.emits[3] = Emit("live.3", "emitter", (ROOM,), (), 5, 6, "withdrawn")
    assert run.found() == {"foreign": 1}


def test_an_unknown_fate_is_for_all_or_none() -> None:
    run = SampleRun()
    run.emits[3] = Emit("live.3", "emitter", (ROOM,), (), 5, 6, "unknown")
    assert run.found() == {}
    run = SampleRun()
    run.emits[3] = Emit("live.3", "emitter", (ROOM,), (), 5, 6, "unknown")
    run.forget("dropper", "live.3")
    assert run.found() == {"lost": 1}


@pytest.mark.parametrize("id", ["live.2", "missed.1", "later.1"])
def test_doubled(id: str) -> None:
    run = SampleRun()
    event = run.steps("dropper")[run.where("dropper", id)]
    run.steps("dropper").append(event)
    found = run.found()
    assert found["doubled"] == 1
    assert "lost" not in found


def test_volatile_events_are_owed_to_who_did_not_drop() -> None:
    expected: dict[str, dict[Kind, int]] = {"dropper": {}, "steady": {"lost": 1}}
    for name, found in expected.items():
        run = SampleRun()
        i = next(i for i, entry in enumerate(run.log) if entry.id == "missed.1")
        run.log[i] = replace(run.log[i], volatile=True)
        run.forget(name, "missed.1")
        assert run.found() == found, name


def test_doubled_in_two_sessions() -> None:
    run = SampleRun()
    event = run.steps("steady")[run.where("steady", "later.1")]
    run.begin_anew()
    run.steps("steady").append(event)
    assert run.found()["doubled"] == 1


def test_doubled_in_the_log() -> None:
    run = SampleRun()
    run.emit("twice", ROOM)
    run.emit("twice", ROOM)
    found = run.found()
    assert found["doubled"] == 1 + 3


def test_reordered() -> None:
    run = SampleRun()
    steps, i = run.steps("dropper"), run.where("dropper", "missed.2")
    steps[i], steps[i + 1] = steps[i + 1], steps[i]
    found = run.found()
    assert found == {"reordered": 1 + 1}, "against the log, and against the witness"


def test_reordered_for_a_client_by_the_witness_alone() -> None:
    """The log may be read as one likes: clients must agree."""
    run = SampleRun()
    verdict = run.verdict()
    assert verdict.violations == []
    for name in ("dropper", "steady"):
        steps, i = run.steps(name), run.where(name, "later.2")
        steps[i], steps[i + 1] = steps[i + 1], steps[i]
    i, j = (next(k for k, e in enumerate(run.log) if e.id == id) for id in ("later.2", "later.3"))
    run.log[i], run.log[j] = (
        Logged(1000, run.log[i].n, run.log[i].at, "event", "later.3", (ROOM,)),
        Logged(1000, run.log[j].n, run.log[j].at, "event", "later.2", (ROOM,)),
    )
    history = RunHistory(run.emits, run.log, list(run.clients.values()), "end", 60)
    found = {(v.kind, v.client) for v in check(history).violations}
    assert found == {("reordered", "dropper"), ("reordered", "steady"), ("reordered", "witness"), ("reordered", "log")}


def test_stored_after_what_was_emitted_later() -> None:
    run = SampleRun()
    run.emits[2], run.emits[3] = (
        Emit("live.2", "a", (ROOM,), (), 12, 13),
        Emit("live.3", "b", (ROOM,), (), 10, 11),
    )
    assert run.found() == {"reordered": 1}


def test_not_meant_for_it() -> None:
    run = SampleRun()
    run.emit("private", "dropper-1")
    run.steps("steady").append(Received(run.now, "private", (1000, len(run.log))))
    assert run.found() == {"foreign": 1}


def test_never_stored() -> None:
    run = SampleRun()
    run.steps("steady").append(Received(run.now, "from nowhere", (1000, 99)))
    assert run.found() == {"foreign": 1}


def test_stored_for_somebody_else() -> None:
    run = SampleRun()
    run.emits[1] = replace(run.emits[1], rooms=("another room",))
    assert run.found() == {"foreign": 1}


def test_membership_follows_the_log() -> None:
    run = SampleRun()
    run.control("leave", "steady-1", ROOM)
    run.emit("after it left", ROOM)
    run.clients["steady"].state = ReportedState("steady-1", frozenset(), {"name": "steady"})
    assert run.found() == {"foreign": 1}
    run = SampleRun()
    run.control("leave", "steady-1", ROOM)
    run.emit("after it left", ROOM)
    run.forget("steady", "after it left")
    run.clients["steady"].state = ReportedState("steady-1", frozenset(), {"name": "steady"})
    assert run.found() == {}


@pytest.mark.parametrize(
    "state",
    [
        ReportedState("another", frozenset({ROOM}), {"name": "dropper"}),
        ReportedState("dropper-1", frozenset(), {"name": "dropper"}),
        ReportedState("dropper-1", frozenset({ROOM, "more"}), {"name": "dropper"}),
        ReportedState("dropper-1", frozenset({ROOM}), {}),
    ],
)
def test_recovered_without_its_rooms_or_data(state: ReportedState) -> None:
    run = SampleRun()
    run.clients["dropper"].state = state
    assert run.found() == {"wrongly recovered": 1}


def test_recovered_as_somebody_else() -> None:
    run = SampleRun()
    run.lose("steady")
    run.steps("steady").append(Connected(run.now, "dropper-1", recovered=True))
    assert run.found()["wrongly recovered"] >= 1


def test_recovered_without_a_session() -> None:
    run = SampleRun()
    run.steps("steady")[0] = Connected(1.0, "steady-1", recovered=True)
    assert run.found() == {"wrongly recovered": 1}


def test_recovered_across_a_new_epoch() -> None:
    run = SampleRun()
    run.losses.append((run.now, run.now + 1))
    run.epoch += 1
    run.lose("dropper")
    run.steps("dropper").append(Connected(run.now, "dropper-1", recovered=True))
    run.emit("in the new epoch")
    assert run.found()["wrongly recovered"] >= 1


def test_recovered_though_the_log_lost_what_it_had() -> None:
    """The log goes back a little, and on: who has seen its lost tail can't have missed nothing."""
    run = SampleRun()
    tail = len(run.log)
    run.emit("lost 1", ROOM)
    run.emit("lost 2", ROOM)
    run.losses.append((run.now - 0.5, run.now + 10))
    lost = run.log[tail:]
    run.log = run.log[:tail]
    run.emit("instead 1", ROOM)
    instead = run.log[tail:]
    run.log = run.log[:tail] + lost + instead
    assert run.verdict().count("foreign") > 0


def test_an_event_has_another_size() -> None:
    run = SampleRun()
    steps, i = run.steps("dropper"), run.where("dropper", "missed.2")
    event = steps[i]
    assert isinstance(event, Received)
    steps[i] = replace(event, size=1)
    assert run.found() == {"foreign": 1}


def test_refused_though_it_was_in_time() -> None:
    run = SampleRun()
    run.lose("dropper")
    run.fresh("dropper", "dropper-2")
    run.control("enter", "dropper-2", ROOM)
    run.emit(greeting("dropper-2"), "dropper-2", reason="unknown")
    assert run.found() == {"wrongly refused": 1}


@pytest.mark.parametrize(
    ("before", "wrong"), [pytest.param(MARGIN / 2, 0, id="just before"), pytest.param(MARGIN * 2, 1, id="long before")]
)
def test_refused_since_a_loss_ended_before_the_client_noted_its_connect(before: float, wrong: int) -> None:
    run = SampleRun()
    run.lose("dropper")
    run.fresh("dropper", "dropper-2")
    run.control("enter", "dropper-2", ROOM)
    run.emit(greeting("dropper-2"), "dropper-2", reason="unknown")
    end = run.steps("dropper")[0].at - before
    run.losses.append((end - 1, end))
    assert run.verdict().count("wrongly refused") == wrong


def test_refused_since_it_was_late() -> None:
    run = SampleRun(max_disconnection=1.0)
    run.lose("dropper")
    for i in range(5):
        run.emit(f"meanwhile.{i}", ROOM)
    run.fresh("dropper", "dropper-2")
    run.control("enter", "dropper-2", ROOM)
    run.emit(greeting("dropper-2"), "dropper-2", reason="expired")
    assert run.found() == {}


@pytest.mark.parametrize(
    "reason", [pytest.param("new", id="no reason"), pytest.param("limit", id="memory is no reason")]
)
def test_refused_late_without_a_good_reason(reason: str) -> None:
    run = SampleRun(max_disconnection=1.0)
    run.lose("dropper")
    run.emit("meanwhile", ROOM)
    run.fresh("dropper", "dropper-2")
    run.control("enter", "dropper-2", ROOM)
    run.emit(greeting("dropper-2"), "dropper-2", reason=reason)
    assert run.found() == {"wrongly refused": 1}


def test_the_log_was_begun_anew_by_itself() -> None:
    run = SampleRun()
    run.begin_anew()
    run.losses.clear()
    found = run.found()
    assert found["lost"] == 1
    assert found["wrongly refused"] == 3


def test_a_hole_in_the_log() -> None:
    run = SampleRun()
    i = next(i for i, entry in enumerate(run.log) if entry.id == "live.1")
    del run.log[i]
    assert run.found()["lost"] >= 1


def test_not_back_at_the_end() -> None:
    run = SampleRun()
    run.lose("dropper")
    assert run.found()["stuck"] == 1


def test_the_lost_tail_may_have_been_delivered() -> None:
    """To a client that had to start fresh: it was told. Nobody else can know of these events."""
    run = SampleRun()
    for n in (1, 2):
        run.steps("steady").append(Received(run.now, f"seen by one node.{n}", (1000, len(run.log) + n)))
    run.begin_anew()
    assert run.found() == {}


@pytest.mark.parametrize("again", [pytest.param(True, id="stored again later"), pytest.param(False, id="stored once")])
def test_an_event_of_the_lost_tail_may_be_stored_again(again: bool) -> None:
    """To who had received it, what is before its new place is not owed: that session ended with the lost tail."""
    run = SampleRun()
    began = run.now
    number = len(run.log) + (1 if again else 2)
    run.steps("steady").append(Received(run.now, "once more", (1000, number)))
    for name in run.clients:
        run.lose(name)
    run.emit("instead", ROOM)
    run.emit("once more", ROOM)
    run.losses.append((began, run.now))
    run.begin_anew()
    assert run.found() == ({} if again else {"lost": 1})


@pytest.mark.parametrize("volatile", [True, False])
def test_a_volatile_event_is_not_owed_to_who_is_about_to_connect(volatile: bool) -> None:
    """Its session is born, and sees other events already; but it was not greeted yet."""
    run = SampleRun()
    greeted = run.where("steady", greeting("steady-1"))
    for id in ("early", "fleeting"):
        at = next(i for i, entry in enumerate(run.log) if entry.id == greeting("steady-1"))
        fleeting = volatile and id == "fleeting"
        run.log.insert(at, Logged(1000, 0, run.log[at].at, "event", id, ("steady-1",), volatile=fleeting))
    run.log[:] = [replace(entry, n=n) for n, entry in enumerate(run.log, 1)]
    run.steps("steady").insert(greeted, Received(run.now, "early", (1000, 1)))
    assert run.found() == ({} if volatile else {"lost": 1})


def test_what_was_never_stored_is_foreign_before_what_was() -> None:
    """A lost tail is at the end of what a session received, and nowhere else."""
    run = SampleRun()
    run.steps("steady").append(Received(run.now, "never stored", (1000, len(run.log) + 1)))
    run.emit("live.99")
    run.begin_anew()
    assert run.found() == {"foreign": 1}
