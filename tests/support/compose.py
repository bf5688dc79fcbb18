"""Runs the chat by ``docker compose``, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from typing import Any

import aiohttp

from local.ports import free_port

from .paths import ROOT
from .waiting import until

COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "chat" / "Dockerfile"
#: How many seconds one command may take: it may have to fetch an image.
COMMAND_WITHIN = 300


def run_command(
    *command: str, check: bool = True, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder of the project.

    :param check: whether a status other than 0 is an error.
    """
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environ or {})}, capture_output=True, text=True, timeout=COMMAND_WITHIN
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return done


def compose_command() -> list[str] | None:
    """Returns the command of Compose: v2, or else 1.29; ``None`` if there is neither."""
    if run_command("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def engine() -> str | None:
    """Returns the reason why ``docker compose`` can't run here; ``None`` if it can."""
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
        known = run_command("docker", "image", "inspect", image, check=False).returncode == 0
        if not known and run_command("docker", "pull", "-q", image, check=False).returncode:
            return f"the image {image} can't be had"
    return None


class Compose:
    """One run of the compose file, with its own project name, image name and port."""

    def __init__(self) -> None:
        self.name = f"socketio-recovery-test-{os.getpid()}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {"PORT": str(self.port), "IMAGE": self.name, "DEMO": "1"}
        self.command = compose_command() or []

    async def __call__(self, *arguments: str) -> str:
        """Runs a command of Compose for this project, and returns its output."""
        command = (*self.command, "-p", self.name, *arguments)
        return (await asyncio.to_thread(run_command, *command, environ=self.environ)).stdout

    async def container(self, service: str) -> str:
        """Returns the id of a service's container."""
        return (await self("ps", "-q", service)).strip()

    async def inspect(self, service: str) -> dict[str, Any]:
        """Returns what Docker says about a service's container."""
        found: list[dict[str, Any]] = json.loads(run_command("docker", "inspect", await self.container(service)).stdout)
        return found[0]

    async def ready(self) -> None:
        """Waits until the load balancer reaches a node that is ready."""

        async def answers() -> bool:
            try:
                async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz") as response:
                    return response.status == 200
            except (aiohttp.ClientError, OSError):
                return False

        await until(answers, "the load balancer has a node that is ready", patience=60)

    async def down(self) -> None:
        """Stops everything, and removes containers, volumes and the image."""
        await self("down", "-v", "--timeout", "5")
        run_command("docker", "image", "rm", self.name, check=False)


def build(compose: Compose) -> None:
    """Builds the image, under the name of this run."""
    # On some machines only the network of the host reaches package registries.
    run_command("docker", "build", "-q", "--network", "host", "-t", compose.name, "-f", str(DOCKERFILE), ".")
