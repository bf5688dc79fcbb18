"""What a session record says: the pid, the data, and records that something else than this library wrote."""

from __future__ import annotations

import collections
import enum
import http
import json
import math
import traceback
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.session_record import Orphan, Pid, encode_data, read_orphan

from .comparing import same


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


class Role(enum.StrEnum):
    ADMIN = "admin"


class Name(str):
    pass


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"ok": 1, "bad": object()}, r"session\['bad'\] is a object, .* save a str"),
        ({"bad": {"deep": [1, {1, 2}]}}, r"session\['bad'\]\['deep'\]\[1\] is a set, .* save a str"),
        ({"bad": b"bytes"}, r"session\['bad'\] is a bytes, .* save a str"),
        ({"ok": 1, "bad": math.nan}, r"session\['bad'\] is nan, .* save None"),
        ({"bad": [math.inf]}, r"session\['bad'\]\[0\] is inf, .* save None"),
        ({"bad": 10**5000}, r"session\['bad'\] has too many digits: save a str"),
        ({(1, 2): "a key"}, r"session has the key \(1, 2\), .* use a str"),
        ({"ok": "ok", 1: "one"}, "session has the key 1, .* use a str"),
        ({True: "yes"}, "session has the key True, .* use a str"),
        ({10**5000: 1}, r"session has the key \(int\), .* use a str"),
        ({None: "no"}, "session has the key None, .* use a str"),
        ({1: "one", "1": "one too"}, "session has the key 1, .* use a str"),
        ({"bad": [{"x": 1}, {2.5: 0}]}, r"session\['bad'\]\[1\] has the key 2.5, .* use a str"),
        ({"bad": (1, 2)}, r"session\['bad'\] is a tuple, .* save a list"),
        ({"bad": [[()]]}, r"session\['bad'\]\[0\]\[0\] is a tuple, .* save a list"),
        ({"bad": Point(1)}, r"session\['bad'\] is a Point, .* save a list"),
        ({"bad": Role.ADMIN}, r"session\['bad'\] is a Role, .* save a plain str"),
        ({"bad": {Name("x"): 1}}, r"session\['bad'\] has the key 'x', .* use a str"),
        ({"bad": [http.HTTPStatus.OK]}, r"session\['bad'\]\[0\] is a HTTPStatus, .* save a plain int"),
        ({"bad": collections.defaultdict(list)}, r"session\['bad'\] is a defaultdict, .* save a plain dict"),
        ({"bad": "\ud83d\ude00"}, r"session\['bad'\] holds two halves .* save the character"),
        ({"\ud83d\ude00": 1}, r"session has the key '\\ud83d\\ude00', .* use a str"),
        ([1, 2], "plain dict .*, not list"),
        (None, "not NoneType"),
        ("text", "not str"),
        (collections.OrderedDict(), "not OrderedDict"),
    ],
)
def test_data_that_would_come_back_changed_is_refused(data: Any, complaint: str) -> None:
    """The message says where the fault is, and the way out."""
    with pytest.raises(TypeError, match=complaint):
        encode_data(data)


def test_data_that_contains_itself_is_named() -> None:
    data: dict[str, Any] = {"ok": 1}
    data["loop"] = data
    with pytest.raises(TypeError, match=r"session\['loop'\] contains itself"):
        encode_data(data)


def test_data_that_is_nested_too_deep_is_named() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match=r"session\['deep'\] .* nested too deep"):
        encode_data({"ok": 1, "deep": deep})


#: What applications save, and what Python takes for it.
texts = st.text(st.characters(categories=None) | st.sampled_from("\ud83d\ude00"), max_size=4)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
odd = st.sampled_from((Role.ADMIN, Name("x"), Point(1), http.HTTPStatus.OK, b"x", math.nan, math.inf))
keys = texts | st.integers(0, 2) | st.booleans() | st.none() | st.floats() | st.sampled_from((Role.ADMIN, (1, 2)))


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any], *more: Any) -> st.SearchStrategy[Any]:
    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        shapes = [st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)]
        return st.one_of(*shapes, *(st.lists(inner, max_size=3).map(make) for make in more))

    return st.dictionaries(keys, st.recursive(leaves, grow, max_leaves=8), max_size=3)


@given(nested(plain | odd, keys, tuple, collections.deque, collections.UserList))
def test_data_that_is_accepted_comes_back_as_it_is(data: Any) -> None:
    try:
        text = encode_data(data)
    except TypeError:
        return
    assert same(json.loads(text), data)


@given(nested(st.none() | st.booleans() | st.integers() | st.text(), st.text()))
def test_data_that_json_has_is_accepted(data: Any) -> None:
    assert same(json.loads(encode_data(data)), data)


@pytest.mark.parametrize("data", [{"name": "\ud800"}, {"\udfff": 1}, {"": None, "x": ["é", "\x00", "😀"]}])
def test_data_can_be_sent_to_redis(data: dict[str, Any]) -> None:
    encode_data(data).encode()


RECORD = [b"ns", b"/chat", b"data", b'{"a":1}', b'r:"red"', b"12", b"g:30:7", b"20"]


def test_an_orphan_is_read() -> None:
    assert read_orphan("s1", RECORD) == Orphan("s1", "/chat", {"a": 1}, {"red": 12})


def test_what_else_the_server_keeps_is_read() -> None:
    orphan = read_orphan("s1", [*RECORD, b"extra", "ä".encode()])
    assert orphan == Orphan("s1", "/chat", {"a": 1}, {"red": 12}, "ä")
    assert read_orphan("s1", [*RECORD, b"extra", b"\xff"]) == Orphan("s1", "/chat", {}, {})


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
