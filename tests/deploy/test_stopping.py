"""Stopping, with real signals and on each server: not ready first, then the clients leave one by one, then it ends."""

from __future__ import annotations

import importlib.util
import shlex
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.chat_clients import open_client
from tests.support.emitter import Emitter
from tests.support.js_clients import POLLING, WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.paths import ROOT
from tests.support.waiting import until

from .program import Program
from .workers import Example

FASTAPI = ROOT / "examples" / "fastapi"
#: Draining takes so long that it is not over before the test is, in seconds.
LONG = 600
#: How uvicorn closes a WebSocket by itself when it stops: "service restart".
CLOSED_BY_SERVER = 1012
#: gunicorn has several workers on one port, where clients use WebSocket only.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "uvicorn": [WEBSOCKET, WEBSOCKET, POLLING, POLLING, {}, {}],
    "hypercorn": [WEBSOCKET, WEBSOCKET, POLLING, POLLING, {}, {}],
    "gunicorn": [WEBSOCKET] * 6,
    "fastapi": [WEBSOCKET, WEBSOCKET, POLLING, POLLING, {}, {}],
}
StartProgram = Callable[[str, float], Awaitable[Program]]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """``examples/fastapi`` has a cluster with the default name."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
async def start_program(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[StartProgram]:
    """Starts what ``docs/deploying.md`` shows for a server, or ``examples/fastapi``: kind, ``over``."""
    started: list[Program] = []

    async def start(kind: str, over: float) -> Program:
        for package in ("fastapi", "uvicorn") if kind == "fastapi" else (kind,):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"no {package} here: pip install {package}")
        folder = tmp_path / str(len(started))
        folder.mkdir()
        if kind != "fastapi":
            example = Example(kind, own_redis.url, "socketio", folder, over, polling=POLLING in OPTIONS[kind])
            started.append(example)
            return await example.run()
        program = Program(FASTAPI, folder / "log")
        started.append(program)
        (line,) = (line for line in (FASTAPI / "README.md").read_text().splitlines() if line.startswith("uvicorn "))
        command = ["-m", *shlex.split(line.replace("8000", str(program.port)))]
        await program.start(command, REDIS_URL=own_redis.url, DRAIN_OVER=str(over))
        return program

    yield start
    for program in started:
        program.stop()


@pytest.fixture
async def other(start_node: StartNode, own_redis: RedisServer) -> NodeProcess:
    """The other node of the cluster, to which clients go."""
    return await start_node(redis=own_redis.url, manager={"channel": "socketio"})


async def open_all(clients: JsClients, kind: str, old: Program, other: NodeProcess) -> list[JsClient]:
    """Opens clients of ``old``. When they lose it they try the other node, and ``old``, in turn."""
    return [
        await open_client(clients, old, options=options, urls=[old.url, other.url], auth={"name": str(number)})
        for number, options in enumerate(OPTIONS[kind])
    ]


async def all_recovered(node: NodeProcess, opened: list[JsClient], sent: int) -> None:
    """Each has come back once, as who it was, and has received each event once, in order."""
    for client in opened:
        again = await client.connected(2)
        assert (again["recovered"], again["sid"]) == (True, client.connects()[0]["sid"])
        ticks = [event[1] for event in await settle(node, client) if event[0] == "tick"]
        assert ticks == list(range(sent))
        assert len(client.connects()) == 2, client.reports


def left(opened: list[JsClient]) -> list[JsClient]:
    """Those that have lost their first connection."""
    return [client for client in opened if client.of("disconnect")]


@pytest.mark.parametrize("kind", OPTIONS)
async def test_clients_leave_one_by_one(
    other: NodeProcess, start_program: StartProgram, clients: JsClients, kind: str
) -> None:
    """While most of them are still connected the node is not ready. One that is killed then loses nothing, either."""
    old = await start_program(kind, LONG)
    opened = await open_all(clients, kind, old, other)
    async with Emitter(other, None) as emitter:
        old.signal(signal.SIGTERM)
        await until(lambda: any(len(client.connects()) == 2 for client in opened), old.log)
        await opened[-1].received(emitter.sent + 10)
        if kind == "fastapi":
            assert await old.status("/readyz") == 503
            assert await old.status("/healthz") == 200
        assert len(left(opened)) == 1 or (kind == "gunicorn" and len(left(opened)) == 2)  # one of each worker
        old.stop()
        for client in opened:
            await client.connected(2)
    await all_recovered(other, opened, emitter.sent)


@pytest.mark.parametrize("kind", OPTIONS)
async def test_it_ends_when_all_have_left(
    other: NodeProcess, start_program: StartProgram, clients: JsClients, kind: str
) -> None:
    """It was not the server who closed their connections; each ``disconnect`` handler has run, once."""
    old = await start_program(kind, 0.3)
    opened = await open_all(clients, kind, old, other)
    witness = await clients.open(other, options=WEBSOCKET)
    await witness.call("join", "lobby")
    async with Emitter(other, None) as emitter:
        await old.terminate()
        for client in opened:
            await client.connected(2)
    await all_recovered(other, opened, emitter.sent)
    closed = [client.of("disconnect")[0] for client in opened]
    assert CLOSED_BY_SERVER not in [report.get("code") for report in closed], closed
    if kind == "fastapi":
        events = await settle(other, witness)
        ran = Counter(event[1] for event in events if event[0] == "away")
        assert ran == Counter(str(number) for number in range(len(opened)))
    else:
        said = [line.split()[1] for line in old.log().splitlines() if line.startswith("left ")]
        assert sorted(said) == sorted(client.connects()[0]["sid"] for client in opened)


@pytest.mark.parametrize("kind", ["uvicorn", "fastapi"])
async def test_a_second_signal_ends_it_at_once(
    other: NodeProcess, start_program: StartProgram, clients: JsClients, kind: str
) -> None:
    old = await start_program(kind, LONG)
    opened = await open_all(clients, kind, old, other)
    async with Emitter(other, None) as emitter:
        old.signal(signal.SIGTERM)
        await until(lambda: left(opened), old.log)
        await old.terminate()
        for client in opened:
            await client.connected(2)
    await all_recovered(other, opened, emitter.sent)


async def test_the_example_is_a_chat(start_program: StartProgram, clients: JsClients) -> None:
    one, two = [await start_program("fastapi", 0) for _ in range(2)]
    ann = await open_client(clients, one, auth={"name": "Ann"})
    bob = await open_client(clients, two, auth={"name": "Bob"})
    await ann.run("emit", event="say", args=["hello"])
    assert (await bob.received(2))[1] == ("said", {"name": "Ann", "text": "hello"})
    assert await one.status("/") == await one.status("/readyz") == 200
    await ann.run("cut")
    assert (await ann.connected(2))["recovered"] is True
    await ann.run("emit", event="say", args=["again"])
    assert (await bob.received(5))[2:] == [("away", "Ann"), ("back", "Ann"), ("said", {"name": "Ann", "text": "again"})]
