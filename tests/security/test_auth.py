"""The handshake against clients that send whatever they like as ``auth``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.security.hostile_json import AUTH
from tests.security.node_log import library_errors
from tests.support.node_process import NodeProcess
from tests.support.raw_client import payload, raw

MANY = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(auth=AUTH)
async def test_any_json(target: NodeProcess, auth: Any) -> None:
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
    assert not library_errors(target)


async def test_a_huge_auth(target: NodeProcess) -> None:
    """A packet as large as ``max_http_buffer_size`` allows is taken; the node keeps none of it."""
    for size in (10_000, 900_000):
        async with raw(target) as client:
            await client.send("40" + json.dumps({"pid": "x" * size, "offset": "f" * 50_000}))
            assert set(payload(await client.read(), "40")) == {"sid", "pid"}
    async with raw(target) as client:
        await client.send("40" + json.dumps({"pid": "x" * 2_000_000}))
        assert (await client.read()).startswith("<CLOS")
    assert not library_errors(target)


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
async def test_what_is_no_packet(target: NodeProcess, packet: str) -> None:
    """python-socketio can't read it, and says so in the log; the same connection can still be used."""
    async with raw(target) as client:
        await client.send(packet)
        await client.send("40")
        assert (await client.read()).startswith("40{")
    assert not library_errors(target)


@pytest.mark.parametrize("depth", [100, 300, 900])
async def test_nesting_that_can_be_read(target: NodeProcess, depth: int) -> None:
    async with raw(target) as client:
        await client.send("40" + '{"a":' * depth + "1" + "}" * depth)
        assert (await client.read()).startswith("40{")
