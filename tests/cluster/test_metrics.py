"""What nodes tell about themselves while other nodes are killed: metrics, reasons for not being healthy, spans."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from socketio_recovery import AsyncRedisStreamsManager, Fate, NoMetrics, PublishTimeout, RedisStreamsManager

from local.ports import free_port
from local.processes import die_with_parent
from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import NodeProcess, StartNode
from tests.support.waiting import until

KINDS = pytest.mark.parametrize("kind", ["aiohttp", "threading"])


async def scraped(node: NodeProcess) -> dict[str, float]:
    """What a node tells Prometheus, without the common beginning: ``name{label="value"}`` -> value."""
    found = {}
    for family in text_string_to_metric_families((await node.look())["metrics"]):
        for sample in family.samples:
            labels = "".join(f'{{{name}="{value}"}}' for name, value in sample.labels.items() if name != "le")
            found[sample.name.removeprefix("socketio_recovery_") + labels] = sample.value
    return found


@KINDS
async def test_the_metrics_of_a_kill(start_node: StartNode, clients: JsClients, kind: str) -> None:
    a, b = [await start_node(server_kind=kind, metrics=True) for _ in range(2)]
    client = await clients.open(a, options=WEBSOCKET)
    await client.call("join", "room")
    await a.emit("seen", 1, to="room")
    await client.received(1)
    before = await scraped(a)
    assert before['connections_total{outcome="new"}'] == 1
    assert before['clients{state="live"}'] == 1
    assert before['appends_total{fate="stored"}'] == 2  # the room, and the event
    assert before["deliveries_total"] == 1
    assert before["delivered_bytes_total"] == len('["seen",1]')
    assert before["appended_bytes_total"] > before["delivered_bytes_total"]

    await client.move(b)
    a.kill()
    await b.emit("missed", 2, to="room")
    await b.emit("missed", 3, to="elsewhere")
    assert (await client.connected(2))["recovered"]
    assert await settle(b, client) == [("seen", 1), ("missed", 2)]
    after = await scraped(b)
    assert after['connections_total{outcome="recovered"}'] == 1
    assert after['connections_total{outcome="new"}'] == 0
    assert (after["recovery_duration_seconds_count"], after["replayed_events_total"]) == (1, 1)
    assert 0 < after["recovery_duration_seconds_sum"] < 40
    assert after["unhealthy"] == 0
    assert after["max_disconnection_seconds"] == 120
    await until(lambda: had(b, 'retention_seconds{source="stream"}'))
    assert (await scraped(b))['retention_seconds{source="stream"}'] > 120
    assert (await scraped(b))["log_lag_seconds"] < 40
    await client.run("disconnect")
    await until(lambda: had(b, 'disconnections_total{ending="left"}'))
    assert (await scraped(b))['clients{state="live"}'] == 0


async def had(node: NodeProcess, name: str) -> float:
    return (await scraped(node)).get(name, 0)


@KINDS
async def test_a_node_says_why_it_is_not_healthy(channel: str, kind: str, clients: JsClients) -> None:
    server = RedisServer(preexec=die_with_parent)
    manager = {"channel": channel, "heartbeat_interval": 0.1, "publish_timeout": 1}
    # a node that has to start within publish_timeout may be too late on a busy machine
    node = NodeProcess("a", server.url, manager=manager, server_kind=kind, start=False)

    async def well() -> bool:
        return not (await node.look())["unhealthy"]

    try:
        await node.start()
        await until(well, node.log)
        await clients.open(node, options={**WEBSOCKET, "reconnection": False})  # without sessions nothing is refreshed
        server.stop()

        async def told() -> bool:
            text = " ".join((await node.look())["unhealthy"])
            return "Redis has been silent for" in text and "the last heartbeat failed" in text

        await until(told, node.log)
        assert not (await node.look())["healthy"]
        with pytest.raises(RuntimeError, match="PublishTimeout"):
            await node.emit("lost")
        assert "Redis did not take what was last appended to the log" in " ".join((await node.look())["unhealthy"])
        assert (await node.look())["lag"] > 1
    finally:
        node.stop()
        server.stop()


async def test_managers_that_do_not_run_say_why(channel: str, redis_server: RedisServer) -> None:
    manager = AsyncRedisStreamsManager(redis_server.url, channel=channel)
    (reason,) = manager.unhealthy_reasons
    assert reason == (
        "it is not started, and can't be started here: no server has this manager: pass it as client_manager, or use "
        "write_only=True"
    )
    writer = AsyncRedisStreamsManager(redis_server.url, channel=channel, write_only=True)
    assert writer.unhealthy_reasons == ["it is starting"]
    assert writer.unhealthy_reasons == []
    await writer.close()
    assert writer.unhealthy_reasons == ["it is closed"]
    assert not writer.healthy


def test_synchronous_managers_that_do_not_run_say_why(channel: str, redis_server: RedisServer) -> None:
    writer = RedisStreamsManager(redis_server.url, channel=channel, write_only=True)
    assert writer.unhealthy_reasons == ["it is starting"]
    assert (writer.unhealthy_reasons, writer.log_lag) == ([], 0)
    writer.close()
    assert writer.unhealthy_reasons == ["the client manager does not run any more: it is closed"]


def test_a_synchronous_manager_whose_thread_has_died_says_so(channel: str, redis_server: RedisServer) -> None:
    writer = RedisStreamsManager(redis_server.url, channel=channel, write_only=True)
    writer.start()

    def die() -> None:
        raise SystemExit("of a test")

    writer._bridge.soon(die)
    assert writer._bridge._ended is not None
    writer._bridge._ended.wait(10)
    assert writer.unhealthy_reasons == [
        "the client manager does not run any more: its thread ended by SystemExit('of a test')"
    ]
    assert not writer.healthy


@pytest.mark.parametrize("synchronous", [False, True], ids=["asyncio", "synchronous"])
async def test_emits_that_fail_are_counted(synchronous: bool) -> None:
    class Fates(NoMetrics):
        def __init__(self) -> None:
            self.counts: Counter[Fate] = Counter()

        def appended(self, fate: Fate, entries: int) -> None:
            self.counts[fate] += entries

    metrics = Fates()
    url = f"redis://127.0.0.1:{free_port()}/0"
    kind: Any = RedisStreamsManager if synchronous else AsyncRedisStreamsManager
    manager = kind(url, write_only=True, publish_timeout=0.1, metrics=metrics)
    for _ in range(2):
        with pytest.raises(PublishTimeout):
            await (asyncio.to_thread(manager.emit, "e", 1) if synchronous else manager.emit("e", 1))
    assert metrics.counts[Fate.WITHDRAWN] == 2
    await (asyncio.to_thread(manager.close) if synchronous else manager.close())


@KINDS
async def test_a_trace_crosses_nodes(start_node: StartNode, clients: JsClients, kind: str) -> None:
    a, b = await start_node(server_kind=kind, tracing=True), await start_node(tracing=True)
    untraced = await start_node()
    for node in (b, untraced):
        await clients.open(node, options=WEBSOCKET)
    await a.emit("news", 1)
    assert await settle(untraced, clients.by_name[next(reversed(clients.by_name))]) == [("news", 1)]

    async def spans(node: NodeProcess, name: str) -> list[dict[str, Any]]:
        return [span for span in (await node.look())["spans"] if span["name"] == name]

    await until(lambda: spans(b, "socketio.dispatch"))
    (emit,), (append,) = await spans(a, "socketio.emit"), await spans(a, "socketio.append")
    dispatched = [span for span in await spans(b, "socketio.dispatch") if span["trace"] == emit["trace"]]
    assert append["parent"] == emit["span"]
    assert emit["start"] <= append["start"] <= append["end"] <= emit["end"]
    assert [(span["parent"], span["remote"]) for span in dispatched] == [(emit["span"], True)]
    assert dispatched[0]["attributes"]["socketio.recipients"] == 1
    assert await spans(a, "socketio.dispatch") == []  # it has no clients
    assert (await untraced.look())["spans"] == []


@KINDS
async def test_an_emit_that_fails_leaves_a_span_with_the_error(channel: str, kind: str) -> None:
    node = NodeProcess(
        "a",
        f"redis://127.0.0.1:{free_port()}/0",
        server_kind=kind,
        tracing=True,
        start=False,
        manager={"channel": channel, "publish_timeout": 0.2},
    )
    try:
        await node.start()
        with pytest.raises(RuntimeError, match="PublishTimeout"):
            await node.emit("lost")
        (span,) = (await node.look())["spans"]
        assert (span["name"], span["status"]) == ("socketio.emit", "ERROR")
    finally:
        node.stop()
