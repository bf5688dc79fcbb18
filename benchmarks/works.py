"""The comparison of the contestants.

A *work* is one kind of load. For each work, all contestants are started side by side. Then they run it in turn, round
by round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from .bench import ROOM, SIZE, Bench, BenchCluster, Measures
from .processes import Kind

#: How many times as many events the faster contestants emit, so that each of them is busy for about a second.
SHARE: dict[Kind, int] = {"recovery": 8, "uvicorn": 8, "node": 2, "bare": 2, "redis": 1, "redis-uvicorn": 1}


@dataclass
class Work:
    """One line of the table.

    :param name: what the command line calls it.
    :param title: what the report calls it.
    :param kinds: the contestants that can do it.
    :param prepare: called once for each contestant, before the first round.
    :param run: called once for each contestant and round; returns what it measured.
    :param rounds: the most rounds to run.
    """

    name: str
    title: str
    kinds: Sequence[Kind]
    prepare: Callable[[BenchCluster], None]
    run: Callable[[BenchCluster], Measures]
    rounds: int = 99


#: The results of one work: contestant -> the name of the quantity -> one value for each round.
Result = dict[str, dict[str, list[float]]]


def measure(bench: Bench, work: Work, kinds: Sequence[Kind]) -> Result:
    """Runs one work. The contestants take turns, so that whatever else the machine does affects all of them alike.

    :param kinds: the contestants to run; those that can't do this work are left out.
    """
    kinds = [kind for kind in work.kinds if kind in kinds]
    result: Result = {kind: {} for kind in kinds}
    with ExitStack() as stack:
        clusters = {kind: stack.enter_context(bench.cluster(kind)) for kind in kinds}
        for cluster in clusters.values():
            work.prepare(cluster)
        for number in range(min(bench.rounds, work.rounds)):
            for i in range(len(kinds)):
                kind = kinds[(i + number) % len(kinds)]
                for cluster in clusters.values():
                    cluster.receivers.rest(0.02)  # answers pings, or its server would think that its clients are gone
                values = work.run(clusters[kind])
                for name, value in values.items():
                    result[kind].setdefault(name, []).append(value)
            medians = ", ".join(f"{k} {statistics.median(next(iter(result[k].values()))):,.4g}" for k in kinds)
            bench.say(f"  round {number + 1}: {medians}")
    return result


def latency(cluster: BenchCluster) -> Measures:
    """Measures the time from an emit until its receivers have the event, at 200 events per second."""
    receivers = cluster.receivers
    receivers.reset()
    for receiver in receivers.all:
        receiver.latencies = []
    count = cluster.bench.some(600, 20)
    cluster.emitter.emit(count, ROOM, 1, SIZE, rate=200)
    receivers.until_received(count)
    cluster.emitter.answer()
    found = sorted(seconds for receiver in receivers.all for seconds in receiver.latencies or ())
    return {"p50 ms": 1000 * found[len(found) // 2], "p99 ms": 1000 * found[int(len(found) * 0.99)]}


def recover(missed: int, other: int) -> Callable[[BenchCluster], Measures]:
    """Returns the run of a work in which all clients recover. With ``AsyncRedisManager`` they can only connect again.

    :param missed: how many events each client misses.
    :param other: how many events for nobody are emitted between them.
    """

    def run(cluster: BenchCluster) -> Measures:
        if cluster.kind == "redis":
            cluster.away(0, 0)
            before = [node.usage.cpu for node in cluster.others]
            start = time.monotonic()
            cluster.receivers.connect(cluster.receivers.all, [node.port for node in cluster.others], 0.001)
            seconds = time.monotonic() - start
        else:
            cluster.away(missed, cluster.bench.some(other))
            before = [node.usage.cpu for node in cluster.others]
            seconds = cluster.back(missed)
        cpu = sum(node.usage.cpu for node in cluster.others) - sum(before)
        return {"s": seconds, "cpu ms per client": 1000 * cpu / len(cluster.receivers.all)}

    return run


def works(bench: Bench) -> list[Work]:
    """Returns all works, in the order of the report."""
    some = bench.some

    def joined(count: int) -> Callable[[BenchCluster], None]:
        return lambda cluster: cluster.join(some(count))

    def met(count: int) -> Callable[[BenchCluster], None]:
        return lambda cluster: cluster.meet(some(count))

    everyone: tuple[Kind, ...] = ("recovery", "redis", "node")
    fan_out: tuple[Kind, ...] = ("recovery", "uvicorn", "redis", "redis-uvicorn", "node", "bare")
    return [
        Work(
            "fanout-200",
            "fan-out, 200 receivers",
            fan_out,
            joined(200),
            lambda c: c.fan_out(some(400) * SHARE[c.kind], pause=0.01),
        ),
        Work(
            "fanout-20",
            "fan-out, 20 receivers",
            fan_out,
            joined(20),
            lambda c: c.fan_out(some(1500) * SHARE[c.kind], pause=0.01),
        ),
        Work(
            "awaited",
            "one receiver, each emit awaited",
            ("recovery", "redis"),
            joined(1),
            lambda c: c.fan_out(some(2000), 1, 0.002),
        ),
        Work(
            "in-flight",
            "one receiver, 64 emits in flight",
            everyone,
            joined(1),
            lambda c: c.fan_out(some(2500) * SHARE[c.kind], 64, 0.002),
        ),
        Work("latency", "latency at 200 events/s, 20 receivers", everyone, joined(20), latency),
        Work(
            "recover-200",
            "200 clients recover, 20 missed each, 9,000 unrelated events between",
            everyone,
            met(200),
            recover(20, 9000),
            3,
        ),
        Work("recover-500", "500 clients, the same", everyone, met(500), recover(20, 9000), 1),
        Work("recover-1k", "200 clients, 1,000 unrelated events", ("recovery",), met(200), recover(20, 1000), 5),
        Work("recover-100k", "200 clients, 100,000 unrelated events", ("recovery",), met(200), recover(20, 100_000), 5),
    ]
