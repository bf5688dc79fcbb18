"""The states of a connection: what can happen to it, and what can't."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.connections import TRANSITIONS, Connection, Connections, Event, Flow, Hold, State
from socketio_recovery.entries import Position
from socketio_recovery.reasons import NODE_LOST, Ending, Outcome

from tests.support.follower import partition
from tests.support.paths import ROOT

ASPECTS: dict[type[Enum], str] = {State: "state", Flow: "flow", Hold: "hold"}


def connection(**aspects: Any) -> Connection:
    made = Connection("sid", "/", "transport", None, "token", "pid")
    for name, value in aspects.items():
        setattr(made, name, value)
    return made


def aspects_of(connection: Connection) -> dict[str, Any]:
    return {name: getattr(connection, name) for name in ASPECTS.values()}


def test_a_new_connection_holds_nothing_and_gets_nothing() -> None:
    assert aspects_of(connection()) == {"state": State.ARRIVED, "flow": Flow.BEHIND, "hold": Hold.NONE}


def test_each_event_is_in_the_table_and_changes_one_aspect() -> None:
    assert set(TRANSITIONS) == set(get_args(Event))
    for changes in TRANSITIONS.values():
        kinds = {type(value) for value in (*changes, *changes.values())}
        assert len(kinds) == 1
        assert kinds <= set(ASPECTS)


@given(
    event=st.sampled_from(sorted(TRANSITIONS)),
    state=st.sampled_from(State),
    flow=st.sampled_from(Flow),
    hold=st.sampled_from(Hold),
)
def test_an_event_does_what_the_table_says_or_is_an_error(event: Event, state: State, flow: Flow, hold: Hold) -> None:
    before = {"state": state, "flow": flow, "hold": hold}
    made = connection(**before)
    changes = TRANSITIONS[event]
    aspect = ASPECTS[type(next(iter(changes)))]
    if before[aspect] in changes:
        made.note(event)
        assert aspects_of(made) == {**before, aspect: changes[before[aspect]]}
    else:
        with pytest.raises(RuntimeError, match=f"'{event}' can't happen"):
            made.note(event)
        assert aspects_of(made) == before


def test_the_diagram_in_the_design_shows_the_table() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", design, re.MULTILINE))
    steps = {(a, b) for changes in TRANSITIONS.values() for a, b in changes.items() if a is not b}
    assert drawn == {(a.name, b.name) for a, b in steps if isinstance(a, State)}
    for aspect in (Flow, Hold):
        for before in aspect:
            after = {
                changes[before].name
                for changes in TRANSITIONS.values()
                if before in changes and changes[before] is not before
            }
            (row,) = re.findall(rf"^\| {before.name} \| .* \|(.*)\|$", design, re.MULTILINE)
            assert set(re.findall(r"[A-Z]{4,}", row)) == after, before


def test_what_is_over_stays_over() -> None:
    """No event brings a connection, its flow or its session back."""
    for changes in TRANSITIONS.values():
        assert changes.get(State.GONE, State.GONE) is State.GONE
        assert changes.get(State.LEAVING, State.LEAVING) in (State.LEAVING, State.GONE)
        assert changes.get(Flow.MUTED, Flow.MUTED) is Flow.MUTED
        assert changes.get(Hold.FORGOTTEN, Hold.FORGOTTEN) in (Hold.FORGOTTEN, Hold.ADOPTED)
        assert changes.get(Hold.ADOPTED, Hold.ADOPTED) is Hold.ADOPTED


def test_only_what_was_claimed_is_given_back() -> None:
    assert dict(TRANSITIONS["gives back"]) == {Hold.CLAIMED: Hold.NONE}


def test_every_value_can_be_reached() -> None:
    reached = {value for changes in TRANSITIONS.values() for value in changes.values()}
    assert reached | {State.ARRIVED, Flow.BEHIND} == {*State, *Flow, *Hold}


@pytest.mark.parametrize("first", list(Ending))
@pytest.mark.parametrize("second", list(Ending))
def test_what_ends_a_connection_first_decides(first: Ending, second: Ending) -> None:
    made = connection()
    made.end(first)
    made.end(second)
    assert made.ending is first


def test_recovered_is_one_of_the_outcomes() -> None:
    for outcome in (None, *Outcome):
        assert connection(outcome=outcome).recovered == (outcome is Outcome.RECOVERED)


def test_a_connection_that_was_replaced_on_its_transport_leaves_the_place_to_the_other() -> None:
    """As when a claim was in vain: the client gets another session, and another connection."""
    connections = Connections(partition())
    first = Connection("s1", "/", "t1", None, "token")
    second = Connection("s2", "/", "t1", None, "token")
    connections.arrive(first)
    connections.arrive(second)
    connections.remove(first)
    assert connections.by_transport("t1") == {"/": second}
    assert (first.state, second.state) == (State.GONE, State.ARRIVED)


def test_the_connection_of_an_orphan_only_leaves() -> None:
    made = Connection.of_orphan("sid", "/", None, "token", {"red": 3})
    assert aspects_of(made) == {"state": State.LEAVING, "flow": Flow.MUTED, "hold": Hold.ACCEPTED}
    assert (made.rooms, made.pid, made.ending) == ({"red": 3}, None, None)
    assert NODE_LOST == "node lost"


def live(connections: Connections, transport: str, namespace: str = "/", epoch: int = 1) -> Connection:
    made = Connection("sid of " + transport, namespace, transport, None, "token")
    made.epoch = epoch
    connections.arrive(made)
    connections.add(made)
    connections.go_live(made)
    return made


def test_pings_of_one_transport_concern_its_connections_that_follow_this_log() -> None:
    log = partition()
    log.restart(Position(1, 7))
    connections = Connections(log)
    here, other = live(connections, "t1"), live(connections, "t2")
    muted, earlier = live(connections, "t1", "/muted"), live(connections, "t1", "/earlier", epoch=0)
    connections.mute(muted)
    behind = Connection("s9", "/behind", "t1", None, "token")
    behind.epoch, behind.after, behind.sent = 1, 4, 3
    connections.arrive(behind)
    connections.add(behind)
    here.sent = 5
    connections.pinged("t1")
    connections.ponged("t1")
    confirmed = [c.confirmed for c in (here, behind, other, muted, earlier)]
    assert confirmed == [(7, 5), (4, 3), None, None, None]


def test_each_who_waits_for_a_removal_is_told_of_the_next_one() -> None:
    connections = Connections(partition())
    first, second = live(connections, "t1"), live(connections, "t2")
    told: list[str] = []
    connections.when_removed(lambda: told.append("a"))
    connections.when_removed(lambda: told.append("b"))
    connections.remove(first)
    assert told == ["a", "b"]
    connections.when_removed(lambda: told.append("c"))
    connections.remove(second)
    assert told == ["a", "b", "c"]
    assert not connections
