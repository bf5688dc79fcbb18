"""Starts ``python -m chat`` in its own process, and controls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from local.ports import free_port
from local.processes import running_processes

from .paths import ROOT
from .waiting import until


class Supervisor:
    """A process of ``python -m chat``: the local cluster of the chat.

    :param output: the file for what it prints.
    :param arguments: command-line arguments. The port is chosen here.
    """

    def __init__(self, output: Path, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chat", "--port", str(self.port), "--restart-after", "1", *arguments],
                cwd=ROOT,
                env={k: v for k, v in os.environ.items() if k != "REDIS_URL"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """Returns everything that the process has printed so far."""
        return self.output.read_text(errors="replace")

    async def line(self, part: str) -> str:
        """Waits until the process prints a line that contains ``part``, and returns the line."""

        def find() -> str | None:
            return next((line for line in self.said().splitlines() if part in line), None)

        def alive_or_found() -> str | None:
            found = find()
            assert found or self.process.poll() is None, f"it ended:\n{self.said()}"
            return found

        return str(await until(alive_or_found, lambda: f"{part!r} in:\n{self.said()}", patience=40))

    async def started(self) -> None:
        """Waits until the chat can be reached."""
        await self.line(f"The chat is at http://localhost:{self.port}/")

    def descendants(self) -> dict[int, str]:
        """Returns the processes of the cluster: process id -> command line."""
        found = {self.process.pid: "supervisor"}
        running = dict(running_processes())
        while new := {pid: command for pid, (parent, command) in running.items() if parent in found} | found:
            if new == found:
                break
            found = new
        del found[self.process.pid]
        return found

    def pid(self, what: str) -> int:
        """Returns the process id of a node, by the node's name, or of ``"redis"`` or ``"caddy"``."""
        for pid, command in self.descendants().items():
            if what in ("redis", "caddy"):
                if (what == "caddy") == ("caddy" in command) and ("-server" in command or "caddy" in command):
                    return pid
                continue
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue  # the process ended after it was listed
            if f"NODE_NAME={what}".encode() in environ:
                return pid
        raise AssertionError(f"no process for {what}")

    def signal(self, what: str, how: signal.Signals) -> None:
        """Sends a signal to a process, which :meth:`pid` finds."""
        os.kill(self.pid(what), how)

    def stop(self) -> None:
        """Stops the cluster, also if it does not react. For the end of a test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
