"""Bursts of events through ASGI servers: each event arrives once and in order, whichever way it was sent.

uvicorn with each of its WebSocket implementations, event loops and HTTP parsers, with TLS, and below a middleware; and
another server.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local.ports import free_port
from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.chat_clients import open_client
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients
from tests.support.paths import ROOT
from tests.support.waiting import until

from .events import COUNT, FLOOD, received

IMPLEMENTATIONS = {"websockets": "websockets", "websockets-sansio": "websockets", "wsproto": "wsproto"}
LOOPS = {"asyncio": "h11", "uvloop": "httptools"}


class Server:
    """A process that runs ``program.py``.

    :param command: the ASGI server and its options; ``{port}`` stands for the port.
    :param config: the configuration of the program.
    """

    def __init__(self, command: list[str], folder: Path, scheme: str = "http", **config: Any) -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.command = [part.format(port=self.port) for part in command]
        self.log = folder / "log"
        environment = {**os.environ, "NODE_CONFIG": json.dumps(config)}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "adapter"), environment.get("PYTHONPATH", "")])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(self.url + path, ssl=False) as response:
            return await response.json(content_type=None)

    async def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            await self.get("/state")
        except (aiohttp.ClientError, OSError):
            return False
        return True

    def stop(self) -> None:
        """Kills the process."""
        self.process.kill()
        self.process.wait()


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start_server(redis_server: RedisServer, channel: str, tmp_path: Path) -> AsyncIterator[StartServer]:
    started: list[Server] = []

    async def start(*command: str, needs: tuple[str, ...] = (), **config: Any) -> Server:
        for package in (command[0], *needs):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"no {package} here: pip install {package}")
        started.append(Server(list(command), tmp_path, redis=redis_server.url, channel=channel, **config))
        await until(started[-1].up, lambda: started[-1].log.read_text())
        return started[-1]

    yield start
    for server in started:
        server.stop()


#: Options of the clients that get bursts: with a WebSocket from the beginning, compressed or not; with one that they
#: upgrade to in the middle of the burst; and without one.
PLAIN = {"perMessageDeflate": False}
KINDS: tuple[dict[str, Any], ...] = ({**WEBSOCKET, **PLAIN}, WEBSOCKET, PLAIN, {}, POLLING)


async def bursts(clients: JsClients, server: Server) -> None:
    """Clients of each kind get their bursts."""
    opened: list[JsClient] = []
    for options in KINDS:
        opened.append(await open_client(clients, server, options={**options, "rejectUnauthorized": False}))
    expected = [received(i) for i in range(COUNT)]
    for client, options in zip(opened, KINDS, strict=True):
        events = await client.received(COUNT)
        assert [event[1] for event in events] == list(range(COUNT)), options
        assert events == expected, options
        if options is not POLLING:
            await until(partial(uses_websocket, client), "a WebSocket")
    assert "Traceback" not in server.log.read_text()


async def past_the_queue(server: Server) -> None:
    """Waits until more than a burst has gone past the queue.

    On a busy machine most of the bursts may have to wait in the queue. What is emitted to idle clients does not.
    """

    async def enough() -> bool:
        return bool((await server.get("/one"))["past the queue"] > COUNT)

    await until(enough, "messages past the queue")


async def uses_websocket(client: JsClient) -> bool:
    return bool((await client.run("get"))["transport"] == "websocket")


async def start_uvicorn(start_server: StartServer, ws: str, loop: str, *options: str, **config: Any) -> Server:
    http = LOOPS[loop]
    return await start_server(
        *("uvicorn", "tests.servers.program:app", "--port", "{port}", "--ws", ws, "--loop", loop, "--http", http),
        *options,
        needs=(IMPLEMENTATIONS[ws], http, loop),
        **config,
    )


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("ws", IMPLEMENTATIONS)
async def test_uvicorn(start_server: StartServer, clients: JsClients, ws: str, loop: str) -> None:
    server = await start_uvicorn(start_server, ws, loop)
    await bursts(clients, server)
    state = await server.get("/state")
    await past_the_queue(server)
    assert state["largest"] > 70_000  # to clients that do not compress
    assert state["queued"] > COUNT  # in polling


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")
@pytest.mark.parametrize(
    ("ws", "loop"), [("websockets", "uvloop"), ("websockets-sansio", "asyncio"), ("wsproto", "uvloop")]
)
async def test_uvicorn_with_tls(
    start_server: StartServer, clients: JsClients, tmp_path: Path, ws: str, loop: str
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate))
    server = await start_uvicorn(start_server, ws, loop, *tls, scheme="https")
    await bursts(clients, server)
    await past_the_queue(server)


async def test_uvicorn_below_a_middleware(start_server: StartServer, clients: JsClients) -> None:
    """It gets every message: nothing is written past it."""
    server = await start_uvicorn(start_server, "wsproto", "asyncio", wrapped=True)
    await bursts(clients, server)
    assert "past the queue" not in await server.get("/state")


async def test_another_server(start_server: StartServer, clients: JsClients) -> None:
    server = await start_server("hypercorn", "tests.servers.program:app", "--bind", "127.0.0.1:{port}")
    await bursts(clients, server)
    assert "past the queue" not in await server.get("/state")


@pytest.mark.parametrize(
    ("ws", "loop"), [("websockets", "asyncio"), ("websockets-sansio", "uvloop"), ("wsproto", "asyncio")]
)
async def test_a_client_that_stops_reading_for_a_while(
    start_server: StartServer, clients: JsClients, ws: str, loop: str
) -> None:
    """Events are queued from then on. They go past the queue again when the last of them is sent, and not before."""
    server = await start_uvicorn(start_server, ws, loop)
    client = await open_client(clients, server, options={**WEBSOCKET, **PLAIN}, auth={"quiet": True}, brief=True)
    await client.run("pause")
    async with asyncio.TaskGroup() as flood:
        flood.create_task(server.get("/flood"))
        await until(lambda: queued(server), "a queue")
        await client.run("resume")
    events = await client.received(FLOOD)
    assert [event[1] for event in events] == [*range(FLOOD)]


async def queued(server: Server) -> int:
    """How many messages the server has queued."""
    return int((await server.get("/state")).get("queued", 0))


@pytest.mark.parametrize(
    ("ws", "loop"), [("websockets", "asyncio"), ("websockets-sansio", "uvloop"), ("wsproto", "asyncio")]
)
async def test_a_client_that_does_not_read_is_cut_off(start_server: StartServer, ws: str, loop: str) -> None:
    """Otherwise the server would wait for it in ``send`` until TCP gives up."""
    server = await start_uvicorn(start_server, ws, loop, manager={"max_queue": 50})
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        got = b""
        while b'"upgrades"' not in got:
            got += await asyncio.to_thread(client.recv, 1000)
        client.sendall(b"\x81\x90" + bytes(4) + b'40{"quiet":true}')
        while b'40{"sid"' not in got:
            got += await asyncio.to_thread(client.recv, 1000)
        assert (await server.get("/state"))["open"] == 1
        await server.get("/flood")

        async def gone() -> bool:
            return bool((await server.get("/state"))["open"] == 0)

        await until(gone, lambda: server.log.read_text())
