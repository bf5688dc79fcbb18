"""How costs grow: each curve varies one quantity and keeps everything else the same.

The curves are for this library, and for other contestants where the comparison says something.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .bench import ROOM, SIZE, Bench, BenchCluster, Measures
from .processes import Kind


@dataclass
class Curve:
    """The data of one plot.

    :param name: what the command line calls it.
    :param title: what the plot calls it.
    :param x: the label of the quantity that is varied.
    :param y: the label of the quantity that is measured, with its unit.
    :param xs: the values of the quantity that is varied.
    :param lines: the title of a line -> for each of ``xs``, the measured values of all rounds.
    :param log: whether the horizontal axis is logarithmic.
    """

    name: str
    title: str
    x: str
    y: str
    xs: Sequence[int]
    lines: dict[str, list[list[float]]] = field(default_factory=dict)
    log: bool = True

    def add(self, line: str, i: int, value: float) -> None:
        """Adds the value that was measured in one round for ``xs[i]``."""
        self.lines.setdefault(line, [[] for _ in self.xs])[i].append(value)


def receivers(bench: Bench) -> Curve:
    """Measures the processor time that each event takes on the node that has the clients."""
    xs = [bench.some(x) for x in (1, 10, 50, 200, 1000)]
    curve = Curve("receivers", "an event's cost for the receiving node", "receivers", "µs of CPU per event", xs)
    kinds: tuple[tuple[Kind, str], ...] = (("recovery", "this library"), ("node", "Node's adapter"))
    for i, count in enumerate(xs):
        for kind, title in kinds:
            with bench.cluster(kind) as cluster:
                cluster.join(count)
                events = bench.some(min(3000, 100_000 // count))
                cluster.fan_out(max(1, events // 4), pause=0.01)
                for _ in range(bench.rounds):
                    curve.add(title, i, _cpu_of(cluster, events))
    return curve


def _cpu_of(cluster: BenchCluster, events: int) -> float:
    """Returns the processor time of a receiving node for each event, in µs."""
    usage = cluster.others[0].usage
    before = usage.cpu
    cluster.fan_out(events, pause=0.02)
    return 1e6 * (usage.cpu - before) / events


def nodes(bench: Bench) -> Curve:
    """Measures the cost of an event in larger and larger clusters.

    Every node reads every event, whether or not it has clients for it.
    """
    xs = [1, 2, 4, 8]
    curve = Curve("nodes", "an event's cost in a cluster", "nodes", "µs of CPU per event", xs, log=False)
    rate, events = 1000, bench.some(3000, 100)
    for i, count in enumerate(xs):
        with bench.cluster("recovery", count + 1) as cluster:
            cluster.pause()
            for _ in range(bench.rounds):
                before = [node.usage.cpu for node in cluster.nodes], bench.redis_usage.cpu
                cluster.emitter.emit(events, ROOM, 8, SIZE, rate)
                cluster.emitter.answer()
                cluster.pause()
                used = [node.usage.cpu - old for node, old in zip(cluster.nodes, before[0], strict=True)]
                curve.add("the emitting node", i, 1e6 * used[0] / events)
                curve.add("each other node", i, 1e6 * statistics.mean(used[1:]) / events)
                curve.add("Redis", i, 1e6 * (bench.redis_usage.cpu - before[1]) / events)
    return curve


def rooms(bench: Bench) -> Curve:
    """Measures the cost of an event with 200 clients that are spread over more and more rooms. An event goes to one."""
    xs = [1, 10, 100, 1000]
    curve = Curve("rooms", "an event's cost by rooms, 200 clients", "rooms", "µs of CPU per event", xs)
    count = bench.some(200, 2)
    for i, many in enumerate(xs):
        with bench.cluster("recovery") as cluster:
            cluster.join(count, lambda n, many=many: [f"room{n % many}"])  # type: ignore[misc]
            usage = cluster.others[0].usage
            for _ in range(bench.rounds):
                events = bench.some(2000, 20)
                before = usage.cpu
                cluster.emitter.emit(events, None, 64, SIZE, rooms=many)
                cluster.emitter.answer()
                cluster.receivers.rest(0.3)
                curve.add("this library", i, 1e6 * (usage.cpu - before) / events)
    return curve


def missed(bench: Bench) -> Curve:
    """Measures how long recovery takes when each client missed more and more events."""
    xs = [1, 10, 100, 1000]
    curve = Curve("missed", "recovery by missed events, 100 clients", "events missed by each", "seconds", xs)
    with bench.cluster("recovery") as cluster:
        cluster.join(bench.some(100))
        for _ in range(bench.rounds):
            for i, count in enumerate(xs):
                cluster.away(count, 0)
                curve.add("until all have them", i, cluster.back(count))
    return curve


def unrelated(bench: Bench) -> Curve:
    """Measures how long recovery takes when there were more and more events for others meanwhile."""
    xs = [bench.some(x) for x in (100, 1000, 10_000, 100_000)]
    curve = Curve("unrelated", "recovery by other traffic, 100 clients", "events meanwhile, to others", "seconds", xs)
    with bench.cluster("recovery") as cluster:
        cluster.join(bench.some(100))
        for _ in range(bench.rounds):
            for i, count in enumerate(xs):
                cluster.away(20, count)
                curve.add("until all have 20 missed", i, cluster.back(20))
    return curve


def concurrent(bench: Bench) -> tuple[Curve, list[dict[str, float]]]:
    """Measures how long recovery takes when a node is killed and all its clients recover on two others at once.

    :returns: the curve, and for each number of clients everything that was measured in the last round.
    """
    xs = [bench.some(x) for x in (100, 500, 1000, 2000)]
    curve = Curve("concurrent", "a killed node's clients recover on two others", "clients", "seconds", xs)
    found = []
    for i, count in enumerate(xs):
        for _ in range(min(2, bench.rounds)):
            values = _killed(bench, count)
            curve.add("until all have 20 missed", i, values["s"])
        found.append(values)
    return curve, found


def _killed(bench: Bench, clients: int) -> Measures:
    """Kills a node with so many clients, which then recover on two others."""
    with bench.cluster("recovery", 4) as cluster:
        cluster.lose_a_node(clients)
        missed = 20
        cluster.write(missed)
        cluster.pause()
        before = sum(node.usage.cpu for node in cluster.others), bench.redis_usage.cpu
        bench.redis.config_resetstat()
        seconds = cluster.back(missed)
        stats: Any = bench.redis.info("commandstats")
        scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
        return {
            "clients": clients,
            "s": seconds,
            "cpu ms per client": 1000 * (sum(node.usage.cpu for node in cluster.others) - before[0]) / clients,
            "redis cpu ms per client": 1000 * (bench.redis_usage.cpu - before[1]) / clients,
            "redis calls per client": scripts / clients,
        }


def memory(bench: Bench) -> Curve:
    """Measures how much memory the retained events take in Redis and in each node."""
    xs = [bench.some(x) for x in (10_000, 25_000, 50_000, 100_000)]
    curve = Curve("memory", "memory by events within the retention", "events of 100 bytes", "MB", xs, log=False)
    with bench.cluster("recovery") as cluster:
        cluster.join(1)
        cluster.write(bench.some(1000))
        before = cluster.others[0].memory()
        so_far = 0
        for i, count in enumerate(xs):
            cluster.write(count - so_far)
            so_far = count
            cluster.receivers.rest(0.5)
            (stream,) = bench.redis.scan_iter(_type="STREAM")
            curve.add("Redis", i, int(bench.redis.memory_usage(stream, samples=0) or 0) / 1e6)
            curve.add("each node's window", i, (cluster.others[0].memory() - before) / 1e6)
    return curve


CURVES: tuple[Callable[[Bench], Curve], ...] = (receivers, nodes, rooms, missed, unrelated, memory)
