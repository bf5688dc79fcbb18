"""The command line, as a user runs it, against a real cluster."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
import redis.asyncio
from socketio_recovery.cli.main import COMMANDS, main, parsed
from socketio_recovery.redis.keys import Keys

from local.ports import free_port
from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClients
from tests.support.node_process import StartNode
from tests.support.paths import ROOT
from tests.support.waiting import until

#: Standard output and error.
Said = tuple[str, str]


def _code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:  # argparse's own
        return int(end.code or 0)


class Shell:
    """Runs commands: in this process, to save time, or as a user starts them (:meth:`start`).

    :param url: where they find Redis.
    """

    def __init__(self, url: str, channel: str) -> None:
        self.url = url
        self.channel = channel

    async def start(self, command: str, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a process, which finds Redis by the environment variable."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "socketio_recovery", command, "--channel", self.channel, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SOCKETIO_RECOVERY_URL": self.url},
            preexec_fn=die_with_parent,
            limit=1 << 24,
        )

    async def __call__(self, command: str, *arguments: str, code: int = 0, stdin: str = "", url: str = "") -> Said:
        """Runs a command to its end; returns what it wrote to its standard output and error."""
        output, errors = io.StringIO(), io.StringIO()
        words = [command, "--url", url or self.url, "--channel", self.channel, *arguments]
        with redirect_stdout(output), redirect_stderr(errors), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            ended = await asyncio.to_thread(_code, words)
        assert ended == code, output.getvalue() + errors.getvalue()
        return output.getvalue(), errors.getvalue()

    async def json(self, *command: str) -> list[Any]:
        output, _ = await self(*command, "--json")
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def shell(redis_server: RedisServer, channel: str) -> Shell:
    return Shell(redis_server.url, channel)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Any]:
    client: Any = redis.asyncio.Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


async def test_emit(start_node: StartNode, clients: JsClients, shell: Shell) -> None:
    a = await start_node()
    client, other = [await clients.open(a, options=WEBSOCKET, namespaces=["/", "/other"]) for _ in range(2)]
    await client.call("join", "lobby")
    sid = other.connects()[0]["sid"]
    assert (await shell("emit", "e", '{"n": 1}'))[0] == "emitted e to everybody in /\n"
    await shell("emit", "e", "1", '"two"', "--room", "lobby", "--room", sid)
    await shell("emit", "e", "--room", "lobby")
    await shell("emit", "e", "--text", "it's text", "--skip", sid)
    await shell("emit", "e", "-", "--volatile", stdin="[3]")
    await shell("emit", "e", "--namespace", "/other", "--text", "-", stdin="line\n")
    assert await client.received(5) == [("e", {"n": 1}), ("e", 1, "two"), ("e",), ("e", "it's text"), ("e", [3])]
    assert await other.received(3) == [("e", {"n": 1}), ("e", 1, "two"), ("e", [3])]
    assert await other.received(1, nsp="/other") == [("e", "line")]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["e", "hello"], 2, "for text use quotes"),
        (["e", "NaN"], 2, "has NaN"),
        (["disconnect"], 1, "reserved"),
        (["e", "--namespace", "x"], 2, "--namespace /x"),
        ([], 2, "usage"),
        (["e", "--url", "http://x"], 2, "unsupported Redis URL scheme"),
    ],
)
async def test_mistakes_in_emit(shell: Shell, arguments: list[str], code: int, says: str, store: Any) -> None:
    await store.hset(Keys(shell.channel).meta, mapping={"epoch": 1, "n": 0, "ms": 1})
    try:
        assert says in (await shell("emit", *arguments, code=code))[1]
    finally:
        await store.delete(Keys(shell.channel).meta)


async def test_sessions(start_node: StartNode, clients: JsClients, shell: Shell) -> None:
    a, b = [await start_node(manager={"heartbeat_interval": 0.2}) for _ in range(2)]
    client = await clients.open(a, options=WEBSOCKET)
    gone = await clients.open(b, options={**WEBSOCKET, "reconnection": False}, namespaces=["/other"])
    await client.call("save", {"password": "hunter2"})
    for room in ("lobby", "\x1b[31m", "closed"):
        await client.call("join", room)
    await a.do(("close_room", ["closed"]))
    sid, other = client.connects()[0]["sid"], gone.connects("/other")[0]["sid"]
    pid = client.connects()[0]["pid"]
    await gone.run("cut")
    (node,) = await a.do(("host_id",), on="manager")

    async def both() -> bool:
        rows = await shell.json("sessions")
        return {row["sid"]: row["state"] for row in rows} == {sid: "connected", other: "reconnecting"}

    await until(both)
    (row,) = await shell.json("sessions", sid)
    age = row.pop("age")
    assert 0 <= age < 60
    assert row.pop("left") > 0
    assert row.pop("birth") >= 1
    assert row.pop("epoch") > 0
    assert row == {
        "sid": sid,
        "namespace": "/",
        "state": "connected",
        "node": node,
        "claims": 1,
        "rooms": ["\\x1b[31m", "lobby"],
    }
    output, errors = await shell("sessions")
    assert errors == ""
    assert re.search(rf"^{sid} +/ +connected +{node[:8]} +\d+ s +\\x1b\[31m, lobby$", output, re.MULTILINE), output
    assert re.search(rf"^{other} +/other +reconnecting +- +\d+ s +-$", output, re.MULTILINE), output
    for secret in ("hunter2", pid.partition(".")[2], "token"):
        assert secret not in output + (await shell("sessions", sid, "--json"))[0]
    for choice, expected in (
        (("--state", "reconnecting"), [other]),
        (("--room", "lobby"), [sid]),
        (("--namespace", "/other"), [other]),
        (("--node", node), [sid]),
        (("--limit", "0"), [sid, other]),
        (("--room", "closed"), []),
    ):
        assert [row["sid"] for row in await shell.json("sessions", *choice)] == expected
    assert "there are more than 1" in (await shell("sessions", "--limit", "1"))[1]
    assert "no such session: nobody" in (await shell("sessions", sid, "nobody", code=1))[1]


async def test_tail(start_node: StartNode, clients: JsClients, shell: Shell, store: Any) -> None:
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    sid = client.connects()[0]["sid"]
    await a.do(("enter_room", [sid, "lobby"]), ("enter_room", [sid, "room"]))
    for number in range(15):
        await a.emit("e", {"n": number}, to="lobby")
    await a.emit("\x1b]0;title\x07", "\x1b[2J房间", to=sid, skip_sid="s")
    await store.xadd(Keys(shell.channel).inbox, {"nsp": "/", "type": "3", "data": BINARY})
    await client.received(17)
    lines = (await shell("tail"))[0].splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3}  #\d+  event       /  to lobby  e  \{"n": 14\}', lines[-3]), lines[-3]
    assert lines[-2].endswith(rf'  event       /  to {sid}  but s  \x1b]0;title\x07  "\u001b[2J房间"')
    assert lines[-1].endswith('  event       /  to room  volatile  bytes  <3 bytes 0102ff> {"n": 1}')
    last = (await shell.json("tail", "-n", "1"))[0]
    assert (last["event"], last["args"], last["volatile"]) == ("bytes", [{"base64": "AQL/"}, {"n": 1}], True)
    kinds = [line["kind"] for line in await shell.json("tail", "--since", "1h")]
    assert kinds == ["epoch", "enter", "enter", *["event"] * 17]
    assert [line["args"] for line in await shell.json("tail", "--event", "e", "-n", "2")] == [[{"n": 13}], [{"n": 14}]]
    assert [line["sid"] for line in await shell.json("tail", "--kind", "enter", "--room", "lobby")] == [sid]
    assert await shell.json("tail", "--namespace", "/nobody") == []
    assert "is no duration" in (await shell("tail", "--since", "soon", code=2))[1]


#: An event with binary data, as redis-streams-emitter 0.1.1 writes it.
BINARY = (
    "gqZwYWNrZXSDpHR5cGUCpGRhdGGTpWJ5dGVzxAMBAv+BoW4Bo25zcKEvpG9wdHODpXJvb21z"
    "kaRyb29tpWZsYWdzgah2b2xhdGlsZcOmZXhjZXB0kA=="
)


async def test_tail_follows_until_it_is_interrupted(start_node: StartNode, shell: Shell) -> None:
    a = await start_node(server={"serializer": "msgpack"})
    await a.emit("before", 0)
    process = await shell.start("tail", "--follow", "--json", "--kind", "event")
    assert process.stdout is not None
    for number in range(3):
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        assert (line["event"], line["args"]) == ("after" if number else "before", [number])
        await a.emit("after", number + 1)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, errors) == (130, b"")


async def test_tail_shows_what_can_not_be_read(shell: Shell, store: Any) -> None:
    keys = Keys(shell.channel)
    await store.hset(keys.meta, "epoch", 1)
    for fields in (
        {"x": b"\xff"},
        {"epoch": "1", "head": "["},
        {"epoch": "1", "head": '["event","/"]', "data": '["e",{}]'},
    ):
        await store.xadd(keys.log, fields)
    lines = (await shell("tail"))[0].splitlines()
    assert [("can't be read" in line) for line in lines] == [True, True, False]
    assert len(await shell.json("tail")) == 3
    await store.delete(keys.meta, keys.log)


async def test_stats(start_node: StartNode, clients: JsClients, shell: Shell, store: Any) -> None:
    a = await start_node()
    await clients.open(a, options=WEBSOCKET)
    await a.emit("e", 1)
    await store.xadd(Keys(shell.channel).inbox, {"event": ""})
    await until(lambda: store.exists(Keys(shell.channel).rejected))

    async def with_taker() -> Any:  # it has a lease
        found = json.loads((await shell("stats", "--json"))[0])
        return found if found["inbox"]["taker"] else None

    found = await until(with_taker)
    assert found["channel"] == shell.channel
    assert found["log"]["entries"] == found["log"]["n"] == 2
    assert found["log"]["bytes"] > 100
    assert found["log"]["format"] == 1
    assert 0 <= found["log"]["span"] <= found["log"]["retention"]
    assert found["sessions"] == {"connected": 1, "reconnecting": 0, "lost": 0, "expired": 0}
    (node,) = await a.do(("host_id",), on="manager")
    assert found["nodes"] == {node: 1}
    assert found["producers"] == 1
    assert found["inbox"] == {"entries": 0, "rejected": 1, "taker": node}
    text = (await shell("stats"))[0]
    assert "log        2 entries" in text
    assert "1 connected" in text
    assert "sessions" not in (await shell("stats", "--no-sessions"))[0]


@pytest.mark.parametrize(
    ("words", "sids", "rooms"),
    [
        (["sessions", "-qypr8kCRqJjsTpRAAAB", "--json"], ["-qypr8kCRqJjsTpRAAAB"], []),
        (["sessions", "--room", "-qypr8kCRqJjsTpRAAAB", "x"], ["x"], ["-qypr8kCRqJjsTpRAAAB"]),
    ],
)
def test_a_sid_that_begins_like_an_option(words: list[str], sids: list[str], rooms: list[str]) -> None:
    said = parsed(words)
    assert (said.sid, said.room) == (sids, rooms)


async def test_participants(start_node: StartNode, clients: JsClients, shell: Shell) -> None:
    a, b = [await start_node() for _ in "ab"]
    ann, bob = [await clients.open(node, options=WEBSOCKET) for node in (a, b)]
    for client in (ann, bob):
        await client.call("join", "lobby")
    await bob.call("join", 7)
    await bob.call("save", {"name": "Bob\x1b[31m"})
    me, him = (client.connects()[0]["sid"] for client in (ann, bob))
    assert {row["sid"] for row in await shell.json("participants", "--room", "lobby")} == {me, him}
    assert [row["sid"] for row in await shell.json("participants", "--room", me)] == [me]
    (row,) = await shell.json("participants", "--room", him, "--data")
    assert (row["state"], sorted(map(str, row["rooms"])), row["data"]) == (
        "connected",
        ["7", "lobby"],
        {"name": "Bob\x1b[31m"},
    )
    text = (await shell("participants", "--room", "lobby", "--data"))[0]
    assert me in text
    assert him in text
    assert "\x1b" not in text
    assert "Bob" not in (await shell("participants"))[0], "data is shown only if it is asked for"
    assert (await shell("participants", "--count"))[0] == "2 connected, 0 reconnecting\n"
    assert (await shell("participants", "--room", "nowhere"))[0] == "nobody\n"


LOOKING = (["stats"], ["participants"], ["sessions"], ["sessions", "x"], ["tail"], ["tail", "--follow"], ["emit", "e"])


async def test_a_channel_that_does_not_exist(shell: Shell, store: Any) -> None:
    other = "other-" + shell.channel
    await store.hset(Keys(other).meta, "epoch", 1)
    for command in LOOKING:
        _, error = await shell(*command, code=1)
        assert error.startswith(f"error: there is no channel '{shell.channel}' in redis://127.0.0.1")
        assert other in error
    assert not await store.keys("{" + shell.channel + "}*"), "no key is made"
    await store.delete(Keys(other).meta)


async def test_redis_that_can_not_be_reached(shell: Shell) -> None:
    for command in LOOKING:
        _, error = await shell(*command, code=3, url=f"redis://user:secret@127.0.0.1:{free_port()}/0")
        assert "error: can't reach Redis at redis://127.0.0.1" in error
        assert "--url" in error
        assert "secret" not in error


async def test_a_wrong_password_and_a_user_that_may_not(shell: Shell, redis_server: RedisServer, store: Any) -> None:
    await store.execute_command("ACL", "SETUSER", "weak", "on", ">right", "~*", "-@all", "+ping")
    at = f"127.0.0.1:{redis_server.port}/0"
    _, error = await shell("stats", code=3, url=f"redis://weak:wrong@{at}")
    assert "does not let us in" in error
    _, error = await shell("stats", code=3, url=f"redis://weak:right@{at}")
    assert "docs/cli.md lists" in error
    assert "right" not in error
    await store.execute_command("ACL", "DELUSER", "weak")


async def test_the_user_of_the_page_is_enough_to_look(
    start_node: StartNode, clients: JsClients, shell: Shell, redis_server: RedisServer, store: Any
) -> None:
    """It may run no command that writes."""
    page = (ROOT / "docs" / "cli.md").read_text()
    (command,) = re.findall(r"^ACL SETUSER (.*?)^```", page, re.MULTILINE | re.DOTALL)
    name, *rules = command.replace("\\\n", " ").replace("{socketio}", "{" + shell.channel + "}").split()
    a = await start_node()
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "lobby")
    await store.execute_command("ACL", "SETUSER", name, *rules)
    url = f"redis://{name}:{rules[1][1:]}@127.0.0.1:{redis_server.port}/0"
    for looks in (
        ["stats"],
        ["sessions"],
        ["sessions", client.connects()[0]["sid"]],
        ["tail", "--since", "1h"],
        ["tail"],
    ):
        assert (await shell(*looks, url=url))[0]
    await shell("emit", "e", code=3, url=url)
    await store.execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_has_examples(shell: Shell, command: str) -> None:
    text = (await shell(command, "--help"))[0]
    assert f"python -m socketio_recovery {command}" in text
    assert "--url" in text


async def test_as_a_user_starts_it(start_node: StartNode, shell: Shell) -> None:
    """The module is found, and so is Redis by the environment variable; a closed pipe is no error."""
    a = await start_node()
    for number in range(20):
        await a.emit("e", "x" * 50_000, number)
    process = await shell.start("tail", "-n", "20", "--width", "0")
    assert process.stdout is not None
    assert b"  e  " in await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert (await process.stderr.read(), await process.wait()) == (b"", 0)
    for mistake in ([], ["nothing"], ["tail", "--nothing"]):
        assert _code(mistake) == 2
