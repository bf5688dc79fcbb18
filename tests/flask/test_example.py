"""``examples/flask`` behind gunicorn: nodes are killed and stopped, and its clients go on."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients
from tests.support.paths import ROOT
from tests.support.waiting import until

from .example import EXAMPLE, ExampleNode

StartExample = Callable[[str], Awaitable[ExampleNode]]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis server of the test's own: the example's cluster has no name of its own."""
    server = RedisServer(preexec=die_with_parent)
    yield server
    server.stop()


@pytest.fixture
async def start(redis: RedisServer, tmp_path: Path) -> AsyncIterator[StartExample]:
    nodes: list[ExampleNode] = []

    async def start(program: str) -> ExampleNode:
        nodes.append(ExampleNode(program, redis.url, tmp_path))
        return await nodes[-1].start()

    yield start
    for node in nodes:
        node.kill()


async def welcomed(client: JsClient, times: int) -> dict[str, Any]:
    """What the node says to the client that has connected ``times`` times."""
    await client.connected(times)
    state: dict[str, Any] = await client.call("whoami")
    return state


def said(client: JsClient) -> list[tuple[Any, ...]]:
    """What users said, as a client has received it: user, text, and how much the user has said."""
    messages = [event[1] for event in client.events() if event[0] == "message"]
    return [(m["user"], m["text"], m["number"]) for m in messages if "user" in m]


async def all_received(expected: list[tuple[Any, ...]], *clients: JsClient) -> None:
    for client in clients:
        await until(lambda client=client: len(said(client)) >= len(expected), lambda client=client: str(said(client)))  # type: ignore[misc]
        assert said(client) == expected


@pytest.mark.parametrize("program", ["gunicorn", "ASYNC_MODE=gevent gunicorn"])
async def test_nodes_are_killed_and_stopped(start: StartExample, clients: JsClients, program: str) -> None:
    a, b = await start(program), await start(program)
    ann = await clients.open(a, options=WEBSOCKET)  # type: ignore[arg-type]
    bob = await clients.open(b, options=WEBSOCKET)  # type: ignore[arg-type]
    for client, name in ((ann, "ann"), (bob, "bob")):
        await client.call("login", name)
        await client.call("join", "red")
    await ann.call("say", "hello")
    await ann.move(b)  # type: ignore[arg-type]
    node = (await ann.call("whoami"))["node"]

    a.kill()
    await bob.call("say", "are you there?")
    state = await welcomed(ann, 2)
    assert state["node"] != node
    assert {**state, "node": 0} == {
        "node": 0,
        "recovered": True,
        "session": {"user": "ann", "room": "red", "said": 1},
        "rooms": ["red"],
    }
    await ann.call("say", "again")
    expected = [("ann", "hello", 1), ("bob", "are you there?", 1), ("ann", "again", 2)]
    await all_received(expected, ann, bob)

    c = await start(program)
    for client in (ann, bob):
        await client.move(c)  # type: ignore[arg-type]
    await b.end(signal.SIGTERM)
    for client, times in ((ann, 3), (bob, 2)):
        assert (await welcomed(client, times))["recovered"]
    await bob.call("say", "still here")
    await all_received([*expected, ("bob", "still here", 2)], ann, bob)
    assert "Traceback" not in b.log() + c.log(), b.log() + c.log()


async def test_in_development(start: StartExample, clients: JsClients) -> None:
    """``socketio.run()``, ended by Ctrl+C."""
    a, b = await start("python app.py"), await start("python app.py")
    client = await clients.open(a, options=WEBSOCKET)  # type: ignore[arg-type]
    await client.call("login", "ann")
    await client.move(b)  # type: ignore[arg-type]
    await a.end(signal.SIGINT)
    state = await welcomed(client, 2)
    assert (state["recovered"], state["session"]) == (True, {"user": "ann", "said": 0})
    assert "Traceback" not in a.log(), a.log()


def test_the_page_about_it_has_its_settings_of_gunicorn() -> None:
    page, settings = (ROOT / "docs" / "flask.md").read_text(), (EXAMPLE / "gunicorn.conf.py").read_text()
    _, hooks = settings.split("\n\n\n", 1)
    assert hooks.startswith("def post_worker_init(worker):")
    for hook in (
        hooks.replace('    """A worker is ready to begin."""\n', "")
        .replace('    """A worker is about to end."""\n', "")
        .split("\n\n\n")
    ):
        assert hook in page
