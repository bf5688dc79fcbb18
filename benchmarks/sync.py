"""Synchronous servers and scripts, beside python-socketio's ``RedisManager`` in the same mode.

``RedisManager`` can't recover clients. In the work about recovery it only accepts new connections. What a script emits
goes to one node of the same kind, which has no clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from . import works
from .bench import ROOM, SIZE, Bench, BenchCluster, Measures
from .processes import BenchNode, Kind
from .works import Work

#: How servers serve, and what the report calls that.
MODES = {"threads": "threading", "gevent": "gevent"}
#: Threads of a server that emit at the same time: as many as coroutines do in the other works.
IN_FLIGHT = 64
#: Threads of a script that emit at the same time.
THREADS = 8


def pair(mode: str) -> tuple[Kind, Kind]:
    """This library and its peer in one mode."""
    return cast(Kind, mode), cast(Kind, f"{mode}-redis")


def fan_out(count: int, threads: int) -> Callable[[BenchCluster], Measures]:
    """Returns the run of a fan-out. This library emits four times as many events, so that both take about as long."""

    def run(cluster: BenchCluster) -> Measures:
        share = 1 if cluster.kind.endswith("-redis") else 4
        return cluster.fan_out(cluster.bench.some(count) * share, threads, 0.005)

    return run


def back(missed: int) -> Callable[[BenchCluster], Measures]:
    """Returns the run of a work in which all clients come back; with this library they recover, too.

    :param missed: how many events each client misses.
    """

    def run(cluster: BenchCluster) -> Measures:
        peer = cluster.kind.endswith("-redis")
        cluster.away(0 if peer else missed, 0)
        before = [node.usage.cpu for node in cluster.others]
        start = time.monotonic()
        if peer:
            cluster.receivers.connect(cluster.receivers.all, [node.port for node in cluster.others], 0.001)
            seconds = time.monotonic() - start
        else:
            seconds = cluster.back(missed)
        cpu = sum(node.usage.cpu for node in cluster.others) - sum(before)
        return {"s": seconds, "cpu ms per client": 1000 * cpu / len(cluster.receivers.all)}

    return run


def anew(cluster: BenchCluster) -> Measures:
    """Connects all clients for the first time, at once."""
    cluster.away(0, 0)
    for receiver in cluster.receivers.all:
        receiver.pid = receiver.offset = None
    before, start = cluster.others[0].usage.cpu, time.monotonic()
    cluster.receivers.connect(cluster.receivers.all, [node.port for node in cluster.others], 0.001)
    seconds, cpu = time.monotonic() - start, cluster.others[0].usage.cpu - before
    return {"s": seconds, "cpu ms per client": 1000 * cpu / len(cluster.receivers.all)}


def works_of(bench: Bench) -> list[Work]:
    """All works of servers, in the order of the report."""
    some = bench.some

    def joined(count: int) -> Callable[[BenchCluster], None]:
        def prepare(cluster: BenchCluster) -> None:
            cluster.join(some(count))
            cluster.fan_out(3, 1)  # a client that has no offset yet could not ask for what it missed

        return prepare

    found = []
    for mode, title in MODES.items():
        kinds = pair(mode)
        found += [
            Work(
                f"sync-{mode}-fanout-200",
                f"{title}: fan-out, 200 receivers",
                *(kinds, joined(200), fan_out(100, IN_FLIGHT)),
            ),
            Work(
                f"sync-{mode}-fanout-20",
                f"{title}: fan-out, 20 receivers",
                *(kinds, joined(20), fan_out(500, IN_FLIGHT)),
            ),
            Work(f"sync-{mode}-one", f"{title}: one receiver, one thread emits", *(kinds, joined(1), fan_out(500, 1))),
            Work(
                f"sync-{mode}-latency",
                f"{title}: latency at 200 events/s, 20 receivers",
                *(kinds, joined(20), works.latency),
            ),
            Work(f"sync-{mode}-connect", f"{title}: 200 clients connect at once", *(kinds, joined(200), anew)),
            Work(
                f"sync-{mode}-recover",
                f"{title}: 200 clients come back at once; 20 missed each, with this library",
                *(kinds, joined(200), back(20)),
            ),
        ]
    return found


#: What the command line calls the works of a script.
SCRIPT = "sync-script"


def names(bench: Bench) -> list[str]:
    """What may be run alone; ``sync`` is everything."""
    return ["sync", SCRIPT, *(work.name for work in works_of(bench))]


def measure(bench: Bench, only: list[str] | None) -> dict[str, Any]:
    """Runs the works.

    :param only: their names, or ``None`` for all.
    :returns: as the results of other works, by name. The contestants are called ``recovery`` and ``redis``.
    """
    found: dict[str, Any] = {}
    everything = only is None or "sync" in only
    for work in works_of(bench):
        if everything or work.name in (only or ()):
            bench.say(f"  {work.title}")
            result = works.measure(bench, work, list(work.kinds))
            named = {name: result[kind] for name, kind in zip(("recovery", "redis"), work.kinds, strict=True)}
            found[work.name] = {"title": work.title, "result": named}
    if everything or SCRIPT in (only or ()):
        bench.say("  scripts")
        found |= scripts(bench)
    return found


def scripts(bench: Bench) -> dict[str, Any]:
    """Measures processes without a server that only emit, while one node follows the log or the channel."""
    kinds = pair("script")
    titles = {
        "first": "script: a new process",
        "one": "script: one thread, one emit after the other",
        "many": f"script: {THREADS} threads",
    }
    result: dict[str, dict[str, dict[str, list[float]]]] = {name: {"recovery": {}, "redis": {}} for name in titles}

    def note(name: str, kind: Kind, measures: Measures) -> None:
        for measure, value in measures.items():
            result[name]["redis" if kind.endswith("-redis") else "recovery"].setdefault(measure, []).append(value)

    for number in range(bench.rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            channel = f"bench-{kind}"
            listener = BenchNode(pair("threads")[kinds.index(kind)], bench.server.url, channel)
            script = BenchNode(kind, bench.server.url, channel)
            try:
                script.tell("first")
                note("first", kind, script.answer())
                for name, threads in (("one", 1), ("many", THREADS)):
                    count = bench.some(3000, 10)
                    script.emit(50, ROOM, threads)
                    script.answer()
                    before = bench.redis_usage.cpu
                    script.emit(count, ROOM, threads, SIZE)
                    answer = script.answer()
                    measures = {
                        "emits/s": count / (answer["end"] - answer["start"]),
                        "cpu µs per emit": 1e6 * answer["cpu"] / count,
                        "redis µs per emit": 1e6 * (bench.redis_usage.cpu - before) / count,
                    }
                    note(name, kind, measures)
            finally:
                script.stop()
                listener.stop()
                bench.redis.flushall()
        rates = [f"{kind} {result['one'][kind]['emits/s'][-1]:,.4g}" for kind in ("recovery", "redis")]
        bench.say(f"  round {number + 1}: {', '.join(rates)}")
    return {f"{SCRIPT}-{name}": {"title": title, "result": result[name]} for name, title in titles.items()}
