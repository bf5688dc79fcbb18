"""The handshake against clients that send whatever they like as ``auth``."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster.test_raw import payload, raw
from tests.security.support import ours
from tests.support.cluster import Node

#: Any string JSON can hold, lone surrogates included.
TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**97, 10**98)  # python-engineio takes no longer ones
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
SECRET = st.text("abcXYZ019-_", min_size=32, max_size=32)
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=130)
#: Keys of Redis, glob patterns, path and protocol characters: a sid is part of a key's name.
HOSTILE_SID = st.sampled_from(
    ["*", "?", "{socketio}:log", "..", "a\r\nFLUSHALL\r\n", "\x00", "%s", "${jndi:x}", "'", "log"]
)
#: What nearly is a pid, or is one of nobody.
PID = (
    st.builds("{}.{}".format, PRINTABLE | HOSTILE_SID, SECRET)
    | st.builds("{}.{}".format, TEXT, TEXT)
    | st.builds(lambda sid, secret, more: f"{sid}.{secret}{more}", PRINTABLE, SECRET, TEXT)
    | ANY_JSON
    | st.integers(1000, 50_000).map(lambda n: "x" * n)
)
#: What nearly is an offset, or is one that no event had.
OFFSET = (
    st.from_regex(re.compile(r"[0-9a-f]{1,14}-[0-9a-f]{1,15}\n?", re.ASCII), fullmatch=True)
    | st.from_regex(re.compile(r"[-+ 0-9a-fx.]{1,20}", re.ASCII), fullmatch=True)
    | ANY_JSON
)
AUTH = ANY_JSON | st.fixed_dictionaries({"pid": PID}, optional={"offset": OFFSET, "token": ANY_JSON, "": TEXT})
#: A number at the top would be the packet's id: not an ``auth`` at all.
AUTH = AUTH.filter(lambda auth: not isinstance(auth, (int, float)) or isinstance(auth, bool))

MANY = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(auth=AUTH)
async def test_any_json(target: Node, auth: Any) -> None:
    """Whatever it is: a new session, with a secret of its own."""
    async with raw(target) as client:
        await client.send("40" + json.dumps(auth))
        first = payload(await client.read(), "40")
        assert set(first) == {"sid", "pid"}
        assert first["pid"].startswith(first["sid"] + ".")
        assert not isinstance(auth, dict) or first["pid"] != auth.get("pid")
        await client.send('421["state"]')
        (state,) = payload(await client.read(), "431")
        assert (state["recovered"], state["session"], state["rooms"]) == (False, {}, [first["sid"]])
        assert state["reason"] in ("new", "malformed", "unknown")
    assert not ours(target)


async def test_a_huge_auth(target: Node) -> None:
    """A packet as large as ``max_http_buffer_size`` allows is taken; the node keeps none of it."""
    for size in (10_000, 900_000):
        async with raw(target) as client:
            await client.send("40" + json.dumps({"pid": "x" * size, "offset": "f" * 50_000}))
            assert set(payload(await client.read(), "40")) == {"sid", "pid"}
    async with raw(target) as client:
        await client.send("40" + json.dumps({"pid": "x" * 2_000_000}))
        assert (await client.read()).startswith("<CLOS")
    assert not ours(target)


@pytest.mark.parametrize(
    "packet",
    [
        "40" + '{"a":' * 100_000 + "1" + "}" * 100_000,
        "40" + "[" * 900_000,
        '40{"pid":1' + "0" * 5000 + "}",
        '40{"pid":',
        "40" + "9" * 90 + "{}",
    ],
    ids=["nested", "open", "number", "cut off", "id"],
)
async def test_what_is_no_packet(target: Node, packet: str) -> None:
    """python-socketio can't read it, and says so in the log; the same connection can still be used."""
    async with raw(target) as client:
        await client.send(packet)
        await client.send("40")
        assert (await client.read()).startswith("40{")
    assert not ours(target)


@pytest.mark.parametrize("depth", [100, 300, 900])
async def test_nesting_that_can_be_read(target: Node, depth: int) -> None:
    async with raw(target) as client:
        await client.send("40" + '{"a":' * depth + "1" + "}" * depth)
        assert (await client.read()).startswith("40{")
