"""What somebody can do with another's session: without its secret nothing, with it no more than is documented."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest

from tests.security.node_log import library_errors
from tests.security.raw_sessions import connected, state
from tests.support.js_clients import WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import payload, raw
from tests.support.waiting import PATIENCE, until


def variants(pid: str, other: str) -> dict[str, str]:
    """What is nearly a pid of a session whose ``sid`` is known."""
    sid, _, secret = pid.rpartition(".")
    return {
        "no secret": sid,
        "an empty secret": sid + ".",
        "another session's secret": sid + "." + other.rpartition(".")[2],
        "upper case": sid + "." + secret.upper(),
        "lower case": sid + "." + secret.lower(),
        "swapped case": sid + "." + secret.swapcase(),
        "truncated": pid[:-1],
        "longer": pid + "A",
        "last letter": pid[:-1] + ("A" if pid[-1] != "A" else "B"),
        "first letter": sid + "." + ("A" if secret[0] != "A" else "B") + secret[1:],
        "zeros": sid + "." + "0" * 32,
        "the hash": sid + "." + "e3b0c44298fc1c149afbf4c8996fb924",
        "space before": " " + pid,
        "newline": pid + "\n",
        "NUL": pid + "\x00",
        "sid in another case": sid.swapcase() + "." + secret,
        "another key": "x:" + sid + "." + secret,
        "two": pid + "," + pid,
    }


async def test_no_recovery_without_the_secret(pair: tuple[NodeProcess, NodeProcess]) -> None:
    """The owner, connected or not, does not even notice."""
    a, _ = pair
    async with connected(a) as (victim, mine), connected(a) as (_, other):
        await victim.send('421["save",{"user":"ann"}]')
        assert await victim.read() == "431[]"
        for name, pid in variants(mine["pid"], other["pid"]).items():
            async with connected(a, {"pid": pid}) as (thief, got):
                assert got["sid"] not in (mine["sid"], other["sid"]), name
                assert (await state(thief))["session"] == {}, name
        async with connected(a, {"pid": mine["pid"]}, "/other,") as (thief, got):
            assert got["sid"] != mine["sid"], "in another namespace"
            assert (await state(thief, "/other,"))["reason"] == "unknown"
        assert await state(victim) | {"node": ""} == {
            "node": "",
            "sid": mine["sid"],
            "rooms": [mine["sid"]],
            "session": {"user": "ann"},
            "recovered": False,
            "reason": "new",
        }
    for name, pid in variants(mine["pid"], other["pid"]).items():  # now that it is detached
        async with connected(a, {"pid": pid}) as (thief, got):
            assert got["sid"] not in (mine["sid"], other["sid"]), name
    async with connected(a, {"pid": mine["pid"]}) as (owner, got):
        assert got == mine
        assert (await state(owner))["session"] == {"user": "ann"}
    assert not library_errors(a)


async def _nobody(node: NodeProcess, sid: str) -> bool:
    return any(s["what"] == "disconnect" and s["sid"] == sid for s in (await node.look())["seen"])


@pytest.mark.parametrize("how", ["client", "server", "other node", "detached", "detached, other node"])
async def test_a_pid_is_useless_after_a_deliberate_disconnect(pair: tuple[NodeProcess, NodeProcess], how: str) -> None:
    """On every node, and however often it is shown."""
    a, b = pair
    async with connected(a) as (client, mine):
        await client.send('421["save",{"user":"ann"}]')
        await client.read()
        if how == "client":
            await client.send("41")
        elif how == "server":
            await a.do(("disconnect", [mine["sid"]]))
        elif how == "other node":
            await b.do(("disconnect", [mine["sid"]]))
        if not how.startswith("detached"):
            await until(lambda: _nobody(a, mine["sid"]))
    if how.startswith("detached"):
        await until(lambda: _nobody(a, mine["sid"]))
        await (a if how == "detached" else b).do(("disconnect", [mine["sid"]]))
    for node in (a, b, a):
        async with connected(node, {"pid": mine["pid"]}) as (thief, got):
            assert got["sid"] != mine["sid"]
            found = await state(thief)
            assert (found["recovered"], found["reason"], found["session"]) == (False, "unknown", {})


@pytest.mark.parametrize("where", ["same node", "other node"])
async def test_a_thief_that_the_connect_handler_refuses(
    pair: tuple[NodeProcess, NodeProcess], clients: JsClients, where: str
) -> None:
    """The owner's connection is closed, since the session was claimed before the handler was asked. The owner
    comes back and has missed nothing; the thief has seen nothing. As often as it is tried."""
    a, b = pair if where == "other node" else (pair[0], pair[0])
    # It comes back when it is told to: else it may be back before the thief is refused, and evict the thief.
    owner = await clients.open(a, options={**WEBSOCKET, "reconnection": False})
    await owner.call("save", {"user": "ann"})
    await owner.call("join", "room")
    mine = owner.connects()[0]
    await a.emit("e", 0, to="room")
    await owner.received(1)
    for turn in range(1, 4):
        async with raw(b) as thief:
            await thief.send("40" + json.dumps({"pid": mine["pid"], "refuse": "recovery"}))
            await b.emit("e", turn, to="room")
            assert (await thief.read()).startswith("44"), "refused, and nothing before that"
        await until(partial(_disconnected, owner, turn), lambda: owner.reports)
        await owner.run("connect")
        again = await owner.connected(turn + 1)
        assert (again["recovered"], again["sid"], again["pid"]) == (True, mine["sid"], mine["pid"])
    assert [e[1] for e in await settle(a, owner)] == [0, 1, 2, 3]
    found = await owner.state()
    assert (found["session"], found["rooms"]) == ({"user": "ann"}, sorted(["room", mine["sid"]]))
    await until(lambda: _times(a, mine["sid"], 3))
    seen = (await a.look())["seen"]
    reasons = [s["reason"] for s in seen if s["what"] == "disconnect" and s["sid"] == mine["sid"]]
    assert reasons == ["transport close"] * 3


def _disconnected(client: JsClient, times: int) -> bool:
    return len(client.of("disconnect")) >= times


async def test_a_thief_that_is_refused_while_the_owner_is_away(start_node: StartNode) -> None:
    """The session waits on, and no longer than it would have."""
    a = await start_node(manager={"max_disconnection_duration": 8})
    async with connected(a) as (_, mine):
        pass
    await until(lambda: _nobody(a, mine["sid"]))
    tries = 0
    end = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < end:  # refused again and again, it still expires
        await asyncio.sleep(0.05)
        async with raw(a) as thief:
            await thief.send("40" + json.dumps({"pid": mine["pid"], "refuse": "recovery"}))
            answer = await thief.read()
        if not answer.startswith("44"):
            break
        tries += 1
        if tries == 3:
            async with connected(a, {"pid": mine["pid"]}) as (_, got):
                assert got == mine
            await until(lambda: _times(a, mine["sid"], 2))
    assert tries > 3
    assert payload(answer, "40")["sid"] != mine["sid"]
    assert (await a.look())["outcomes"]["expired"] == 1


async def _times(node: NodeProcess, sid: str, times: int) -> bool:
    seen = (await node.look())["seen"]
    return len([s for s in seen if s["what"] == "disconnect" and s["sid"] == sid]) >= times
