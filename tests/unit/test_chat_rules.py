"""What clients of the chat may send, who is here, how a node is configured: no I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery import Participant, ParticipantState

from chat import rules
from chat.journal import _quoted
from chat.people import people_of
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


def participant(name: str, state: str = "connected", node: str = "a", id: str = "") -> Participant:
    data = {"id": id or name, "name": name, "node": node}
    return Participant(name, "", ParticipantState(state), 0, (7, "#ops", "secret", "#lobby"), data)


def test_who_is_here() -> None:
    found = people_of(
        [
            participant("bob"),
            participant("Ann", "reconnecting", "b"),
            participant("connecting")._replace(data={}),
            participant("<eve>", id="000"),
            participant("ann", id="111"),
        ]
    )
    assert [(p["name"], p["node"], p["state"], p["id"]) for p in found] == [
        ("<eve>", "a", "here", "000"),
        ("ann", "a", "here", "111"),
        ("Ann", "b", "reconnecting", "Ann"),
        ("bob", "a", "here", "bob"),
    ]
    assert {tuple(p["rooms"]) for p in found} == {("lobby", "ops")}


def test_who_has_several_clients_is_there_once() -> None:
    """As the latest that is connected; a page that is loaded anew may leave a session that waits."""
    clients = [
        participant("first", node="a", id="1"),
        participant("second", node="b", id="1"),
        participant("lost last", "reconnecting", id="1"),
    ]
    assert [(p["name"], p["node"], p["state"]) for p in people_of(clients)] == [("second", "b", "here")]
    assert [p["name"] for p in people_of(clients[::2])] == ["first"]
    assert [p["name"] for p in people_of(clients[2:])] == ["lost last"]


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
        ("SESSION_HEARTBEAT", "0"),
    ):
        with pytest.raises(ValueError, match=name):
            ChatSettings.of({name: value})


def test_a_log_line_is_one_line() -> None:
    assert _quoted("node-a") == "node-a"
    assert _quoted('a "b"\nevent=forged') == '"a \\"b\\"\\nevent=forged"'
    assert "\u2028" not in _quoted("a\u2028b")
