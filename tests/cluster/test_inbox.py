"""Events that other programs put into the inbox: the examples of the page, and what is promised there."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from socketio_recovery.redis.keys import Keys

from local.node_js import find_node_js
from local.redis_server import RedisServer, find_server
from tests.support.js_clients import POLLING, WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.paths import ROOT
from tests.support.waiting import until

PAGE = (ROOT / "docs" / "emitters.md").read_text()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Any]:
    client: Any = redis.asyncio.Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


def section(title: str, kind: str) -> str:
    """The first block of code under a title of the page."""
    found = re.search(rf"^### {re.escape(title)}\n.*?^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


async def run(*command: str, **environment: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **environment}
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def redis_cli() -> str:
    server = find_server()
    assert server is not None
    beside = [server.parent / name for name in ("redis-cli", "valkey-cli")]
    found = next((str(path) for path in beside if path.exists()), shutil.which("redis-cli"))
    assert found, "there is no redis-cli beside the server, or on the PATH"
    return found


async def test_the_examples_for_redis_cli(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer, channel: str
) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET, namespaces=["/", "/other"])
    await client.call("join", "lobby")
    for line in section("redis-cli", "console").replace("{socketio}", "{" + channel + "}").splitlines():
        program, *arguments = shlex.split(line)
        assert program == "redis-cli"
        await run(redis_cli(), "-u", redis_server.url, *arguments)
    assert await client.received(2) == [("news", "to everybody"), ("news", 1, "two")]
    assert await client.received(1, nsp="/other") == [("tick",)]


async def test_the_example_for_node_js(
    start_node: StartNode, clients: JsClients, redis_server: RedisServer, channel: str, tmp_path: Path
) -> None:
    a = await start_node()
    client, other = await clients.open(a, options=WEBSOCKET), await clients.open(a, options=WEBSOCKET)
    await client.call("join", "hall")
    source = section("Node.js, with `redis`", "js").replace("{socketio}", "{" + channel + "}")
    assert "redis://localhost:6379/0" in source
    program = tmp_path / "emit.js"
    program.write_text(source.replace("redis://localhost:6379/0", redis_server.url))
    node = find_node_js()
    assert node is not None
    await run(node, str(program), NODE_PATH=str(ROOT / "tests" / "node_modules"))
    assert await client.received(2) == [("news", {"text": "to everybody"}), ("news", {"text": "to two rooms"})]
    assert await settle(a, other) == [("news", {"text": "to everybody"})]


async def holder(store: Any, keys: Keys, nodes: Mapping[str, NodeProcess]) -> NodeProcess | None:
    name = await store.hget(keys.taker, "node")
    return nodes.get(name.decode()) if name else None


async def test_each_once_and_in_order_while_nodes_are_killed(
    start_node: StartNode, clients: JsClients, store: Any, channel: str
) -> None:
    """The node that takes over the inbox is killed, twice; clients go on elsewhere and have missed nothing."""
    keys = Keys(channel)
    nodes = {}
    for kind in ("aiohttp", "threading", "aiohttp"):
        node = await start_node(server_kind=kind)
        nodes[(await node.do(("host_id",), on="manager"))[0]] = node
    urls = [node.url for node in nodes.values()]
    listeners = [
        await clients.open(node, options=options, urls=urls)
        for node, options in zip(nodes.values(), (WEBSOCKET, POLLING, WEBSOCKET), strict=True)
    ]
    written = 0

    async def write(stop: asyncio.Event) -> None:
        nonlocal written
        while not stop.is_set():
            await store.xadd(keys.inbox, {"event": "e", "data": written}, maxlen=100_000)
            written += 1
            await asyncio.sleep(0.005)

    stop = asyncio.Event()
    writing = asyncio.create_task(write(stop))
    try:
        for _ in range(2):
            victim = await until(partial(holder, store, keys, nodes))
            seen = len(listeners[0].events())
            await until(lambda seen=seen: len(listeners[0].events()) > seen + 20)  # type: ignore[misc]
            victim.kill()
            nodes = {name: node for name, node in nodes.items() if node is not victim}
        await until(partial(holder, store, keys, nodes))
    finally:
        stop.set()
        await writing
    for listener in listeners:
        await until(
            lambda listener=listener: len(listener.events()) >= written,  # type: ignore[misc]
            lambda listener=listener: f"{len(listener.events())} of {written}",  # type: ignore[misc]
        )
        assert listener.events() == [("e", number) for number in range(written)]
        assert not [connect for connect in listener.connects()[1:] if not connect["recovered"]]
    assert await store.xlen(keys.inbox) == 0


async def test_a_full_inbox_does_not_hold_up_other_events(
    start_node: StartNode, clients: JsClients, store: Any, channel: str
) -> None:
    count = 20_000
    keys = Keys(channel)
    a, b = await start_node(manager={"inbox": False}), None
    client = await clients.open(a, options=WEBSOCKET)
    left: list[int] = []
    between: list[int] = []
    for _ in range(5):  # the inbox may be empty before this test has looked, if it was off the processor meanwhile
        for _ in range(0, count, 1000):
            pipeline = store.pipeline(transaction=False)
            for _ in range(1000):
                pipeline.xadd(keys.inbox, {"event": "e", "data": '"x"', "rooms": "nobody"})
            await pipeline.execute()
        b = b or await start_node()
        rest = count
        while rest:
            await a.emit("between")
            rest = await store.xlen(keys.inbox)
            left.append(rest)
        between = [rest for rest in left if 0 < rest < count]
        if len(between) >= 3:
            break
    assert len(between) >= 3, left
    assert await settle(a, client) == [("between",)] * len(left)
    assert b is not None
    assert "set aside" not in b.log()


async def test_clients_with_msgpack_get_it(start_node: StartNode, clients: JsClients, store: Any, channel: str) -> None:
    a = await start_node(server={"serializer": "msgpack"})
    client = await clients.open(a, options={**WEBSOCKET, "parser": "msgpack"})
    await store.xadd(Keys(channel).inbox, {"event": "e", "args": '[1.5, {"a": ["房间"]}]'})
    assert await client.received(1) == [("e", 1.5, {"a": ["房间"]})]
