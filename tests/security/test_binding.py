"""The code in SECURITY.md that binds sessions to users, run as it stands there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import socketio
from aiohttp import web
from socketio_recovery import AsyncRedisStreamsManager

from local.redis_server import RedisServer
from tests.support.paths import ROOT
from tests.support.raw_client import payload, raw
from tests.support.waiting import until


def example() -> str:
    """The code that comes with a ``connect`` handler."""
    (code,) = re.findall(
        r"^```python\n(@sio\.event\nasync def connect.*?)^```", (ROOT / "SECURITY.md").read_text(), re.M | re.S
    )
    return str(code)


async def user_of(environ: dict[str, Any], auth: Any) -> str | None:
    tokens = {"token of ann": "ann", "token of eve": "eve"}
    assert "pid" not in (auth or {})
    return tokens.get((auth or {}).get("token", ""))


@asynccontextmanager
async def serving(redis_server: RedisServer, channel: str, **options: Any) -> AsyncIterator[Any]:
    """A node in this process, with the example as its handler."""
    manager = AsyncRedisStreamsManager(
        redis_server.url, channel, skip_connect_handler=options.pop("skip_connect_handler", False)
    )
    sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager, **options)
    names = {
        "sio": sio,
        "manager": manager,
        "user_of": user_of,
        "ConnectionRefusedError": socketio.exceptions.ConnectionRefusedError,
    }
    exec(compile(example(), "SECURITY.md", "exec"), names)
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", sio=sio, manager=manager)
    finally:
        await manager.drain()
        await sio.shutdown()
        await runner.cleanup()
        await manager.close()


Start = Callable[..., Any]


def auth(**values: str) -> str:
    return "40" + json.dumps(values)


async def test_a_stolen_pid_without_the_users_token(redis_server: RedisServer, channel: str) -> None:
    async with serving(redis_server, channel) as node:
        async with raw(node) as ann:
            await ann.send(auth(token="token of ann"))
            mine = payload(await ann.read(), "40")
            await node.sio.emit("e", 1, to=mine["sid"])
            offset = payload(await ann.read(), "42")[-1]
        await until(lambda: not node.manager.get_namespaces())
        await node.sio.emit("e", "for ann's eyes", to=mine["sid"])
        for token, message in (("token of eve", "this session is another user's"), ("none", "who are you?")):
            async with raw(node) as eve:
                await eve.send(auth(token=token, pid=mine["pid"], offset=offset))
                assert payload(await eve.read(), "44") == {"message": message}
        async with raw(node) as ann:
            await ann.send(auth(token="token of ann", pid=mine["pid"], offset=offset))
            assert payload(await ann.read(), "40") == mine
            assert payload(await ann.read(), "42")[:2] == ["e", "for ann's eyes"]
            assert (await node.sio.get_session(mine["sid"])) == {"user": "ann"}


@pytest.mark.parametrize("option", ["skip_connect_handler", "always_connect"])
async def test_options_that_weaken_it(redis_server: RedisServer, channel: str, option: str) -> None:
    """As SECURITY.md says."""
    async with serving(redis_server, channel, **{option: True}) as node:
        async with raw(node) as ann:
            await ann.send(auth(token="token of ann"))
            mine = payload(await ann.read(), "40")
        await until(lambda: not node.manager.get_namespaces())
        await node.sio.emit("e", "for ann's eyes", to=mine["sid"])
        async with raw(node) as eve:
            await eve.send(auth(token="token of eve", pid=mine["pid"]))
            assert payload(await eve.read(), "40") == mine
            assert payload(await eve.read(), "42")[:2] == ["e", "for ann's eyes"]
            if option == "always_connect":
                assert (await eve.read()).startswith("41")
