"""Runs programs that serve clients, as an operator would: a command in a folder, which signals end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from local.ports import free_port
from local.processes import die_with_parent, running_processes
from tests.support.paths import ROOT
from tests.support.waiting import until


class Program:
    """A program in its own process, with the processes that it starts.

    :param folder: where it runs.
    :param log: the file to which it writes.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.log_file = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, command: Sequence[str], **environ: str) -> None:
        """Starts ``python`` with these arguments, and waits until it serves clients."""
        paths = [str(ROOT / "adapter"), str(self.folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environ},
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
                stdout=log,
                stderr=log,
            )
        await until(self._up, lambda: f"{command} is up:\n{self.log()}")

    async def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.all_started() and await self.status("/socket.io/?EIO=4&transport=websocket") == 400  # no WebSocket

    def all_started(self) -> bool:
        """Whether all processes serve clients. Without this, one that answers is enough."""
        return True

    async def status(self, path: str) -> int | None:
        """The status of the answer to a request; ``None`` if there is no answer."""
        try:
            async with aiohttp.ClientSession() as http, http.get(self.url + path) as response:
                return response.status
        except (aiohttp.ClientError, OSError):
            return None

    def log(self) -> str:
        """Returns everything that the processes have logged so far."""
        return self.log_file.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> None:
        """Waits until the program has ended, in order."""
        await until(lambda: self.process is None or self.process.poll() is not None, self.log)
        assert "Traceback" not in self.log(), self.log()

    async def terminate(self) -> None:
        """Asks the processes to end in order, by SIGTERM, and waits until they have."""
        self.signal(signal.SIGTERM)
        await self.ended()

    def stop(self) -> None:
        """Kills all processes."""
        if self.process is not None and self.process.poll() is None:
            mine = {pid for pid, (parent, _) in running_processes() if parent == self.process.pid}
            for pid in (self.process.pid, *mine):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
