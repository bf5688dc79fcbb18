"""The secret of a session is nowhere but with its client: not in logs, not in Redis, not in what errors say."""

from __future__ import annotations

import json
from typing import Any

import redis.asyncio
from socketio_recovery.continuity import Request, requested
from socketio_recovery.session_record import Pid

from tests.support.background import running
from tests.support.js_clients import POLLING, WEBSOCKET, JsClients
from tests.support.node_process import NodeProcess, StartNode
from tests.support.raw_client import payload, raw
from tests.support.waiting import until

VERBOSE: dict[str, Any] = {"verbose": True}


async def everything_in(url: str) -> bytes:
    """All keys of a Redis, and all their values, as text."""
    store: Any
    found: list[Any] = []
    async with redis.asyncio.Redis.from_url(url) as store:
        async for key in store.scan_iter(count=1000):
            kind = await store.type(key)
            if kind == b"none":  # it was there for the scan, and is gone
                continue
            read = {
                b"hash": store.hgetall,
                b"stream": store.xrange,
                b"zset": lambda key: store.zrange(key, 0, -1),
            }[kind]
            found += (key, await read(key))
    return repr(found).encode()


async def every_way(a: NodeProcess, b: NodeProcess, clients: JsClients) -> list[str]:
    """Clients that connect, recover, are evicted, refused and fail, on two transports; their pids."""
    pids = []
    for options in (WEBSOCKET, POLLING, {}):
        client = await clients.open(a, options=options, namespaces=["/", "/other"], auth={"user": "ann"})
        await client.call("save", {"n": 1})
        await client.call("join", "room")
        await a.emit("e", 1, to="room")
        await client.received(1)
        await client.move(b)
        await client.run("cut" if options == WEBSOCKET else "half_open")
        assert (await client.connected(2))["recovered"]
        await client.connected(2, "/other")
        pids += [client.connects(nsp)[0]["pid"] for nsp in ("/", "/other")]
        await client.run("disconnect")
    refused = await clients.open(a, options=WEBSOCKET, auth={"refuse": "recovery"})
    await refused.run("cut")
    await until(lambda: refused.of("connect_error"))
    pids.append(refused.connects()[0]["pid"])
    async with raw(a) as wire:
        await wire.send("40")
        pids.append(payload(await wire.read(), "40")["pid"])
        secret = pids[-1].partition(".")[2]
    for auth in (
        {"pid": pids[-1], "offset": "not one"},
        {"pid": pids[-1], "offset": "ffffffffffff-1"},
        {"pid": "someone-else." + secret},
        {"pid": pids[-1], "raise": True},
        {"pid": pids[-1]},
    ):
        for text in (json.dumps(auth), json.dumps(auth, indent=2)):
            async with raw(a) as wire:
                await wire.send("40" + text)
                await wire.read()
    async with raw(a) as wire:  # in the wrong place
        await wire.send('4{"pid":"' + pids[-1] + '"}')
        await wire.send('42["login",{"pid":"' + pids[-1] + '"}]')
        await wire.send('40{"pid":"' + pids[-1])
        await wire.send("40")
        await wire.read()
    return pids


async def watch(monitor: Any, seen: list[str]) -> None:
    async for command in monitor.listen():
        seen.append(str(command))


async def test_neither_in_logs_nor_in_redis(start_node: StartNode, clients: JsClients) -> None:
    """At every level, with the loggers of python-socketio and python-engineio on, and with MONITOR."""
    a, b = await start_node(**VERBOSE), await start_node(**VERBOSE)
    seen: list[str] = []
    url = a.config["redis"]
    async with (  # without the 5 s for which Redis may be silent by default
        redis.asyncio.Redis.from_url(url, decode_responses=True, socket_timeout=None) as watcher,
        watcher.monitor() as monitor,
        running(watch(monitor, seen)),
    ):
        pids = await every_way(a, b, clients)
        stored = await everything_in(url)
        looks = [json.dumps(await node.look()) for node in (a, b)]
        await until(lambda: any("SCAN" in command for command in seen))
    logs = [node.log() for node in (a, b)]
    assert all("Received packet MESSAGE" in log and "DEBUG" in log for log in logs)
    assert any("connects to /: recovered" in log for log in logs)
    assert any(Pid(*pids[-1].split(".", 1)).hash in command for command in seen)
    places = {"logs": "".join(logs), "MONITOR": "".join(seen), "Redis": stored.decode(), "outcomes": "".join(looks)}
    for pid in pids:
        secret = pid.rpartition(".")[2]
        assert len(secret) == 32
        for place, text in places.items():
            assert secret not in text, f"{place}: ...{text[max(0, text.index(secret) - 300) : text.index(secret)]}***"


def test_nor_in_what_python_shows_of_it() -> None:
    secret = "s" * 32
    pid = Pid("sid", secret)
    attempt, rest = requested({"pid": str(pid), "offset": "1-1", "user": "ann"})
    assert isinstance(attempt, Request)
    assert rest == {"user": "ann"}
    for shown in (repr(pid), f"{pid!r:}", repr([pid]), repr({"pid": pid}), repr(attempt), repr(ValueError(pid))):
        assert secret not in shown
