"""What clients of the chat may send, who is here, how a node is configured: no I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import presence, rules
from chat.journal import _quoted
from chat.rules import Introduction, RateLimiter, RequestRefused
from chat.settings import ChatSettings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(ANYTHING)
def test_an_introduction_may_be_anything(auth: Any) -> None:
    said = Introduction(auth, "the-sid")
    assert 0 < len(said.name) <= rules.MAX_NAME
    assert len(said.id) == 16
    assert rules.LOBBY in said.rooms
    assert len(said.rooms) <= rules.MAX_ROOMS + 1


@given(ANYTHING)
def test_what_is_taken_is_clean(value: Any) -> None:
    checks: tuple[Callable[[], str], ...] = (
        lambda: rules.clean(value, "message", 50),
        lambda: rules.room_name(value),
        lambda: rules.own_id(value, "id"),
    )
    for check in checks:
        with contextlib.suppress(RequestRefused):
            found = check()
            assert found
            found.encode()  # no lone surrogates
            assert "\n" not in found


@given(st.text())
def test_a_room_has_one_name(text: str) -> None:
    try:
        name = rules.room_name(text)
    except RequestRefused:
        return
    assert rules.room_name(name) == name
    assert not set(name) & set("<>&\"'/#: ")


def test_nobody_learns_a_client_id_from_what_is_shown() -> None:
    said = Introduction({"client": "0123456789abcdef"}, "sid")
    assert said.id == Introduction({"client": "0123456789abcdef"}, "other").id
    assert "0123456789abcdef" not in said.id
    assert said.id != Introduction({}, "sid").id


def test_the_rate_limiter() -> None:
    limiter = RateLimiter(2, 100)
    assert [limiter.take(100) for _ in range(6)] == [0] * 6  # three seconds' worth at once
    assert limiter.take(100) == pytest.approx(0.5)
    assert limiter.take(100.5) == 0
    assert limiter.take(100.5) > 0
    assert [limiter.take(1000) for _ in range(6)] == [0] * 6
    assert limiter.take(1000) > 0


def person(name: str, node: str, boot: str, lost: int = 0) -> dict[str, Any]:
    return {"name": name, "node": node, "boot": boot, "conn": f"conn-{name}", "rooms": ["lobby"], "lost": lost}


NOW = 1_000_000
NODES = {
    "a": {"boot": "1", "at": NOW - 100, "state": "up"},
    "b": {"boot": "1", "at": NOW - presence.DOWN_AFTER, "state": "up"},
    "c": {"boot": "1", "at": NOW, "state": "stopped"},
}


def test_who_is_here() -> None:
    people = {
        "1": person("here", "a", "1"),
        "2": person("dropped", "a", "1", lost=NOW - 500),
        "3": person("killed", "b", "1"),
        "4": person("on a node that was started again", "a", "0"),
        "5": person("stopped", "c", "1"),
        "6": person("away for long", "a", "1", lost=NOW - 5001),
    }
    found = presence.presence_of(people, NODES, NOW, 0, 5000)
    states = {p["name"]: p["state"] for p in found.people}
    assert states == {
        "here": "here",
        "dropped": "reconnecting",
        "killed": "reconnecting",
        "on a node that was started again": "reconnecting",
        "stopped": "reconnecting",
    }
    assert {id for id, _ in found.lost} == {"3", "4", "5"}  # since when is to be written down
    assert found.gone == [("6", "conn-away for long")]
    assert [p["name"] for p in found.people] == sorted(states)


def test_presence_does_not_rot() -> None:
    people = {
        "1": person("here", "a", "1"),
        "2": person("left, though it could not be written", "a", "1"),
        "3": person("elsewhere", "b", "1"),
    }
    assert presence.unrecorded_departures(people, "a", "1", {"conn-here": "1"}) == [
        ("2", "conn-left, though it could not be written")
    ]


def test_nobody_is_taken_for_dead_while_redis_was_away() -> None:
    """Nobody could send heartbeats then, so the silence of the others counts from when Redis is back."""
    people = {"1": person("ann", "b", "1"), "2": person("bob", "c", "1")}
    since = presence.reached_since(0, NOW - 5000, NOW)
    found = presence.presence_of(people, NODES, NOW, since, 5000)
    assert [(p["name"], p["state"]) for p in found.people] == [("ann", "here"), ("bob", "reconnecting")]
    assert found.lost == [("2", "conn-bob")]  # it said that it was stopped
    later = NOW + presence.DOWN_AFTER
    since = presence.reached_since(since, later - 500, later)
    assert presence.presence_of(people, NODES, later, since, 5000).lost == [("1", "conn-ann"), ("2", "conn-bob")]


@pytest.mark.parametrize(
    ("since", "last", "answer"),
    [
        pytest.param(0, 0, 0, id="the first heartbeat"),
        pytest.param(0, NOW - 500, 0, id="no break"),
        pytest.param(NOW - 500, NOW - 500, NOW - 500, id="no break after one"),
        pytest.param(0, NOW - presence.DOWN_AFTER, NOW, id="a break"),
    ],
)
def test_since_when_redis_is_reached(since: int, last: int, answer: int) -> None:
    assert presence.reached_since(since, last, NOW) == answer


def test_who_never_left_counts_as_here_again() -> None:
    """The node of these people was taken for dead, while it was frozen or cut off from Redis."""
    people = {
        "1": person("here", "a", "1"),
        "2": person("noted as lost", "a", "1", lost=NOW - 500),
        "4": person("on a newer connection that was lost", "b", "1", lost=NOW - 500),
    }
    here = {"conn-here": "1", "conn-noted as lost": "2", "removed": "3", "older": "4"}
    assert presence.unrecorded_arrivals(people, here) == ["conn-noted as lost", "removed"]


def test_settings() -> None:
    plain = ChatSettings.of({"NODE_NAME": "node-a"})
    assert (plain.port, plain.demo, plain.recover_within) == (8000, False, 120)
    for name, value in (
        ("PORT", "x"),
        ("PORT", "0"),
        ("PORT", "80.5"),
        ("DEMO", "yes"),
        ("NODE_NAME", "a b"),
        ("LOG_LEVEL", "loud"),
        ("MAX_LAG", "nan"),
        ("RECOVER_WITHIN", "-1"),
    ):
        with pytest.raises(ValueError, match=name):
            ChatSettings.of({name: value})


def test_a_log_line_is_one_line() -> None:
    assert _quoted("node-a") == "node-a"
    assert _quoted('a "b"\nevent=forged') == '"a \\"b\\"\\nevent=forged"'
    assert "\u2028" not in _quoted("a\u2028b")
