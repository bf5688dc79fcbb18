"""A node against clients that send whatever they like as packets, on both transports."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.security.hostile_json import ANY_JSON, AUTH
from tests.security.node_log import library_errors
from tests.security.raw_sessions import serves
from tests.support.node_process import NodeProcess
from tests.support.raw_client import payload, raw
from tests.support.waiting import PATIENCE

WIRE_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
NAMESPACE = st.sampled_from(["", "", "", "/,", "/other,", "/nobody,", "/other?a=b,", "/other", "/,/,", ",", "/\u0000,"])
#: Like a packet: each part may be missing or wrong.
SOCKET_IO = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from("0123456789-x\u00b2"),
    st.sampled_from(["", "", "", "1-", "0-", "3-", "999999999-", "99999999999-", "-", "1-1-"]),
    NAMESPACE,
    st.sampled_from(["", "", "1", "0", "9" * 99, "9" * 101, "-1", "1.5", "\u0663"]),
    st.one_of(
        ANY_JSON.map(json.dumps),
        AUTH.map(json.dumps),
        st.lists(ANY_JSON, max_size=3).map(lambda args: json.dumps(["echo", *args])),
        st.sampled_from(
            [
                "",
                "[]",
                "[",
                "{}",
                "null",
                '["echo",{"_placeholder":true,"num":0}]',
                '["echo",{"_placeholder":true,"num":7}]',
                '[{"_placeholder":true,"num":"x"}]',
                '["connect"]',
                '["disconnect"]',
                '["disconnect","x"]',
                "[[],1]",
                "[{}]",
                "[null]",
                '["state",1,2,3]',
                '["__disconnect_final"]',
            ]
        ),
    ),
)
ENGINE_IO = st.one_of(
    SOCKET_IO.map("4{}".format),
    st.sampled_from(
        ["40", "40/other,", "41", "41/other,", "2", "3", "5", "6", "2probe", "", "4", "b", "bAAAA", "b=", "1"]
    ),
    st.builds("{}{}".format, st.sampled_from("0123456789b\u0663x"), WIRE_TEXT),
    WIRE_TEXT,
)
#: What python-engineio closes a polling connection for. It answers that POST only when the client has polled once more.
REFUSED = tuple("026")
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
numbers = itertools.count(1)


@FEW
@given(packets=st.lists(ENGINE_IO | st.binary(max_size=60), max_size=8), connect=st.booleans())
@example(packets=["451-[" + '"echo",{"_placeholder":true,"num":0}]', b"\x00"], connect=True)
@example(packets=["451-[" + '"echo"]', "42[1]", b"\x00"], connect=True)
@example(packets=['42["__disconnect_final"]', '42["disconnect"]', '42["connect",{}]'], connect=True)
async def test_any_packets_on_websocket(target: NodeProcess, packets: list[str | bytes], connect: bool) -> None:
    async with raw(target) as bystander:
        await bystander.send("40")
        await bystander.read()
        async with raw(target) as client:
            if connect:
                await client.send("40")
            with suppress(aiohttp.ClientConnectionError):  # closed by a packet
                for packet in packets:
                    await (client.ws.send_bytes(packet) if isinstance(packet, bytes) else client.send(packet))
            await serves(target, bystander, next(numbers))
    assert not library_errors(target)


@asynccontextmanager
async def polling(node: NodeProcess) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """An Engine.IO connection by polling: where to POST. What the node sends is read and thrown away."""
    url = node.url + "/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as response:
            url += "&sid=" + json.loads((await response.text())[1:])["sid"]

        async def poll() -> None:
            status = 200
            while status == 200:
                async with http.get(url) as response:
                    status = response.status

        poller = asyncio.create_task(poll())
        try:
            yield http, url
        finally:
            poller.cancel()
            await asyncio.gather(poller, return_exceptions=True)


@FEW
@given(
    bodies=st.lists(
        st.lists(ENGINE_IO, max_size=20).map("\x1e".join).map(str.encode)
        | st.binary(max_size=100)
        | WIRE_TEXT.map("d={}".format).map(str.encode),
        max_size=4,
    )
)
@example(bodies=[b"d="])
@example(bodies=[b"\x1e".join([b"40"] * 16)])
@example(bodies=[b"\x1e".join([b"40"] * 17)])
async def test_any_packets_by_polling(target: NodeProcess, bodies: list[bytes]) -> None:
    async with raw(target) as bystander:
        await bystander.send("40")
        await bystander.read()
        async with polling(target) as (http, url):
            for body in [*bodies, b"1"]:  # closed at last
                if not body.startswith(b"d=") and any(
                    p.startswith(REFUSED) for p in body.decode("latin").split("\x1e")
                ):
                    continue
                async with asyncio.timeout(PATIENCE), http.post(url, data=body) as response:
                    assert response.status in (200, 400, 500)
        await serves(target, bystander, next(numbers))
    assert not library_errors(target)


@pytest.mark.parametrize(
    "packet",
    [
        '42["connect",{"REMOTE_ADDR":"127.0.0.1"},{"user":"root"}]',
        '42["connect",{}]',
        '42["disconnect","client disconnect"]',
        '42["disconnect"]',
        '451-["connect",{"_placeholder":true,"num":0}]',
    ],
)
async def test_a_client_can_not_run_the_connect_or_disconnect_handler(target: NodeProcess, packet: str) -> None:
    """python-socketio takes an event of that name for the real thing."""
    await target.reset()
    async with raw(target) as client:
        await client.send("40")
        sid = payload(await client.read(), "40")["sid"]
        await client.send(packet)
        if packet.startswith("45"):
            await client.ws.send_bytes(b"x")
        await serves(target, client, 1)
        assert [s["what"] for s in (await target.look())["seen"] if s["sid"] == sid] == ["connect"]


async def test_what_is_no_event(target: NodeProcess) -> None:
    """No name, a name that is no name, no list: not worth a traceback."""
    before = target.log().count("Traceback")
    async with raw(target) as client:
        await client.send("40")
        await client.read()
        for packet in ("42", "42[]", "42{}", "42null", "42[[]]", "42[{}]", "42[null]", '42"echo"', "42true", "421[]"):
            await client.send(packet)
        await serves(target, client, 1)
    assert target.log().count("Traceback") == before
