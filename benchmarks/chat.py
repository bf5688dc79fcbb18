"""Measures what ``docs/chat.md`` reports: ``python -m benchmarks.chat [local|compose]``, or ``make numbers``.

Official JavaScript clients send chat messages all the time. Meanwhile a node is killed, 20 times; then the nodes are
restarted one by one. In the end, the messages that each client received are compared with those that were sent.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.support.chat_clients import BROWSER, messages, open_client, welcome
from tests.support.compose import Compose, build, engine
from tests.support.js_clients import JsClient, JsClients
from tests.support.supervisor import Supervisor
from tests.support.waiting import until

NODES = ("node-a", "node-b", "node-c")
#: The options with which the chat's page reconnects.
RECONNECT = {"reconnectionDelay": 150, "reconnectionDelayMax": 1500, "timeout": 5000}
#: Seconds between two messages of one client.
PAUSE = 0.1


class ChatCluster(Protocol):
    """A running cluster of the chat."""

    @property
    def url(self) -> str: ...
    async def up(self) -> None:
        """Starts the cluster, and waits until it is ready."""
        ...

    async def kill(self, node: str) -> float:
        """Kills a node with SIGKILL; returns the time, by :func:`time.monotonic`."""
        ...

    async def restart(self, node: str) -> None:
        """Stops a node in order; it is started again."""
        ...

    async def back(self, node: str, times: int) -> None:
        """Waits until a node has come back for the ``times``-th time."""
        ...

    async def down(self) -> None:
        """Stops the cluster."""
        ...


class LocalChat:
    """The chat on this machine: ``python -m chat``."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._supervisor = Supervisor(Path(self._folder.name) / "output")
        self.url = self._supervisor.url

    async def up(self) -> None:
        await self._supervisor.started()

    async def kill(self, node: str) -> float:
        pid = self._supervisor.pid(node)
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    async def restart(self, node: str) -> None:
        self._supervisor.signal(node, signal.SIGTERM)

    async def back(self, node: str, times: int) -> None:
        await until(lambda: self._supervisor.said().count(f"{node} is back") >= times, f"{node} is back", patience=60)

    async def down(self) -> None:
        self._supervisor.stop()
        self._folder.cleanup()


class ComposeChat:
    """The chat in containers: ``docker compose up``."""

    def __init__(self) -> None:
        if why := engine():
            raise SystemExit(f"compose can't be measured here: {why}")
        self._compose = Compose()
        self.url = self._compose.url

    async def up(self) -> None:
        await asyncio.to_thread(build, self._compose)
        await self._compose("up", "-d", "--no-build")
        await self._compose.ready()
        self._containers = {node: await self._compose.container(node) for node in NODES}

    async def _docker(self, *command: str) -> str:
        done = await asyncio.to_thread(subprocess.run, ["docker", *command], check=True, capture_output=True, text=True)
        return str(done.stdout).strip()

    async def kill(self, node: str) -> float:
        # Kill it from inside the container, which is like a crash, so that the restart policy starts it again.
        # `kill(-1)` spares PID 1, which is Docker's init.
        at = time.monotonic()
        await asyncio.to_thread(
            subprocess.run,
            ["docker", "exec", self._containers[node], "python", "-c", "import os; os.kill(-1, 9)"],
            capture_output=True,
        )
        return at

    async def restart(self, node: str) -> None:
        await self._docker("restart", "-t", "15", self._containers[node])

    async def back(self, node: str, times: int) -> None:
        async def healthy() -> bool:
            state = await self._docker("inspect", "-f", "{{.State.Health.Status}}", self._containers[node])
            return state == "healthy"

        await asyncio.sleep(2)  # until Docker has noticed that the node was gone
        await until(healthy, f"{node} is healthy", patience=60)

    async def down(self) -> None:
        await self._compose.down()


class Talk:
    """Clients that send messages all the time, each message again and again until the server has accepted it.

    :ivar sent: the texts of all messages.
    :ivar over: set to ``True`` to end the talk.
    """

    def __init__(self, clients: list[JsClient]) -> None:
        self.clients = clients
        self.sent: list[str] = []
        self.over = False

    async def run(self) -> None:
        await asyncio.gather(*(self._talk(client) for client in self.clients))

    async def _talk(self, client: JsClient) -> None:
        for i in itertools.count():
            if self.over:
                return
            text = f"{client.name} {i}"
            self.sent.append(text)
            while True:
                times = welcomes(client)
                try:
                    answer = await client.call("say", {"id": f"message-{i:08}", "room": "lobby", "text": text})
                except RuntimeError:  # The connection was lost. Do as the page does: wait for it, then send again.
                    await until(partial(welcomed_again, client, times), patience=60)
                    if text in texts(client)[-1000:]:
                        break
                    continue
                if "seq" in answer:
                    break
                assert "retry" in answer, answer
                await asyncio.sleep(answer["retry"] / 1000)
            await asyncio.sleep(PAUSE)


async def measure(where: str, count: int, kills: int) -> str:
    """Runs the whole measurement and returns its report.

    :param where: "local" or "compose".
    :param count: how many clients.
    :param kills: how often to kill a node.
    """
    cluster: ChatCluster = ComposeChat() if where == "compose" else LocalChat()
    clients = await JsClients().start()
    returned: Counter[str] = Counter()
    try:
        await cluster.up()
        options = {**BROWSER, **RECONNECT}
        who = [
            await open_client(clients, cluster, options=options, auth={"name": f"n{i}", "client": f"{i:016}"})
            for i in range(count)
        ]
        talk = Talk(who)
        talking = asyncio.create_task(talk.run())
        took: list[float] = []
        for kill in range(kills):
            await asyncio.sleep(1)
            victim = Counter(welcome(client)["node"] for client in who).most_common(1)[0][0]
            hit = [client for client in who if welcome(client)["node"] == victim]
            before = {client.name: welcomes(client) for client in hit}
            at = await cluster.kill(victim)
            for client in hit:
                await until(partial(welcomed_again, client, before[client.name]), patience=60)
                assert welcome(client)["recovered"], welcome(client)["reason"]
            took.append(time.monotonic() - at)
            print(f"kill {kill + 1}: {victim}, {len(hit)} clients, {took[-1] * 1000:.0f} ms", file=sys.stderr)
            returned[victim] += 1
            await cluster.back(victim, returned[victim])
        for node in NODES:
            await cluster.restart(node)
            returned[node] += 1
            await cluster.back(node, returned[node])
            print(f"restarted: {node}", file=sys.stderr)
        talk.over = True
        await talking
        await until(lambda: all(len(set(texts(client))) >= len(talk.sent) for client in who), patience=20)
        return report(where, talk, who, took)
    finally:
        await clients.stop()
        await cluster.down()


def welcomes(client: JsClient) -> int:
    """How often the chat has welcomed a client."""
    return sum(event[0] == "welcome" for event in client.events())


def welcomed_again(client: JsClient, before: int) -> bool:
    return welcomes(client) > before


def texts(client: JsClient) -> list[str]:
    return [message["text"] for message in messages(client)]


def report(where: str, talk: Talk, who: list[JsClient], took: list[float]) -> str:
    """Returns a table. What was seen, lost and doubled is counted from the events that each client received."""
    seen = [texts(client) for client in who]
    orders = {tuple(order) for order in seen}
    recoveries = sum(
        1 for client in who for event in client.events() if event[0] == "welcome" and event[1]["recovered"]
    )
    fresh = sum(1 for client in who for event in client.events() if event[0] == "welcome" and not event[1]["recovered"])
    rows: list[tuple[str, Any]] = [
        ("messages sent", len(talk.sent)),
        (f"messages to be seen, by {len(who)} clients", len(talk.sent) * len(who)),
        ("seen", sum(len(set(order)) for order in seen)),
        ("lost", sum(len(set(talk.sent) - set(order)) for order in seen)),
        ("doubled", sum(len(order) - len(set(order)) for order in seen)),
        ("different orders among the clients", len(orders) - 1),
        ("nodes killed, restarted", f"{len(took)}, {len(NODES)}"),
        ("sessions recovered, begun anew", f"{recoveries}, {fresh - len(who)}"),
        ("from kill to recovered, median", f"{statistics.median(took) * 1000:.0f} ms"),
        (f"from kill to recovered, worst of {len(took)}", f"{max(took) * 1000:.0f} ms"),
    ]
    lines = [f"| {where}, Python {platform.python_version()}, {os.cpu_count()} cores | |", "|---|---:|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("where", nargs="?", default="local", choices=["local", "compose"])
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    print(asyncio.run(measure(options.where, options.clients, options.kills)))


if __name__ == "__main__":
    main()
