"""``python -m chat``, for real: the cluster starts, heals and stops; clients keep their session through Caddy."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chat import CLIENT_FILE, CLIENT_JS
from chat.store import ORDER_FOR
from local.ports import free_port
from local.processes import running_processes
from tests.support.chat_clients import (
    BROWSER,
    BROWSER_POLLING,
    elsewhere,
    has,
    messages,
    open_client,
    people,
    rooms_of,
    say,
    texts,
    welcomed,
)
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients
from tests.support.paths import ROOT
from tests.support.supervisor import Supervisor
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(
    not (CLIENT_JS / CLIENT_FILE).exists(), reason="socket.io-client is not installed: make chat/node_modules/ready"
)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def run(*arguments: str) -> Supervisor:
        started.append(Supervisor(tmp_path / f"output-{len(started)}", *arguments))
        return started[-1]

    yield run
    for supervisor in started:
        supervisor.process.send_signal(signal.SIGCONT)  # a test that failed may have stopped it
        supervisor.stop()


async def taken(client: JsClient, text: str) -> Any:
    """Says something, again while Redis is too slow for the chat; returns the answer to what was taken."""
    id = uuid.uuid4().hex

    async def answer() -> Any:
        found = await say(client, text, id=id)
        return None if "error" in found else found

    return await until(answer, lambda: f"{text!r} is taken")


def was(client: JsClient, since: int, name: str, state: str) -> bool:
    """Tells whether somebody was in this state in a list of people, after the client's first ``since`` events."""
    lists = [event[1] for event in client.events()[since:] if event[0] == "people"]
    return any((person["name"], person["state"]) == (name, state) for people in lists for person in people)


@pytest.mark.parametrize("options", [BROWSER, BROWSER_POLLING, WEBSOCKET], ids=["browser", "polling", "websocket"])
async def test_a_killed_node_costs_nothing(
    start: Callable[..., Supervisor], clients: JsClients, options: dict[str, Any]
) -> None:
    cluster = start()
    await cluster.started()
    ann = await open_client(clients, cluster, options=options, auth={"name": "ann"})
    hello = await welcomed(ann, 1)
    assert (hello["name"], hello["recovered"], hello["reason"]) == ("ann", False, "new")
    sid = ann.connects()[0]["sid"]
    bob = await elsewhere(clients, cluster, hello["node"])
    at = (await welcomed(bob, 1))["node"]

    sent = [await taken(bob, "before")]
    await until(lambda: texts(ann) == ["before"], lambda: ann.reports)

    async def apart() -> bool:
        """Whether Ann is heard on another node than Bob."""
        with suppress(RuntimeError):  # she lost her connection: Caddy sends polls elsewhere if her node is slow
            await ann.call("rename", {"name": "ann"})
            if (await welcomed(ann, len(ann.connects())))["node"] != at:
                return True
            await ann.run("cut")
        return False

    await until(apart, lambda: ann.reports)
    times = len(ann.connects())
    hello = await welcomed(ann, times)
    cluster.process.send_signal(signal.SIGSTOP)  # it does not start the node again before she is back
    await ann.run("move", url="http://127.0.0.1:1")  # she is not back before "meanwhile"
    seen = len(ann.events())
    await ann.run("emit", event="kill")
    await until(lambda: len(ann.of("disconnect")) == times, lambda: ann.reports)
    sent.append(await taken(bob, "meanwhile"))
    await ann.run("move", url=cluster.url)

    back = await ann.connected(times + 1)
    assert (back["sid"], back["recovered"]) == (sid, True)
    again = await welcomed(ann, times + 1)
    assert again["recovered"] is True
    assert again["node"] != hello["node"]
    assert again["name"] == "ann"
    cluster.process.send_signal(signal.SIGCONT)
    sent.append(await taken(ann, "after"))
    for client in (ann, bob):
        await until(partial(has, client, "after"), lambda: (ann.reports, bob.reports))
        assert texts(client) == ["before", "meanwhile", "after"]
        assert [message["id"] for message in messages(client)] == [answer["id"] for answer in sent]
        assert [message["seq"] for message in messages(client)] == [answer["seq"] for answer in sent]
    assert [message["name"] for message in messages(ann)] == ["bob", "bob", "ann"]
    # What was missed comes before the welcome.
    kinds = [event[0] for event in ann.events()[seen:] if event[0] != "people"]
    assert kinds == ["message", "welcome", "message"]

    await cluster.line(f"{hello['node']} was killed (SIGKILL); starting it again in 1 s")
    await cluster.line(f"{hello['node']} is back")


async def scraped(port: int) -> dict[str, float]:
    """What a node tells Prometheus: ``name{label="value"}`` -> value."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as response:
        assert response.status == 200
        families = text_string_to_metric_families(await response.text())
    return {
        sample.name + "".join(f'{{{name}="{value}"}}' for name, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


async def test_the_metrics_of_a_kill(start: Callable[..., Supervisor], clients: JsClients) -> None:
    cluster = start("--nodes", "2", "--restart-after", "60")  # the client finds only the other node
    await cluster.started()
    ports = {
        name: int(re.search(rf"{name}: on port (\d+)", cluster.said())[1])  # type: ignore[index]
        for name in ("node-a", "node-b")
    }
    ann = await open_client(clients, cluster, options=BROWSER, auth={"name": "ann"})
    node = (await welcomed(ann, 1))["node"]
    other = next(name for name in ports if name != node)
    before = await scraped(ports[node])
    assert before['socketio_recovery_connections_total{outcome="new"}'] == 1
    assert before['socketio_recovery_clients{state="live"}'] == 1
    assert before["socketio_recovery_unhealthy"] == 0

    cluster.signal(node, signal.SIGKILL)
    assert (await ann.connected(2))["recovered"]

    async def recovered() -> bool:
        found = await scraped(ports[other])
        measured = 'socketio_recovery_retention_seconds{source="stream"}' in found  # by a look at the log now and then
        return measured and found["socketio_recovery_recovery_duration_seconds_count"] == 1

    await until(recovered)
    after = await scraped(ports[other])
    assert after['socketio_recovery_connections_total{outcome="recovered"}'] == 1
    assert after['socketio_recovery_connections_total{outcome="new"}'] == 0
    assert after['socketio_recovery_clients{state="live"}'] == 1
    assert after["socketio_recovery_dispatched_entries_total"] > 0
    assert after['socketio_recovery_retention_seconds{source="stream"}'] > 120
    assert after["socketio_recovery_max_disconnection_seconds"] == 120
    async with aiohttp.ClientSession() as http, http.get(cluster.url + "/metrics") as response:
        assert response.status == 404, "the load balancer passes the metrics on"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
async def test_it_stops_and_leaves_nothing(
    start: Callable[..., Supervisor], clients: JsClients, how: signal.Signals
) -> None:
    cluster = start()
    await cluster.started()
    for options in (BROWSER, BROWSER_POLLING, WEBSOCKET):
        await open_client(clients, cluster, options=options)
    children = cluster.descendants()
    assert len(children) >= 5, children  # Redis, three nodes, Caddy

    cluster.process.send_signal(how)
    assert cluster.process.wait(PATIENCE) == 0
    await until(
        lambda: not children.keys() & dict(running_processes()).keys(), lambda: f"all gone: {children}", patience=1
    )
    assert cluster.said().splitlines()[-1] == "stopped"
    assert "Traceback" not in cluster.said()


async def test_a_node_that_is_stopped_drains(start: Callable[..., Supervisor], clients: JsClients) -> None:
    """Its client goes elsewhere, recovered; each step is one line of the log."""
    cluster = start("--nodes", "2", "--restart-after", "60")  # what the node says when it is back is no step of these
    await cluster.started()
    ann = await open_client(clients, cluster, options=BROWSER, auth={"name": 'ann "a=b"'})
    node = (await welcomed(ann, 1))["node"]
    cluster.signal(node, signal.SIGTERM)
    assert (await ann.connected(2))["recovered"] is True
    await cluster.line(f"{node} ended with status 0")
    lines = [line for line in cluster.said().splitlines() if f"node={node} " in line]
    events = [next(part for part in line.split() if part.startswith("event=")) for line in lines]
    steps = ["node.started", "node.ready", "session.new", "node.draining", "session.lost", "node.stopped"]
    assert events == [f"event={step}" for step in steps]
    assert 'name="ann \\"a=b\\""' in lines[2]
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
        return [command for pid, (_, command) in running_processes() if pid in children and command]

    await until(lambda: not left(), left)


async def test_it_stops_while_it_starts(start: Callable[..., Supervisor]) -> None:
    cluster = start()
    await cluster.line("Redis: ")
    children = cluster.descendants()
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(PATIENCE) == 0
    assert not children.keys() & dict(running_processes()).keys()
    assert "Traceback" not in cluster.said()


async def test_redis_and_caddy_are_started_again(start: Callable[..., Supervisor], clients: JsClients) -> None:
    cluster = start("--nodes", "2")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann"})
    sid = ann.connects()[0]["sid"]

    cluster.signal("caddy", signal.SIGKILL)
    await cluster.line("caddy is back")
    assert (await ann.connected(2))["sid"] == sid

    cluster.signal("redis", signal.SIGKILL)
    await cluster.line("redis is back")
    answer = await taken(ann, "hello again")
    await until(lambda: texts(ann) == ["hello again"], lambda: (answer, ann.reports))
    state = await ann.run("get")
    assert state["id"] == sid  # what Redis had taken is on its disk


async def test_the_page_and_what_clients_may_send(start: Callable[..., Supervisor], clients: JsClients) -> None:
    cluster = start("--nodes", "1")
    await cluster.started()
    async with aiohttp.ClientSession(cluster.url) as http:
        for path, kind in (
            ("/", "text/html"),
            ("/css/chat.css", "text/css"),
            ("/js/main.js", "javascript"),
            ("/icon.svg", "image/svg"),
        ):
            async with http.get(path) as response:
                assert response.status == 200
                assert kind in response.content_type
                assert "script-src 'self'" in response.headers["Content-Security-Policy"]
                assert "unsafe" not in response.headers["Content-Security-Policy"]
                assert (await response.read()) == (ROOT / "chat/web" / (path[1:] or "index.html")).read_bytes()
        async with http.get("/socket.io.js") as response:
            assert (await response.read()) == (CLIENT_JS / CLIENT_FILE).read_bytes()
        for path in ("/healthz", "/readyz"):
            async with http.get(path) as response:
                assert response.status == 200
        for path in ("/package.json", "/js/../../node.py", "/js/", "/node.py"):
            async with http.get(path) as response:
                assert response.status == 404

    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": ["not", "a", "name"]})
    hello = await welcomed(ann, 1)
    assert hello["name"] == f"Guest {ann.connects()[0]['sid'][:4]}"
    for bad, problem in (
        ([], ("room", "text")),
        ([None], ("room", "text")),
        ([{"room": "lobby", "id": "1" * 8}], ("message", "text")),
        ([{"room": "lobby", "id": "1" * 8, "text": {"a": 1}}], ("message", "text")),
        ([{"room": "lobby", "id": "1" * 8, "text": "  \n "}], ("message", "empty")),
        ([{"room": "lobby", "id": "1" * 8, "text": "x" * 1001}], ("message", "longer than 1000 characters")),
        ([{"room": "lobby", "id": "short", "text": "x"}], ("id", "8 to 64")),
        ([{"room": "elsewhere", "id": "1" * 8, "text": "x"}], ("not in", "room")),
    ):
        answer = await ann.call("say", *bad)
        assert set(answer) == {"error", "text"}
        assert all(part in answer["text"] for part in problem), answer
    assert (await ann.call("rename", {"name": "y" * 41}))["error"] == "long"
    assert await ann.call("rename", {"name": "  Ann\tB. "}) == {"name": "Ann B."}
    assert (await ann.call("join", {"room": "a<b>"}))["error"] == "room"
    assert (await ann.call("join", {"room": " Größe 上海 "}))["room"] == "größe-上海"
    assert (await ann.call("leave", {"room": "lobby"}))["error"] == "lobby"
    for odd in ("  <b>text</b>  ", "\ud800", "x" * 1000):
        assert set(await say(ann, odd)) == {"id", "seq", "at"}
    await until(lambda: len(texts(ann)) == 3, lambda: ann.reports)
    assert texts(ann)[0] == "<b>text</b>"
    assert {message["name"] for message in messages(ann)} == {"Ann B."}


async def test_a_message_that_is_sent_again_is_taken_once(start: Callable[..., Supervisor], clients: JsClients) -> None:
    """The answer may have been lost; another session, on another node, asks again."""
    cluster = start()
    await cluster.started()
    who = {"name": "ann", "client": "0123456789abcdef"}
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth=who)
    first = await ann.call("say", {"id": "the-same-id", "room": "lobby", "text": "once"})
    assert await ann.call("say", {"id": "the-same-id", "room": "lobby", "text": "once"}) == first
    node = (await welcomed(ann, 1))["node"]
    await ann.run("disconnect")
    for _ in range(20):
        again = await open_client(clients, cluster, options=WEBSOCKET, auth=who)
        if (await welcomed(again, 1))["node"] != node:
            break
        await again.run("shut")
    assert await again.call("say", {"id": "the-same-id", "room": "lobby", "text": "once"}) == first
    other = await open_client(clients, cluster, options=WEBSOCKET, auth={"client": "f" * 16})
    theirs = await other.call("say", {"id": "the-same-id", "room": "lobby", "text": "another's"})
    await until(lambda: has(again, "another's"), lambda: again.reports)
    assert theirs["seq"] == first["seq"] + 1
    assert [texts(ann), texts(again), texts(other)] == [["once"], ["another's"], ["another's"]]
    # A new session gets what is kept of the room, after the last it has.
    history = (await welcomed(other, 1))["histories"]["lobby"]
    assert [message["text"] for message in history["messages"]] == ["once"]
    late = await open_client(clients, cluster, options=WEBSOCKET, auth={"rooms": {"lobby": first["seq"]}})
    history = (await welcomed(late, 1))["histories"]["lobby"]
    assert [message["text"] for message in history["messages"]] == ["another's"]


async def test_who_is_here_is_right_also_after_a_kill(
    start: Callable[..., Supervisor], clients: JsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVER_WITHIN", "4")
    cluster = start()
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann", "client": "a" * 16})
    node = (await welcomed(ann, 1))["node"]
    bob = await elsewhere(clients, cluster, node)
    at = (await welcomed(bob, 1))["node"]
    await until(lambda: people(bob) == people(ann) == {"ann": (node, "here"), "bob": (at, "here")}, lambda: people(bob))
    await ann.run("move", url="http://127.0.0.1:1")  # it can't come back
    await ann.run("emit", event="kill")
    await until(lambda: people(bob) == {"ann": (node, "reconnecting"), "bob": (at, "here")}, lambda: people(bob))
    await ann.run("move", url=cluster.url)
    await ann.connected(2)
    now_on = (await welcomed(ann, 2))["node"]
    await until(lambda: people(bob) == {"ann": (now_on, "here"), "bob": (at, "here")}, lambda: people(bob))
    await ann.run("move", url="http://127.0.0.1:1")
    seen = len(bob.events())
    await ann.run("cut")
    await until(lambda: was(bob, seen, "ann", "reconnecting"), lambda: people(bob))  # for 4 s
    await until(lambda: people(bob) == {"bob": (at, "here")}, lambda: people(bob))  # it did not come back in time
    # One that leaves is gone at once; one that loses its connection is waited for.
    eve = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "eve", "client": "e" * 16})
    await until(lambda: "eve" in people(bob), lambda: people(bob))
    await eve.run("move", url="http://127.0.0.1:1")
    seen = len(bob.events())
    await eve.run("cut")
    await until(lambda: was(bob, seen, "eve", "reconnecting"), lambda: people(bob))
    await eve.run("move", url=cluster.url)
    await eve.connected(2)
    await until(lambda: people(bob).get("eve", ("", ""))[1] == "here", lambda: people(bob))
    await eve.run("disconnect")
    await until(lambda: "eve" not in people(bob), lambda: people(bob))


async def test_the_list_of_people_has_their_names_and_rooms(
    start: Callable[..., Supervisor], clients: JsClients
) -> None:
    cluster = start("--nodes", "2")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann"})
    bob = await elsewhere(clients, cluster, (await welcomed(ann, 1))["node"])

    async def shown(name: str, *rooms: str) -> None:
        expected = {"bob": ["lobby"], name: list(rooms)}
        await until(
            lambda: rooms_of(ann) == rooms_of(bob) == expected, lambda: (expected, rooms_of(ann), rooms_of(bob))
        )

    await shown("ann", "lobby")
    await ann.call("join", {"room": "garden"})
    await shown("ann", "garden", "lobby")
    await ann.call("rename", {"name": "Ann B."})
    await shown("Ann B.", "garden", "lobby")
    await ann.call("leave", {"room": "garden"})
    await shown("Ann B.", "lobby")


@pytest.mark.parametrize("how", ["Redis is killed", "a node is frozen"])
async def test_who_never_left_is_not_reconnecting(
    start: Callable[..., Supervisor], clients: JsClients, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nodes that can't tell that they live are taken for dead. Their clients keep their connections all the same."""
    if how == "Redis is killed":
        # Nodes count as dead after 7 s. Redis is away for longer. Then each node has some seconds to say that it lives.
        monkeypatch.setenv("SESSION_HEARTBEAT", "10")
    cluster = start("--restart-after", "8")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann", "rooms": {"garden": 0}})
    node = (await welcomed(ann, 1))["node"]
    bob = await elsewhere(clients, cluster, node)
    at = (await welcomed(bob, 1))["node"]
    both_here = {"ann": (node, "here"), "bob": (at, "here")}
    await until(lambda: people(ann) == people(bob) == both_here, lambda: (people(ann), people(bob)))
    before = len(ann.events())
    if how == "Redis is killed":
        cluster.signal("redis", signal.SIGKILL)
        await cluster.line("redis is back")
    else:
        cluster.signal(node, signal.SIGSTOP)
        try:
            await until(lambda: people(bob) != both_here, lambda: people(bob))
        finally:
            cluster.signal(node, signal.SIGCONT)
    eve = await open_client(
        clients, cluster, options=WEBSOCKET, auth={"name": "eve"}
    )  # so that both see a list of people from after that
    all_here = {**both_here, "eve": ((await welcomed(eve, 1))["node"], "here")}
    await until(lambda: people(ann) == people(bob) == all_here, lambda: (people(ann), people(bob)))
    assert [len(client.connects()) for client in (ann, bob)] == [1, 1]
    if how == "Redis is killed":
        later = [person["state"] for event in ann.events()[before:] if event[0] == "people" for person in event[1]]
        assert set(later) == {"here"}, "not even for a moment"

    async def counted() -> bool:
        async with aiohttp.ClientSession(cluster.url) as http, http.get("/cluster.json") as response:
            found = await response.json()
        return (found["here"], found["reconnecting"]) == (3, 0)

    await until(counted, "the cluster's page counts three people here")


async def test_typing_is_told_and_never_replayed(start: Callable[..., Supervisor], clients: JsClients) -> None:
    cluster = start("--nodes", "1")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann"})
    bob = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "bob"})
    await bob.call("typing", {"room": "lobby"})
    await until(lambda: any(e[0] == "typing" for e in ann.events()), lambda: ann.reports)
    await ann.run("move", url="http://127.0.0.1:1")
    await ann.run("cut")
    await until(lambda: ann.of("disconnect"), lambda: ann.reports)
    await bob.call("typing", {"room": "lobby"})
    await say(bob, "missed")
    await ann.run("move", url=cluster.url)
    assert (await ann.connected(2))["recovered"] is True
    await welcomed(ann, 2)
    assert texts(ann) == ["missed"]
    assert [e[0] for e in ann.events()].count("typing") == 1


async def test_the_cluster_page_and_who_may_kill(
    start: Callable[..., Supervisor], clients: JsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start("--nodes", "2")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "ann"})
    node = (await welcomed(ann, 1))["node"]
    async with aiohttp.ClientSession(cluster.url) as http:

        async def look() -> Any:
            async with http.get("/cluster.json") as response:
                return await response.json()

        async def kill(name: object, origin: str) -> int:
            async with http.post("/cluster/kill", json={"node": name}, headers={"Origin": origin}) as response:
                return response.status

        async def counted() -> Any:
            nodes = {n["name"]: n for n in (await look())["nodes"]}
            return len(nodes) == 2 and nodes[node]["clients"] == 1 and all(n["state"] == "up" for n in nodes.values())

        await until(counted, "both nodes up, one client")
        assert await kill(node, "http://elsewhere.example") == 403
        assert await kill("no-such-node", cluster.url) == 404
        assert await kill({"odd": 1}, cluster.url) in (400, 404)
        for _ in range(8):
            assert await kill(node, cluster.url) == 202
            with suppress(AssertionError):  # a node that is busy may come to the order when it is not valid any more
                await until(lambda: f"{node} was killed" in cluster.said(), patience=ORDER_FOR)
                break
        assert (await ann.connected(2))["recovered"] is True

        async def told() -> Any:
            found = await look()
            news = [item for item in found["news"] if item["name"] == "ann"]
            return found["outcomes"].get("recovered") == 1 and news and news[0]["from"] == node

        await until(told, "the recovery is counted")


async def test_nobody_kills_a_node_without_demo(start: Callable[..., Supervisor], clients: JsClients) -> None:
    cluster = start("--nodes", "1", "--no-demo")
    await cluster.started()
    ann = await open_client(clients, cluster, options=WEBSOCKET)
    assert (await welcomed(ann, 1))["demo"] is False
    await ann.run("emit", event="kill")
    assert "seq" in await say(ann, "still here")
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.post("/cluster/kill", json={"node": "node-a"}, headers={"Origin": cluster.url}) as response:
            assert response.status == 403
    assert "was killed" not in cluster.said()


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
    with pytest.raises(local.CannotRun, match="no Caddy here: run `make chat`"):
        local.find_caddy()


def test_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chat import node

    monkeypatch.setenv("CLIENT_JS", str(tmp_path))
    assert node.main() == 1
    assert capsys.readouterr().err == "chat.node: socket.io-client is not installed: run `make chat`\n"
