"""What a client can make a node keep is bounded."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from socketio_recovery.aio.upstream.socketio_server import MESSAGES_PER_PACKET

from tests.security.node_log import library_errors
from tests.security.raw_sessions import connected, serves
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import raw

SMALL = 10_000
LIMITED: dict[str, Any] = {"server": {"max_http_buffer_size": SMALL}}


@pytest.mark.parametrize("size", [SMALL - 100, 0], ids=["large", "empty"])
async def test_a_packet_of_endless_attachments(start_node: StartNode, size: int) -> None:
    """Announced: a thousand million. The transport is closed when they are too much; the session goes on."""
    a = await start_node(**LIMITED)
    async with connected(a) as (bystander, _):
        async with connected(a) as (client, mine):
            await client.send('45999999999-["echo",{"_placeholder":true,"num":0}]')
            closed = asyncio.create_task(client.read())
            count = 0
            with suppress(aiohttp.ClientConnectionError):
                while not closed.done() and count < 5000:
                    await client.ws.send_bytes(b"x" * size)
                    count += 1
                    if count % 10 == 0:
                        await serves(a, bystander, count)
            assert (await closed).startswith("<CLOS")
        async with connected(a, {"pid": mine["pid"]}) as (client, again):
            assert again == mine
            await serves(a, client, 1)
    assert a.log().count("WARNING recovery: a client sends a packet with too many attachments") == 1


async def test_a_large_packet_of_attachments(start_node: StartNode) -> None:
    """As much as is allowed is taken, again and again."""
    a = await start_node(**LIMITED)
    async with connected(a) as (client, _):
        for _ in range(3):
            count = MESSAGES_PER_PACKET - 1
            places = [{"_placeholder": True, "num": i} for i in range(count)]
            await client.send(f"45{count}-1" + json.dumps(["echo", *places]))
            for i in range(count):
                await client.ws.send_bytes(bytes([i]) * (SMALL - 100))
            assert (await client.read()).startswith(f"46{count}-1[")
            for i in range(count):
                message = await client.ws.receive()
                assert message.data == bytes([i]) * (SMALL - 100)
    assert not library_errors(a)


async def test_many_namespaces_on_one_transport(target: NodeProcess, store: Any) -> None:
    """Those without handlers are refused, and leave nothing: neither here nor in Redis."""
    pattern = "{" + target.config["manager"]["channel"] + "}:session:*"
    async with connected(target) as (bystander, _):
        before = len(await store.keys(pattern))
        async with raw(target) as client:
            for i in range(2000):
                await client.send(f"40/nobody-{i},")
                assert (await client.read()).startswith(f"44/nobody-{i},")
            assert len(await store.keys(pattern)) == before
            assert await target.do(("get_namespaces",), on="manager") == [["/"]]
        await serves(target, bystander, 1)
    assert not library_errors(target)


async def test_coming_and_going_on_one_transport(target: NodeProcess, store: Any) -> None:
    """Sessions that were left on purpose are gone at once."""
    pattern = "{" + target.config["manager"]["channel"] + "}:session:*"
    async with raw(target) as client:
        before = len(await store.keys(pattern))
        for _ in range(200):
            await client.send("40")
            assert (await client.read()).startswith("40{")
            await client.send("41")
        await client.send("40")
        await client.read()
        assert len(await store.keys(pattern)) == before + 1
    assert not library_errors(target)


async def test_what_a_session_takes_in_redis(target: NodeProcess, store: Any) -> None:
    """As SECURITY.md says: about 1 kB, until it expires."""
    async with connected(target) as (client, mine):
        await client.send('421["join","room"]')
        await client.read()
        key = "{" + target.config["manager"]["channel"] + "}:session:" + mine["sid"]
        assert 0 < await store.memory_usage(key) < 1500
    for _ in range(50):  # each finds the session, none of them has the secret
        async with connected(target, {"pid": mine["sid"] + "." + "x" * 32}):
            pass
    assert 0 < await store.memory_usage(key) < 1500
    assert 0 < await store.pttl(key) < 1000 * 3600
