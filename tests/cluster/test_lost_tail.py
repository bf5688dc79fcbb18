"""Redis loses the end of the log, and nobody lives who had seen it: a power cut, or a failover while nodes restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClients
from tests.support.node_process import NodeProcess
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own."""
    running = RedisServer(preexec=die_with_parent)
    yield running
    running.stop()


@pytest.mark.parametrize("tail", [0, 5])
async def test_a_client_that_saw_the_lost_tail_starts_fresh(
    server: RedisServer, clients: JsClients, server_kind: str, tail: int
) -> None:
    """The log has grown past its offset again, with other events. One that saw no more than is left recovers."""
    options: dict[str, Any] = {"manager": {"channel": "test"}, "server_kind": server_kind}
    a, b = (NodeProcess(name, server.url, **options) for name in "ab")
    try:
        await a.start()
        client = await clients.open(a, options=WEBSOCKET)
        await a.emit("e", "kept")
        await client.received(1)
        with redis.Redis.from_url(server.url) as store:
            store.save()
        for i in range(tail):
            await a.emit("e", f"lost {i}")
        await client.received(1 + tail)
        a.kill()
        server.kill()
        server.start()
        await b.start()
        await b.do(*[("emit", ["e", f"new {i}"]) for i in range(10)])
        await client.move(b)
        again = await client.connected(2)
        await b.emit("e", "last")
        await until(lambda: client.events()[-1] == ("e", "last"))
        seen = [event[1] for event in client.events()[1 + tail : -1]]
        if tail:
            assert (again["recovered"], seen) == (False, [])
            assert (await client.state())["reason"] == "epoch"
        else:
            assert (again["recovered"], seen) == (True, [f"new {i}" for i in range(10)])
    finally:
        a.stop()
        b.stop()
