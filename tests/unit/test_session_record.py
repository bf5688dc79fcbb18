"""What a session record says: the pid, the data, and records that something else than this library wrote."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.session_record import Orphan, Pid, encode_data, read_orphan


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


RECORD = [b"ns", b"/chat", b"data", b'{"a":1}', b'r:"red"', b"12", b"g:30:7", b"20"]


def test_an_orphan_is_read() -> None:
    assert read_orphan("s1", RECORD) == Orphan("s1", "/chat", {"a": 1}, {"red": 12})


def test_a_session_that_nobody_adopts_is_none() -> None:
    assert read_orphan("s1", []) is None


@given(field=st.sampled_from([b"data", b'r:"red"', b"g:30:7", b"r:[", b"g:x"]), value=st.binary(max_size=8))
def test_a_damaged_orphan_has_its_handler_run_all_the_same(field: bytes, value: bytes) -> None:
    orphan = read_orphan("s1", [*RECORD, field, value])
    assert orphan is not None
    assert (orphan.sid, orphan.namespace) == ("s1", "/chat")
    assert orphan in (Orphan("s1", "/chat", {}, {}), orphan)


def test_an_orphan_without_data_has_none() -> None:
    assert read_orphan("s1", [b"ns", b"/\xff", b"data", b"[]"]) == Orphan("s1", "/\ufffd", {}, {})
