"""What is measured: each work sets up its contestants side by side, then runs them in turn, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from chat.__main__ import die_with_parent
from chat.redis_server import RedisServer

from .event import OTHER
from .processes import BenchNode, Kind, Usage
from .receivers import Receivers

ROOM = "room"
#: Bytes of an event's argument, as JSON.
SIZE = 100
#: How much more the faster contestants get to do, so that each has about a second's work.
SHARE: dict[Kind, int] = {"recovery": 8, "node": 2, "bare": 2, "redis": 1}

#: What one run measured, by name.
Measures = dict[str, float]


@dataclass
class Bench:
    """Where everything runs.

    :param rounds: how often each contestant runs.
    :param scale: a part of the load, for a smoke test; 1 for the real one.
    :param say: told what is going on.
    """

    rounds: int
    scale: float
    say: Callable[[str], None]
    server: RedisServer = field(default_factory=lambda: RedisServer(preexec=die_with_parent))

    def __post_init__(self) -> None:
        assert self.server.process is not None
        self.redis = redis.Redis.from_url(self.server.url)
        self.redis_usage = Usage(self.server.process.pid)

    def some(self, count: int, least: int = 1) -> int:
        """``count``, or a part of it."""
        return max(least, round(count * self.scale))

    @contextmanager
    def cluster(self, kind: Kind, nodes: int = 2, **config: Any) -> Iterator[BenchCluster]:
        """Nodes of one contestant, with a log of their own, and receivers."""
        started: list[BenchNode] = []
        receivers = Receivers()
        try:
            if kind == "node":  # it may be busy with recoveries for longer than it waits for pongs, or for a CONNECT
                config.setdefault("server", {"pingTimeout": 200_000, "connectTimeout": 200_000})
            for _ in range(1 if kind == "bare" else nodes):
                started.append(BenchNode(kind, self.server.url, f"bench-{kind}", **config))
            yield BenchCluster(kind, started, receivers, self)
        finally:
            receivers.close()
            for node in started:
                node.stop()
            self.redis.flushall()

    def stop(self) -> None:
        self.redis.close()
        self.server.stop()


@dataclass
class BenchCluster:
    """One contestant's processes, and its clients."""

    kind: Kind
    nodes: list[BenchNode]
    receivers: Receivers
    bench: Bench

    @property
    def emitter(self) -> BenchNode:
        """Node A: has no clients."""
        return self.nodes[0]

    @property
    def others(self) -> list[BenchNode]:
        """The nodes with clients."""
        return self.nodes[1:] or self.nodes

    def join(self, count: int, rooms: Callable[[int], Sequence[str]] = lambda i: [ROOM]) -> None:
        self.receivers.add(count, [node.port for node in self.others], rooms)
        self.receivers.rest(0.3)

    def fan_out(self, count: int, in_flight: int = 64, pause: float = 0.005) -> Measures:
        """Emits on A, until all receivers have it."""
        self.receivers.reset()
        self.emitter.emit(count, ROOM, in_flight, SIZE)
        end = self.receivers.until_received(count, pause)
        start = self.emitter.answer()["start"]
        return {"deliveries/s": count * len(self.receivers.all) / (end - start)}

    def write(self, count: int, room: str = ROOM, name: str = "bench") -> None:
        """Emits, and waits until it is stored."""
        if count:
            self.emitter.emit(count, room, 64, SIZE, name=name)
            self.emitter.answer()

    def away(self, missed: int, other: int) -> None:
        """All clients are cut off, miss something, and something else happens meanwhile."""
        for receiver in self.receivers.all:
            receiver.drop()
        self.pause()
        self.write(missed // 2)
        self.write(other, "nobody", OTHER)
        self.write(missed - missed // 2)
        self.pause()
        self.receivers.reset()

    def pause(self) -> None:
        """Lets the nodes see what has just happened."""
        time.sleep(0.3)

    def back(self, missed: int) -> float:
        """All clients come back at once; returns after how many seconds all have what they missed."""
        start = time.monotonic()
        self.receivers.connect(self.receivers.all, [node.port for node in self.others], 0.001)
        end = self.receivers.until_received(missed, 0.001)
        lost = sum(not receiver.recovered for receiver in self.receivers.all)
        if lost:
            raise RuntimeError(f"{lost} of {len(self.receivers.all)} clients were not recovered")
        return end - start


@dataclass
class Work:
    """One line of the table.

    :param run: called once for each contestant and round, with what ``prepare`` made ready.
    :param rounds: at most so many.
    """

    name: str
    title: str
    kinds: Sequence[Kind]
    prepare: Callable[[BenchCluster], None]
    run: Callable[[BenchCluster], Measures]
    rounds: int = 99


#: Of one work: contestant -> measure -> one value for each round.
Result = dict[str, dict[str, list[float]]]


def measure(bench: Bench, work: Work, kinds: Sequence[Kind]) -> Result:
    """Runs one work: contestants in turn, so that what else the machine does hits all alike."""
    kinds = [kind for kind in work.kinds if kind in kinds]
    result: Result = {kind: {} for kind in kinds}
    with ExitStack() as stack:
        clusters = {kind: stack.enter_context(bench.cluster(kind)) for kind in kinds}
        for cluster in clusters.values():
            work.prepare(cluster)
        for number in range(min(bench.rounds, work.rounds)):
            for i in range(len(kinds)):
                kind = kinds[(i + number) % len(kinds)]
                values = work.run(clusters[kind])
                for name, value in values.items():
                    result[kind].setdefault(name, []).append(value)
            medians = ", ".join(f"{k} {statistics.median(next(iter(result[k].values()))):,.4g}" for k in kinds)
            bench.say(f"  round {number + 1}: {medians}")
    return result


def latency(cluster: BenchCluster) -> Measures:
    """200 events per second."""
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
    """All clients recover, or, where that is impossible, merely connect."""

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
    some = bench.some

    def joined(count: int) -> Callable[[BenchCluster], None]:
        return lambda cluster: cluster.join(some(count))

    def met(count: int) -> Callable[[BenchCluster], None]:
        """They have seen an event: BenchNode's adapter can't recover a client without an offset."""

        def prepare(cluster: BenchCluster) -> None:
            cluster.join(some(count))
            cluster.fan_out(3)

        return prepare

    everyone: tuple[Kind, ...] = ("recovery", "redis", "node")
    return [
        Work(
            "fanout-200",
            "fan-out, 200 receivers",
            (*everyone, "bare"),
            joined(200),
            lambda c: c.fan_out(some(400) * SHARE[c.kind], pause=0.01),
        ),
        Work(
            "fanout-20",
            "fan-out, 20 receivers",
            (*everyone, "bare"),
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


# -- what has no rounds -----------------------------------------------------------------------------


def killed(bench: Bench, clients: int) -> Measures:
    """A node is killed; its clients recover on two others."""
    with bench.cluster("recovery", 4) as cluster:
        emitter, victim, *survivors = cluster.nodes
        cluster.receivers.add(clients, [victim.port], lambda i: [ROOM])
        cluster.receivers.rest(0.5)
        victim.kill()
        cluster.receivers.until(lambda: all(receiver.socket is None for receiver in cluster.receivers.all))
        missed = 20
        cluster.write(missed)
        cluster.pause()
        before = sum(node.usage.cpu for node in survivors), bench.redis_usage.cpu
        bench.redis.config_resetstat()
        cluster.nodes = [emitter, *survivors]
        seconds = cluster.back(missed)
        stats: Any = bench.redis.info("commandstats")
        scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))
        return {
            "clients": clients,
            "s": seconds,
            "cpu ms per client": 1000 * (sum(node.usage.cpu for node in survivors) - before[0]) / clients,
            "redis cpu ms per client": 1000 * (bench.redis_usage.cpu - before[1]) / clients,
            "redis calls per client": scripts / clients,
        }


def stored(bench: Bench, kind: Kind, events: int) -> Measures:
    """Bytes in Redis for each stored event."""
    with bench.cluster(kind) as cluster:
        cluster.join(1)
        cluster.write(events)
        cluster.pause()
        streams = list(bench.redis.scan_iter(_type="STREAM"))
        memory = sum(int(bench.redis.memory_usage(key, samples=0) or 0) for key in streams)
        entries = sum(int(bench.redis.xlen(key)) for key in streams)
        return {"bytes per event": memory / entries}


def idle(bench: Bench, clients: int, seconds: float) -> dict[str, Measures]:
    """What idle clients cost their node: memory, and processor time with the default pings."""
    kinds: tuple[Kind, ...] = ("recovery", "redis", "node")
    found: dict[str, Measures] = {}
    with ExitStack() as stack:
        clusters = {kind: stack.enter_context(bench.cluster(kind)) for kind in kinds}
        for kind, cluster in clusters.items():
            cluster.join(20)  # what is loaded with the first client
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
    """What it costs to keep a session, and to keep it alive, each time."""

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
    """What an event in the window takes of a node's memory."""
    with bench.cluster("recovery") as cluster:
        cluster.join(1)
        cluster.write(bench.some(1000))
        cluster.pause()
        before = cluster.others[0].memory()
        cluster.write(events)
        cluster.receivers.rest(0.5)
        return {"bytes per event": (cluster.others[0].memory() - before) / events}


def appended(bench: Bench, events: int) -> dict[str, list[float]]:
    """Entries per second into Redis: by a node with 512 emits in flight, and by pipelined XADD alone."""
    found: dict[str, list[float]] = {"recovery": [], "xadd": []}
    with bench.cluster("recovery") as cluster:
        for _ in range(bench.rounds):
            cluster.emitter.emit(events, ROOM, 512, SIZE)
            answer = cluster.emitter.answer()
            found["recovery"].append(events / (answer["end"] - answer["start"]))
            text = b'["bench",{"t":123456789012345,"text":"' + b"x" * 68 + b'"}]'
            start = time.monotonic()
            for _ in range(0, events, 512):
                pipe = bench.redis.pipeline(transaction=False)
                for _ in range(512):
                    pipe.xadd("bench-xadd", {"head": '["event","/",["room"]]', "data": text})
                pipe.execute()
            found["xadd"].append(-(-events // 512) * 512 / (time.monotonic() - start))
    return found


def receivers_alone(bench: Bench, receivers: int, events: int) -> float:
    """Deliveries per second that the receivers take from a server that does nothing but write."""
    with bench.cluster("bare") as cluster:
        cluster.join(receivers)
        cluster.emitter.tell("blast", count=events, size=SIZE)
        end = cluster.receivers.until_received(events, 0.005)
        return receivers * events / (end - float(cluster.emitter.answer()["start"]))
