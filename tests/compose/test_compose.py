"""``docker compose up``, for real: build, up, talk, kill a node, recover, kill Redis and bring it back, down.

Only where a Docker engine answers and the base images can be had. The project's name, the image's and the port are
this run's own, so that it meets no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.support.chat_clients import BROWSER, elsewhere, has, open_client, people, say, texts, welcomed
from tests.support.compose import Compose, build, engine, run_command
from tests.support.js_clients import WEBSOCKET, JsClients
from tests.support.waiting import until


@pytest.fixture
async def compose() -> AsyncIterator[Compose]:
    if why := await asyncio.to_thread(engine):
        pytest.skip(f"the compose run was skipped: {why}")
    compose = Compose()
    await asyncio.to_thread(build, compose)
    try:
        await compose("up", "-d", "--no-build")
        await compose.ready()
        yield compose
    finally:
        await compose.down()
    left = run_command("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={compose.name}").stdout
    volumes = run_command(
        "docker", "volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={compose.name}"
    ).stdout
    assert (left, volumes) == ("", "")


async def test_the_whole_run(compose: Compose, clients: JsClients) -> None:
    ann = await open_client(clients, compose, options=BROWSER, auth={"name": "ann", "client": "a" * 16})
    first = (await welcomed(ann, 1))["node"]
    bob = await elsewhere(clients, compose, first)
    sids = [client.connects()[0]["sid"] for client in (ann, bob)]
    said = ["hello"]
    assert "seq" in await say(ann, "hello")
    await until(lambda: has(bob, "hello"), lambda: bob.reports)

    # A node is killed from outside.
    await compose("kill", first)
    await until(lambda: ann.of("disconnect"), lambda: ann.reports)
    for i in range(3):
        said.append(f"while node is away {i}")
        assert "seq" in await say(bob, said[-1])
    back = await ann.connected(2)
    assert (back["sid"], back["recovered"]) == (sids[0], True)
    assert (await welcomed(ann, 2))["node"] != first
    await compose("start", first)

    # A node is killed from the page: its container comes back by itself.
    second = (await welcomed(bob, 1))["node"]
    count = len(bob.connects())
    await bob.run("emit", event="kill")
    back = await bob.connected(count + 1)
    assert (back["sid"], back["recovered"]) == (sids[1], True)

    async def again() -> bool:
        found = await compose.inspect(second)
        return found["RestartCount"] > 0 and bool(found["State"]["Running"])

    await until(again, f"{second} runs again", patience=30)
    said.append("after two kills")
    assert "seq" in await say(bob, said[-1])

    # Redis is killed, and comes back with what it had taken.
    await compose("kill", "redis")
    await compose("start", "redis")

    async def taken() -> bool:  # asked with the same id until it is
        message = {"id": "redis-is-back", "room": "lobby", "text": "Redis is back"}
        return "seq" in await ann.call("say", message)

    await until(taken, "a message is taken", patience=60)
    said.append("Redis is back")
    late = await open_client(clients, compose, options=WEBSOCKET, auth={"name": "eve"})
    history = (await welcomed(late, 1))["histories"]["lobby"]["messages"]
    for client in (ann, bob):
        await until(partial(has, client, said[-1]), lambda: (ann.reports, bob.reports))
        assert texts(client) == said
        assert client.connects()[-1]["recovered"] is True
        assert client.connects()[-1]["sid"] in sids
    assert [message["text"] for message in history] == said
    all_here = dict.fromkeys(("ann", "bob", "eve"), "here")
    await until(lambda: {name: state for name, (_, state) in people(late).items()} == all_here, lambda: people(late))

    # As small and as harmless as promised.
    node = await compose.inspect("node-c")
    assert node["Config"]["User"] == "chat"
    assert node["HostConfig"]["Init"] is True
