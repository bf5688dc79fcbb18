"""Runs ``examples/flask`` by the commands of its README."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from local.ports import free_port
from local.processes import die_with_parent, running_processes
from tests.support.paths import ROOT
from tests.support.waiting import until

EXAMPLE = ROOT / "examples" / "flask"


def command(program: str) -> tuple[dict[str, str], list[str]]:
    """Finds the command of the README that begins with a program, or with a setting and a program.

    :returns: the settings, and the arguments.
    """
    blocks = re.findall(r"^```console\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.M | re.S)
    line = next(line for block in blocks for line in block.splitlines() if line.startswith(program))
    words = shlex.split(line)
    settings = dict(word.split("=") for word in words if re.match("[A-Z_]+=", word))
    return settings, words[len(settings) :]


def _begin() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # else a shell that runs the tests in the background has it ignored


class ExampleNode:
    """A node of the example.

    :param program: how its command begins.
    :param redis: URL of the Redis server.
    :param folder: for the log.
    """

    def __init__(self, program: str, redis: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"{self.port}.log"
        if program.startswith("python"):
            settings, words = {"PORT": str(self.port)}, program.split()
        else:
            settings, words = command(program)
        self.command = [word.replace(":8000", f":{self.port}") for word in words]
        self.settings = {**settings, "REDIS_URL": redis}
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> ExampleNode:
        """Starts it, and waits until it is ready."""
        module = ["-m"] if self.command[0] != "python" else []
        arguments = self.command if module else self.command[1:]
        paths = [str(ROOT / "adapter"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *module, *arguments],
                cwd=EXAMPLE,
                env={**os.environ, **self.settings, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                preexec_fn=_begin,
                stdout=log,
                stderr=log,
            )
        await until(self.ready, lambda: f"{self.command} is ready:\n{self.log()}")
        return self

    async def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            async with aiohttp.ClientSession() as http, http.get(self.url + "/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    def log(self) -> str:
        """Returns everything that its processes have logged so far."""
        return self.log_file.read_text(errors="replace")

    def kill(self) -> None:
        """Kills all its processes."""
        if self.process is not None and self.process.poll() is None:
            mine = {pid for pid, (parent, _) in running_processes() if parent == self.process.pid}
            for pid in (self.process.pid, *mine):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    async def end(self, how: signal.Signals) -> None:
        """Asks it to end, by a signal, and waits until it has."""
        assert self.process is not None
        self.process.send_signal(how)
        await until(lambda: self.process is None or self.process.poll() is not None, self.log)
