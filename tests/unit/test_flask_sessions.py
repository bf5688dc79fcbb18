"""What of a Flask session can be stored, and what is said of the rest."""

from __future__ import annotations

import datetime
import enum
import logging
import math
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from flask.json.tag import JSONTag, TaggedJSONSerializer
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from socketio_recovery.threads.modes import Threading
from socketio_recovery.threads.upstream.flask_socketio import FlaskSessions, _fault, _Kept

from .comparing import same

UTC = datetime.UTC


class Colour(enum.IntEnum):
    RED = 1


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Sessions:
    """A session that is encoded again and again."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        logger = logging.Logger("test")
        logger.addHandler(self.recorder)
        server: Any = SimpleNamespace(get_environ=None)
        bridge: Any = SimpleNamespace(mode=Threading())
        self.sessions = FlaskSessions(server, bridge, lambda: None, lambda: logger)  # type: ignore[arg-type, return-value]
        self.kept = _Kept(Threading().lock())
        self.serializer = TaggedJSONSerializer()

    def encode(self, session: dict[Any, Any]) -> str | None:
        return self.sessions._encode(self.kept, session, self.serializer, "s1")

    def back(self, session: dict[Any, Any]) -> Any:
        text = self.encode(session)
        return None if text is None else self.serializer.loads(text)


KEPT = {
    "_flashes": [("message", "text")],
    "bytes": b"\xff",
    "markup": Markup("<b>"),
    "uuid": uuid.UUID(int=1),
    "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "plain": {"a": [1, 2.5, None, True, "é"]},
    "_permanent": True,
}


def test_what_cookies_hold_comes_back_as_it_is() -> None:
    sessions = Sessions()
    assert same(sessions.back(KEPT), KEPT)
    assert sessions.recorder.lines == []


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "flask.session['k']: a value of the type object would"),
        ({1: 2}, "flask.session['k']: the key 1 would"),
        ([0, {"a": Colour.RED}], "flask.session['k'][1]['a']: a value of the type Colour would"),
        (datetime.datetime(2026, 1, 2), "flask.session['k']: a value of the type datetime"),
        (
            datetime.datetime(2026, 1, 2, microsecond=5, tzinfo=UTC),
            "flask.session['k']: a value of the type datetime",
        ),
        ({1, 2}, "flask.session['k']: a value of the type set would"),
        (math.nan, "flask.session['k']: a value of the type float would"),
    ],
)
def test_what_would_come_back_changed_is_left_out_and_named_once(value: Any, place: str) -> None:
    sessions = Sessions()
    assert sessions.back({"k": value, "kept": 1}) == {"kept": 1}
    assert sessions.back({"k": value, "kept": 2}) == {"kept": 2}
    [line] = sessions.recorder.lines
    assert place in line
    assert "These come back as they are" in line


def test_keys_are_texts() -> None:
    sessions = Sessions()
    assert sessions.back({1: "x", "kept": 1}) == {"kept": 1}
    assert "has the key 1" in sessions.recorder.lines[0]


def test_a_session_that_contains_itself_is_left_out() -> None:
    session: dict[str, Any] = {"kept": 1}
    session["self"] = session
    assert Sessions().back(session) == {"kept": 1}


def test_the_application_may_add_types() -> None:
    class TagColour(JSONTag):
        key = " colour"

        def check(self, value: Any) -> bool:
            return type(value) is Colour

        def to_json(self, value: Any) -> Any:
            return int(value)

        def to_python(self, value: Any) -> Any:
            return Colour(value)

    sessions = Sessions()
    sessions.serializer.register(TagColour, index=0)
    assert sessions.back({"colour": Colour.RED}) == {"colour": Colour.RED}


class Changing(dict[str, Any]):
    """A part of a session that another thread changes just now."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def test_a_session_that_changes_meanwhile_is_left_to_who_changes_it() -> None:
    sessions = Sessions()
    assert sessions.encode({"part": Changing()}) is None
    assert sessions.back({"a": 1}) == {"a": 1}
    assert sessions.back({"part": Changing()}) == {"a": 1}
    assert sessions.recorder.lines == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.just(Colour.RED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3) | st.just(" t"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_accepted_comes_back_as_it_is(value: Any) -> None:
    serializer = TaggedJSONSerializer()
    if _fault(serializer, "k", value) is None:
        assert same(serializer.loads(serializer.dumps({"k": value})), {"k": value})
