"""What partitions bring: the log divided among the masters of a Redis Cluster, and a node that follows a part of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from socketio_recovery.redis.keys import partition_of

from tests.support.redis_cluster import RedisCluster

from .bench import ROOM, SIZE, Bench
from .processes import BenchNode, Usage

#: Into how many partitions the log is divided, on as many servers.
DIVISIONS = (1, 2, 4)
#: Nodes that emit at the same time, each in a namespace of its own.
NODES = 4
#: Partitions of which a node follows one.
MANY = 16
#: Events per second that the others emit meanwhile.
RATE = 2000


def namespaces(shards: int, count: int) -> list[str]:
    """Returns names of namespaces, the ``i``-th of which belongs to partition ``i % shards``."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"/tenant-{number}"
        number += 1
        if partition_of(name, shards) == len(found) % shards:
            found.append(name)
    return found


def measure(bench: Bench) -> dict[str, Any]:
    """Measures both.

    :returns: for each number of partitions, and for each way to follow the log: quantities -> one value for each round.
    """
    divided: dict[str, dict[str, list[float]]] = {str(shards): {} for shards in DIVISIONS}
    followed: dict[str, dict[str, list[float]]] = {str(shards): {} for shards in (1, MANY)}
    for _ in range(bench.rounds):
        for shards in DIVISIONS:
            _note(divided[str(shards)], _divided(shards, bench.some(20_000, 100)))
        for shards in (1, MANY):
            _note(followed[str(shards)], _followed(bench, shards, bench.some(5 * RATE, 100)))
    return {"divided": divided, "followed": followed}


def _note(figures: dict[str, list[float]], found: dict[str, float]) -> None:
    for name, value in found.items():
        figures.setdefault(name, []).append(value)


def _divided(shards: int, events: int) -> dict[str, float]:
    """Measures how much four nodes store, each of which emits in its own namespace and follows the log of that."""
    cluster = RedisCluster(masters=shards, replicas=False)
    asyncio.run(cluster.start())
    nodes: list[BenchNode] = []
    try:
        options = {"shards": shards, "inbox": False}
        for name in namespaces(shards, NODES):
            nodes.append(BenchNode("recovery", cluster.url, "bench", namespaces=[name], manager=options))
        servers = [Usage(server.process.pid) for server in cluster.servers if server.process is not None]
        for node in nodes:
            node.emit(10, ROOM, 10, SIZE)
            node.answer()
        before = sum(usage.cpu for usage in servers), sum(node.usage.cpu for node in nodes)
        for node in nodes:
            node.emit(events, ROOM, 512, SIZE)
        answers = [node.answer() for node in nodes]
        seconds = max(answer["end"] for answer in answers) - min(answer["start"] for answer in answers)
        time.sleep(0.5)  # until all have read what the others stored
        redis = sum(usage.cpu for usage in servers) - before[0]
        own = sum(node.usage.cpu for node in nodes) - before[1]
        total = NODES * events
        return {
            "events/s stored": total / seconds,
            "Redis: µs of CPU per event": 1e6 * redis / total,
            "nodes: µs of CPU per event": 1e6 * own / total,
        }
    finally:
        for node in nodes:
            node.stop()
        cluster.stop()


def _followed(bench: Bench, shards: int, events: int) -> dict[str, float]:
    """Measures what a node spends on the events of others, of which one in sixteen is in a namespace that it uses."""
    names = namespaces(shards, MANY)
    options = {"shards": shards, "inbox": False}
    nodes: list[BenchNode] = []
    try:
        node = BenchNode("recovery", bench.server.url, "bench", namespaces=[names[-1]], manager=options)
        nodes.append(node)
        writer = BenchNode("writer", bench.server.url, "bench", namespaces=names, manager=options)
        nodes.append(writer)
        node.emit(1, ROOM, 1, SIZE)
        node.answer()
        before = node.usage.cpu
        writer.emit(events, ROOM, 64, SIZE, rate=RATE)
        writer.answer()
        time.sleep(0.5)
        return {"follower: µs of CPU per event of others": 1e6 * (node.usage.cpu - before) / events}
    finally:
        for node in nodes:
            node.stop()
        bench.redis.flushall()
