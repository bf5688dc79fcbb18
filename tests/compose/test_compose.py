"""``docker compose up``, for real: build, up, talk, kill a node, recover, kill Redis and bring it back, down.

Only where a Docker engine answers and the base images can be had. The project's name, the image's and the port are
this run's own, so that it meets no other.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import pytest

from local.ports import free_port
from tests.support.chat import BROWSER, WEBSOCKET, elsewhere, has, open_client, people, say, texts, welcomed
from tests.support.cluster import ROOT, Clients, until

COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "chat" / "Dockerfile"
#: Seconds for one command: an image may be fetched.
COMMAND_WITHIN = 300


def run(*command: str, check: bool = True, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environ or {})}, capture_output=True, text=True, timeout=COMMAND_WITHIN
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return done


def compose_command() -> list[str] | None:
    """Compose v2, else 1.29."""
    if run("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def engine() -> str | None:
    """Why this can't run here; ``None`` if it can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    try:
        if subprocess.run(["docker", "version"], capture_output=True, timeout=15).returncode:
            return "no Docker engine answers"
    except subprocess.TimeoutExpired:
        return "no Docker engine answers"
    if compose_command() is None:
        return "there is no docker compose"
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.M)
    images = re.findall(r"^ +image: ([a-z]+:\S+)", COMPOSE_FILE.read_text(), re.M)
    for image in sorted({*bases, *images}):
        known = run("docker", "image", "inspect", image, check=False).returncode == 0
        if not known and run("docker", "pull", "-q", image, check=False).returncode:
            return f"the image {image} can't be had"
    return None


class Compose:
    """A run of the compose file."""

    def __init__(self) -> None:
        self.name = f"socketio-recovery-test-{os.getpid()}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {"PORT": str(self.port), "IMAGE": self.name, "DEMO": "1"}
        self.command = compose_command() or []

    async def __call__(self, *arguments: str) -> str:
        command = (*self.command, "-p", self.name, *arguments)
        return (await asyncio.to_thread(run, *command, environ=self.environ)).stdout

    async def container(self, service: str) -> str:
        return (await self("ps", "-q", service)).strip()

    async def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", await self.container(service)).stdout)
        return found[0]

    async def ready(self) -> None:
        async def answers() -> bool:
            try:
                async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz") as response:
                    return response.status == 200
            except (aiohttp.ClientError, OSError):
                return False

        await until(answers, "the load balancer has a node that is ready", patience=60)

    async def down(self) -> None:
        await self("down", "-v", "--timeout", "5")
        run("docker", "image", "rm", self.name, check=False)


def build(compose: Compose) -> None:
    """Builds the image of this run's own name."""
    # The network of the host: some machines reach package registries from nowhere else.
    run("docker", "build", "-q", "--network", "host", "-t", compose.name, "-f", str(DOCKERFILE), ".")


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
    left = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={compose.name}").stdout
    volumes = run("docker", "volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={compose.name}").stdout
    assert (left, volumes) == ("", "")


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    running = await Clients().start()
    yield running
    await running.stop()


async def test_the_whole_run(compose: Compose, clients: Clients) -> None:
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
    await until(lambda: set(people(late)) == {"ann", "bob", "eve"}, lambda: people(late))

    # As small and as harmless as promised.
    node = await compose.inspect("node-c")
    assert node["Config"]["User"] == "chat"
    assert node["HostConfig"]["Init"] is True
