"""Starts and controls node processes, and looks into them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from local.ports import free_port
from local.processes import die_with_parent

from .forked import Forked
from .paths import ROOT
from .waiting import PATIENCE, until

#: Options of the managers of nodes under test. With the defaults, a node whose Redis is off the processor for 2.5 s
#: says so in its log, where tests look for warnings.
WAITS_FOR_REDIS = {"publish_timeout": PATIENCE / 2, "handshake_timeout": PATIENCE / 2}
THREADS = "tests.support.thread_node_program"
#: The programs of synchronous nodes. Tests control them on the port of the clients.
PROGRAMS = {
    "threading": THREADS,
    "gevent": THREADS,
    "flask-threading": "tests.support.flask_node_program",
    "flask-gevent": "tests.support.flask_node_program",
}


class Started(subprocess.Popen[bytes]):
    """A process that runs a program from its beginning.

    :param log: the file to which it writes its standard output and error.
    """

    def __init__(self, program: str, config: dict[str, Any], log: Path) -> None:
        with log.open("ab") as output:
            super().__init__(
                [sys.executable, "-m", program, json.dumps(config)],
                cwd=ROOT,
                preexec_fn=die_with_parent,
                stdout=output,
                stderr=output,
            )


class NodeProcess:
    """One node of a cluster under test, in its own process: :mod:`tests.support.node_program`.

    :param name: the node's name, which its log lines begin with.
    :param redis: URL of the Redis server.
    :param config: further configuration of the program, for example ``manager`` and ``server`` options, and
        ``server_kind``.
    """

    def __init__(self, name: str, redis: str, **config: Any) -> None:
        self.name = name
        self.port = free_port()
        #: Where its clients connect.
        self.url = f"http://127.0.0.1:{self.port}"
        self.program = PROGRAMS.get(str(config.get("server_kind")))
        control = self.port if self.program else free_port()
        #: Where tests control it.
        self.control = f"http://127.0.0.1:{control}"
        self.config = {
            "node": name,
            "port": self.port,
            "control": control,
            "redis": redis,
            **config,
        }
        self.process: Forked | Started | None = None
        self.log_file = Path(os.environ.get("TMPDIR", "/tmp")) / f"socketio-recovery-{os.getpid()}-{self.port}.log"

    async def start(self) -> NodeProcess:
        """Starts the process, also after :meth:`kill`, and waits until it answers."""
        if self.program is None or self.config["server_kind"] == "threading":
            program = self.program or "tests.support.node_program"
            self.process = Forked(program, "run", self.config, log=self.log_file)
        else:  # it patches the standard library, or has an application of its own
            self.process = Started(self.program, self.config, log=self.log_file)
        await until(self._up, lambda: f"node {self.name} is up:\n{self.log()}")
        return self

    async def _up(self) -> bool:
        if not self.running:
            raise AssertionError(f"node {self.name} ended:\n{self.log()}")
        try:
            await self.look()
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except (aiohttp.ClientError, OSError):
            return False
        writer.close()
        return True

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """Returns everything that the process has logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def kill(self) -> None:
        """Ends the process at once, by SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks the process to end in order, by SIGTERM, and waits until it has ended."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"node {self.name} did not stop on {how.name}:\n{self.log()}") from None
            finally:
                self.process = None

    def stop(self) -> None:
        """Kills the process and removes its log file."""
        self.kill()
        self.log_file.unlink(missing_ok=True)

    async def look(self) -> dict[str, Any]:
        """Returns what this node's handlers have seen, its recovery outcomes, its health and its tasks."""
        async with aiohttp.ClientSession() as http, http.get(self.control + "/look") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def reset(self) -> None:
        """Makes the node forget what its handlers have seen and which answers it got, for the next test."""
        async with aiohttp.ClientSession() as http, http.post(self.control + "/reset") as response:
            response.raise_for_status()

    async def do(self, *calls: Sequence[Any], on: str = "sio") -> list[Any]:
        """Calls methods of the node's server one after the other, and returns their results.

        :param calls: each has a method, arguments and keyword arguments:
            ``("emit", ["event", data], {"to": room})``. Arguments may be omitted.
        :param on: ``"sio"`` for the server, ``"manager"`` for its manager.
        :raises RuntimeError: if one of the calls raised an error in the node.
        """
        full = [[c[0], c[1] if len(c) > 1 else [], c[2] if len(c) > 2 else {}] for c in calls]
        async with aiohttp.ClientSession() as http:
            async with http.post(self.control + "/do", json={"on": on, "calls": full}) as response:
                results = await response.json()
        for result in results:
            if "error" in result:
                raise RuntimeError(result["error"])
        return [result["result"] for result in results]

    async def emit(self, event: str, *data: Any, **kwargs: Any) -> None:
        """Emits an event from this node."""
        await self.do(("emit", [event, *data], kwargs))


#: The type of the fixture ``start_node``: starts a node of the test's cluster.
StartNode = Callable[..., Awaitable[NodeProcess]]
#: The type of the fixture ``pair``: two nodes of one cluster.
NodePair = tuple[NodeProcess, NodeProcess]


def quiet(node: NodeProcess) -> None:
    """Asserts that the node has logged nothing but lines of the level INFO."""
    noise = [line for line in node.log().splitlines() if f"{node.name} INFO " not in line]
    assert not noise, "\n".join(noise)


async def no_clients(node: NodeProcess) -> bool:
    """Tells whether no client is connected to the node, in any namespace."""
    return (await node.do(("get_namespaces",), on="manager"))[0] in ([], {})
