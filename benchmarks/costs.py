"""What one client, one session and one stored event cost."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from .bench import Bench, Measures
from .processes import Kind


def stored(bench: Bench, kind: Kind, events: int) -> Measures:
    """Measures how many bytes each stored event takes in Redis."""
    with bench.cluster(kind) as cluster:
        cluster.join(1)
        cluster.write(events)
        cluster.pause()
        streams = list(bench.redis.scan_iter(_type="STREAM"))
        memory = sum(int(bench.redis.memory_usage(key, samples=0) or 0) for key in streams)
        entries = sum(int(bench.redis.xlen(key)) for key in streams)
        return {"bytes per event": memory / entries}


def idle(bench: Bench, clients: int, seconds: float) -> dict[str, Measures]:
    """Measures what idle clients cost their node: memory, and processor time with the default pings.

    :param seconds: how long to measure the processor time.
    """
    kinds: tuple[Kind, ...] = ("recovery", "redis", "node")
    found: dict[str, Measures] = {}
    with ExitStack() as stack:
        clusters = {kind: stack.enter_context(bench.cluster(kind)) for kind in kinds}
        for kind, cluster in clusters.items():
            cluster.join(20)  # so that what the node loads with its first clients is not counted
            before = cluster.others[0].memory()
            cluster.join(clients)
            found[kind] = {"bytes per client": (cluster.others[0].memory() - before) / clients}
        cpu = {kind: cluster.others[0].usage.cpu for kind, cluster in clusters.items()}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for cluster in clusters.values():
                cluster.receivers.rest(0.05)
        for kind, cluster in clusters.items():
            used = cluster.others[0].usage.cpu - cpu[kind]
            found[kind]["cpu % per 1000 clients"] = 100 * used / seconds * 1000 / (clients + 20)
    return found


def heartbeats(bench: Bench, clients: int, times: int) -> Measures:
    """Measures what a session takes in Redis, and what each of its heartbeats costs the node and Redis.

    :param times: how many heartbeats to measure; there are two per second.
    """

    def memory() -> int:
        info: Any = bench.redis.info("memory")
        return int(info["used_memory"])

    with bench.cluster("recovery", manager={"heartbeat_interval": 0.5}) as cluster:
        cluster.join(1)
        empty = memory()
        cluster.join(clients, lambda i: [])
        stored = (memory() - empty) / clients
        before = cluster.others[0].usage.cpu, bench.redis_usage.cpu
        cluster.receivers.rest(0.5 * times)
        node, server = cluster.others[0].usage.cpu - before[0], bench.redis_usage.cpu - before[1]
        return {
            "node µs": 1e6 * node / clients / times,
            "redis µs": 1e6 * server / clients / times,
            "redis bytes": stored,
        }


def window(bench: Bench, events: int) -> Measures:
    """Measures how much of a node's memory each event in its window takes."""
    with bench.cluster("recovery") as cluster:
        cluster.join(1)
        cluster.write(bench.some(1000))
        cluster.pause()
        before = cluster.others[0].memory()
        cluster.write(events)
        cluster.receivers.rest(0.5)
        return {"bytes per event": (cluster.others[0].memory() - before) / events}
