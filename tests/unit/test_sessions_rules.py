"""Rules about sessions that need no Redis: where a client goes on, what a pid is, what data can be."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.codec import Position
from socketio_recovery.sessions import Pid, Record, encode_data, seen_by, start_of

EPOCH = 5000


def record(birth: int = 10, sent: int = 20, confirmed: int = 50, last: int = 90) -> Record:
    return Record(last=Position(EPOCH, last), fence=1, birth=birth, confirmed=confirmed, sent=sent, data={}, stays=[])


@pytest.mark.parametrize(
    ("offset", "seen"),
    [
        (None, 10),
        (Position(EPOCH, 0), 10),  # an earlier session's
        (Position(EPOCH, 9), 10),
        (Position(EPOCH, 10), 10),
        (Position(EPOCH, 11), 11),
        (Position(EPOCH, 90), 90),
        (Position(EPOCH, 91), None),  # no event has had it
        (Position(EPOCH - 1, 70), 10),
        (Position(EPOCH - 1, 10**9), 10),
        (Position(EPOCH + 1, 0), None),
        (Position(EPOCH + 1, 70), None),
    ],
)
def test_what_a_client_has_seen(offset: Position | None, seen: int | None) -> None:
    assert seen_by(record(), offset) == seen


@pytest.mark.parametrize(
    ("seen", "start"),
    [
        (10, 10),  # older than the last offset it was sent: it may have missed that one
        (19, 19),
        (20, 50),  # it has all that was sent before the ping it answered
        (33, 50),
        (50, 50),
        (51, 51),  # it has seen more than is confirmed
        (90, 90),
    ],
)
def test_where_a_client_goes_on(seen: int, start: int) -> None:
    assert start_of(record(), seen) == start


@given(
    sent=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40),
    pinged=st.integers(0, 40),
    received=st.integers(0, 40),
    birth=st.integers(0, 20),
)
def test_a_client_never_goes_on_after_something_it_missed(
    sent: list[tuple[bool, bool]], pinged: int, received: int, birth: int
) -> None:
    """``sent``: for each entry after birth, whether it was for the client, and whether with an offset."""
    pinged, received = min(pinged, len(sent)), min(received, len(sent))
    received = max(received, pinged)  # the ping was answered: what was queued before it has arrived

    def last_offset(upto: int) -> int:
        return max((birth + i for i in range(1, upto + 1) if sent[i - 1][0]), default=birth)

    r = record(birth, last_offset(pinged), birth + pinged, birth + len(sent))
    seen = seen_by(r, Position(EPOCH, last_offset(received)))
    assert seen is not None
    start = start_of(r, seen)
    missed = [birth + i for i in range(received + 1, len(sent) + 1) if sent[i - 1][0]]
    doubled = [birth + i for i in range(1, received + 1) if sent[i - 1][0]]
    assert all(start < n for n in missed)
    assert all(start >= n for n in doubled)


def test_a_pid_is_read_back() -> None:
    for sid in ("abc", "a.b.c", "x" * 128, "sid-with_~!"):
        pid = Pid.new(sid)
        assert Pid.parse(str(pid)) == pid


def test_pids_are_not_alike() -> None:
    pids = {Pid.new("s").secret for _ in range(100)}
    assert len(pids) == 100
    assert all(len(secret) == 32 for secret in pids)


SECRET = "A" * 32


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        True,
        b"sid." + SECRET.encode(),
        ["sid." + SECRET],
        {"sid": SECRET},
        "",
        ".",
        "sid",
        "sid.",
        "." + SECRET,
        SECRET,
        "sid." + SECRET[1:],
        "sid." + SECRET + "A",
        "sid." + SECRET + "\n",
        "\nsid." + SECRET,
        "s id." + SECRET,
        "s\x00id." + SECRET,
        "sïd." + SECRET,
        "sid." + "\uff21" * 32,  # a full-width letter
        "sid." + "+" * 32,
        "x" * 129 + "." + SECRET,
        "x" * 10**6,
        "\ud800." + SECRET,
    ],
)
def test_a_hostile_pid_is_none(text: Any) -> None:
    assert Pid.parse(text) is None


@given(st.lists(st.sampled_from(["sid", ".", SECRET, "A", "\n", " ", "é", "\ud800", "x" * 120])).map("".join))
def test_any_text_is_a_pid_or_none(text: str) -> None:
    pid = Pid.parse(text)
    assert pid is None or str(pid) == text


def test_the_secret_does_not_show() -> None:
    pid = Pid.new("s1")
    shown = [repr(pid), f"{pid!r}", repr([pid]), f"{[pid]}", "%r" % (pid,)]  # noqa: UP031
    try:
        raise ValueError(repr({"pid": pid}))
    except ValueError:
        shown.append(traceback.format_exc())
    assert not [text for text in shown if pid.secret in text]
    assert all("s1" in text for text in shown)
    assert pid.secret not in pid.hash
    assert len(pid.hash) == 64


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"ok": 1, "bad": object()}, "'bad'"),
        ({"bad": {"deep": [1, {1, 2}]}}, "'bad'"),
        ({"bad": b"bytes"}, "'bad'"),
        ({"ok": 1, "bad": math.nan}, "'bad'"),
        ({"bad": [math.inf]}, "'bad'"),
        ({(1, 2): "a key"}, r"\(1, 2\)"),
        ([1, 2], "list"),
        (None, "NoneType"),
        ("text", "str"),
    ],
)
def test_data_that_can_not_be_stored_is_named(data: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        encode_data(data)


def test_data_that_contains_itself_is_named() -> None:
    data: dict[str, Any] = {"ok": 1}
    data["loop"] = data
    with pytest.raises(TypeError, match="'loop'"):
        encode_data(data)


@pytest.mark.parametrize("data", [{"name": "\ud800"}, {"\udfff": 1}, {"": None, "x": ["é", "\x00", "😀"]}])
def test_data_can_be_sent_to_redis(data: dict[str, Any]) -> None:
    encode_data(data).encode()
