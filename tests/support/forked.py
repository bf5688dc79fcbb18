"""Processes that begin with everything imported, so that a test need not wait for that each time.

A process of its own imports the programs once (multiprocessing's fork server). Each new process is forked from that
one, and then runs a program as any other process does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from local.processes import die_with_parent

from .paths import ROOT

#: What the fork server imports: the programs, and what they import only when they run.
PRELOADED = (
    "tests.support.node_program",
    "tests.support.thread_node_program",
    "simple_websocket",
    "werkzeug.serving",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
    "hypercorn.asyncio",
    "tornado.websocket",
)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


class Forked:
    """A process that calls ``function(*arguments)`` of a module. It has the methods of :class:`subprocess.Popen`.

    :param log: the file to which it writes its standard output and error.
    """

    def __init__(self, module: str, function: str, *arguments: Any, log: Path) -> None:
        self._process = _context.Process(target=_run, args=(module, function, arguments, str(log)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status; ``None`` while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended.

        :raises subprocess.TimeoutExpired: if that takes longer than ``timeout`` seconds.
        """
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status


def _run(module: str, function: str, arguments: tuple[Any, ...], log: str) -> None:
    # The fork server ends when nobody has its end of this pipe any more. That shall be when the process ends that uses
    # it, however that ends; and this one ends with the fork server.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    die_with_parent()
    os.chdir(ROOT)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for output in (1, 2):
        os.dup2(file, output)
    os.close(file)
    getattr(import_module(module), function)(*arguments)
