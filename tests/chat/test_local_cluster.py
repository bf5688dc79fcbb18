"""``python -m chat``, for real: the cluster starts, heals and stops; clients keep their session through Caddy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chat import CLIENT_FILE, CLIENT_JS
from chat.redis_server import free_port
from tests.support.cluster import ROOT, Client, Clients, until

#: What a browser does: polling first, then an upgrade; the cookie keeps it on one node.
BROWSER = {"withCredentials": True}
POLLING = {"withCredentials": True, "transports": ["polling"]}
WEBSOCKET = {"transports": ["websocket"]}

pytestmark = pytest.mark.skipif(
    not (CLIENT_JS / CLIENT_FILE).exists(), reason="socket.io-client is not installed: make chat/node_modules/ready"
)


class Supervisor:
    """``python -m chat``, in a process of its own."""

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
        return self.output.read_text(errors="replace")

    async def line(self, part: str) -> str:
        """Waits for a line that has ``part`` in it."""

        def find() -> str | None:
            return next((line for line in self.said().splitlines() if part in line), None)

        def alive_or_found() -> str | None:
            found = find()
            assert found or self.process.poll() is None, f"it ended:\n{self.said()}"
            return found

        return str(await until(alive_or_found, lambda: f"{part!r} in:\n{self.said()}", patience=40))

    async def started(self) -> None:
        await self.line(f"The chat is at http://localhost:{self.port}/")

    def descendants(self) -> dict[int, str]:
        """The processes of the cluster: pid and command line."""
        found = {self.process.pid: "supervisor"}
        running = dict(processes())
        while new := {pid: command for pid, (parent, command) in running.items() if parent in found} | found:
            if new == found:
                break
            found = new
        del found[self.process.pid]
        return found

    def stop(self) -> None:
        """For the end of a test, whatever its outcome."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """All processes that run: (pid, (parent's pid, command line)); zombies too."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        yield int(folder.name), (int(stat.rpartition(")")[2].split()[1]), command)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def run(*arguments: str) -> Supervisor:
        started.append(Supervisor(tmp_path / f"output-{len(started)}", *arguments))
        return started[-1]

    yield run
    for supervisor in started:
        supervisor.stop()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    running = await Clients().start()
    yield running
    await running.stop()


async def open_client(clients: Clients, cluster: Any, **arguments: Any) -> Client:
    """A client of the load balancer, which has a URL as a node has."""
    return await clients.open(cluster, **arguments)


def texts(client: Client) -> list[str]:
    return [event[1]["text"] for event in client.events() if event[0] == "message"]


def has(client: Client, text: str) -> bool:
    return text in texts(client)


async def elsewhere(clients: Clients, cluster: Supervisor, node: str) -> Client:
    """A client that is on another node than ``node``; the first one may not be."""
    for _ in range(20):
        client = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "bob"})
        if (await client.call("hello"))["node"] != node:
            return client
        await client.run("shut")
    raise AssertionError(f"all clients come to {node}")


@pytest.mark.parametrize("options", [BROWSER, POLLING, WEBSOCKET], ids=["browser", "polling", "websocket"])
async def test_a_killed_node_costs_nothing(
    start: Callable[..., Supervisor], clients: Clients, options: dict[str, Any]
) -> None:
    cluster = start()
    await cluster.started()
    ann = await open_client(clients, cluster, options=options, auth={"name": "ann"})
    hello = await ann.call("hello")
    assert (hello["name"], hello["recovered"], hello["reason"]) == ("ann", False, "new")
    bob = await elsewhere(clients, cluster, hello["node"])

    sent = [await bob.call("say", "before")]
    await until(lambda: texts(ann) == ["before"], lambda: ann.reports)
    await ann.run("emit", event="kill")
    await until(lambda: ann.of("disconnect"), lambda: ann.reports)
    sent.append(await bob.call("say", "meanwhile"))

    back = await ann.connected(2)
    assert (back["sid"], back["recovered"]) == (hello["sid"], True)
    again = await ann.call("hello")
    assert again["recovered"] is True
    assert again["node"] != hello["node"]
    assert again["name"] == "ann"
    sent.append(await ann.call("say", "after"))
    for client in (ann, bob):
        await until(partial(has, client, "after"), lambda: (ann.reports, bob.reports))
        assert texts(client) == ["before", "meanwhile", "after"]
        assert [event[1]["id"] for event in client.events()] == [answer["id"] for answer in sent]
    assert [event[1]["name"] for event in ann.events()] == ["bob", "bob", "ann"]

    await cluster.line(f"{hello['node']} was killed (SIGKILL); starting it again in 1 s")
    await cluster.line(f"{hello['node']} is back")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
async def test_it_stops_and_leaves_nothing(
    start: Callable[..., Supervisor], clients: Clients, how: signal.Signals
) -> None:
    cluster = start()
    await cluster.started()
    for options in (BROWSER, POLLING, WEBSOCKET):
        await open_client(clients, cluster, options=options)
    children = cluster.descendants()
    assert len(children) >= 5, children  # Redis, three nodes, Caddy

    cluster.process.send_signal(how)
    assert cluster.process.wait(10) == 0
    await until(lambda: not children.keys() & dict(processes()).keys(), lambda: f"all gone: {children}", patience=1)
    assert cluster.said().splitlines()[-1] == "stopped"
    assert "Traceback" not in cluster.said()


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
async def test_nothing_outlives_a_killed_supervisor(start: Callable[..., Supervisor]) -> None:
    cluster = start("--nodes", "1")
    await cluster.started()
    children = cluster.descendants()
    assert len(children) >= 3, children
    cluster.process.kill()
    cluster.process.wait()

    # Whoever adopts orphans may be slow to bury them: a zombie, without a command line, runs no more.
    def left() -> list[str]:
        return [command for pid, (_, command) in processes() if pid in children and command]

    await until(lambda: not left(), left)


async def test_it_stops_while_it_starts(start: Callable[..., Supervisor]) -> None:
    cluster = start()
    await cluster.line("Redis: ")
    children = cluster.descendants()
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(10) == 0
    assert not children.keys() & dict(processes()).keys()
    assert "Traceback" not in cluster.said()


async def test_redis_and_caddy_are_started_again(start: Callable[..., Supervisor], clients: Clients) -> None:
    cluster = start("--nodes", "2")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann"})
    sid = ann.connects()[0]["sid"]
    children = cluster.descendants()

    os.kill(next(pid for pid, command in children.items() if "caddy" in command), signal.SIGKILL)
    await cluster.line("caddy is back")
    assert (await ann.connected(2))["sid"] == sid

    os.kill(next(pid for pid, command in children.items() if "-server" in command), signal.SIGKILL)
    await cluster.line("redis is back")
    fresh = await ann.connected(3)
    assert fresh["recovered"] is False
    assert fresh["sid"] != sid
    answer = await ann.call("say", "hello again")
    await until(lambda: texts(ann) == ["hello again"], lambda: (answer, ann.reports))


async def test_the_page_and_what_clients_may_send(start: Callable[..., Supervisor], clients: Clients) -> None:
    cluster = start("--nodes", "1")
    await cluster.started()
    async with aiohttp.ClientSession(cluster.url) as http:
        for path, kind in (("/", "text/html"), ("/style.css", "text/css"), ("/main.js", "javascript")):
            async with http.get(path) as response:
                assert response.status == 200
                assert kind in response.content_type
                assert (await response.read()) == (ROOT / "chat/web" / (path[1:] or "index.html")).read_bytes()
        async with http.get("/socket.io.js") as response:
            assert (await response.read()) == (CLIENT_JS / CLIENT_FILE).read_bytes()
        for path in ("/healthz", "/readyz"):
            async with http.get(path) as response:
                assert response.status == 200
        async with http.get("/package.json") as response:
            assert response.status == 404

    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": ["not", "a", "name"]})
    hello = await ann.call("hello", "more", {"than": "asked"})
    assert hello["name"] == f"Guest {hello['sid'][:4]}"
    for bad, problem in (
        ([], "the message must be a text"),
        ([None], "the message must be a text"),
        ([{"text": "x"}], "the message must be a text"),
        (["  \n "], "the message is empty"),
        (["x" * 1001], "the message is longer than 1000 characters"),
    ):
        assert await ann.call("say", *bad) == {"error": problem}
    assert await ann.call("rename", "y" * 41) == {"error": "the name is longer than 40 characters"}
    assert await ann.call("rename", "  Ann\tB. ") == {"name": "Ann B."}
    for odd in ("  <b>text</b>  ", "\ud800", "x" * 1000):
        assert set(await ann.call("say", odd, "more")) == {"id"}
    await until(lambda: len(texts(ann)) == 3, lambda: ann.reports)
    assert texts(ann)[0] == "<b>text</b>"
    assert {event[1]["name"] for event in ann.events()} == {"Ann B."}


def refused(*arguments: str, **environ: str) -> str:
    """What it says when it can't run: one line."""
    done = subprocess.run(
        [sys.executable, "-m", "chat", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    line, end = done.stderr.split("\n")
    assert end == ""
    return line


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("--port", str(port))
    assert line == f"chat: can't listen on 127.0.0.1 port {port}: Address already in use; choose another with --port"


def test_a_host_that_is_none() -> None:
    assert refused("--host", "192.0.2.1", "--port", str(free_port())).startswith("chat: can't listen on 192.0.2.1")


def test_no_caddy(monkeypatch: pytest.MonkeyPatch) -> None:
    from chat import __main__ as local

    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(local.Refusal, match="no Caddy here: run `make chat`"):
        local.find_caddy()


def test_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chat import node

    monkeypatch.setenv("CLIENT_JS", str(tmp_path))
    assert node.main() == 1
    assert capsys.readouterr().err == "chat.node: socket.io-client is not installed: run `make chat`\n"
