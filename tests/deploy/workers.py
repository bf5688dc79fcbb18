"""Runs the example for uvicorn and gunicorn of ``docs/deploying.md``: several workers behind one port."""

from __future__ import annotations

import json
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

from .page import blocks, replaced

SECTION = "uvicorn and gunicorn"
#: What the example's handlers would be: the client asks which worker it is connected to.
HANDLERS = """
import os

@sio.event
async def state(sid):
    return {"process": os.getpid(), "recovered": manager.recovered(sid)}
"""


class Workers:
    """Two workers of one program behind one port.

    :param program: ``"uvicorn"`` or ``"gunicorn"``, and options beside those of the page.
    :param redis: URL of the Redis server.
    :param channel: the name of the cluster.
    :param folder: for the files.
    """

    def __init__(self, program: str, redis: str, channel: str, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (text,) = blocks(SECTION, "python")
        manager = f"{json.dumps(redis)}, channel={json.dumps(channel)}"
        text = replaced(text, {'"redis://localhost:6379/0"': manager, "app = ": HANDLERS + "\n\napp = "})
        (folder / "main.py").write_text(text)
        (commands,) = blocks(SECTION, "console")
        program, *options = program.split()
        line = next(line for line in commands.splitlines() if line.startswith(program + " "))
        line = replaced(line, {"8000": str(self.port), "--workers 4": "--workers 2"})
        self.command = [*shlex.split(line), *options]
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> Workers:
        """Starts the process, and waits until a worker answers."""
        paths = [str(ROOT / "adapter"), str(self.folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
                stdout=log,
                stderr=log,
            )
        await until(self._up, lambda: f"{self.command} is up:\n{self.log()}")
        return self

    async def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        if len(re.findall("Application startup complete", self.log())) < 2:
            return False
        try:
            async with aiohttp.ClientSession() as http, http.get(self.url + "/socket.io/") as response:
                return response.status == 400  # no WebSocket
        except (aiohttp.ClientError, OSError):
            return False

    def log(self) -> str:
        """Returns everything that the processes have logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    async def terminate(self) -> None:
        """Asks the processes to end in order, by SIGTERM, and waits until they have."""
        assert self.process is not None
        self.process.terminate()
        await until(lambda: self.process is None or self.process.poll() is not None, self.log)
        assert "Traceback" not in self.log(), self.log()

    def stop(self) -> None:
        """Kills all processes."""
        if self.process is not None and self.process.poll() is None:
            mine = {pid for pid, (parent, _) in running_processes() if parent == self.process.pid}
            for pid in (self.process.pid, *mine):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
