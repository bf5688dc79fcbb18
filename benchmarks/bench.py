"""The bench: one Redis server, and the clusters of contestants that run on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from local.processes import die_with_parent
from local.redis_server import RedisServer

from .event import OTHER
from .processes import BenchNode, Kind, Usage
from .receivers import Receivers

#: The room that all receivers are in, unless a benchmark says otherwise.
ROOM = "room"
#: The size of an event's argument as JSON, in bytes.
SIZE = 100

#: The results of one run: the name of the quantity, with its unit -> its value.
Measures = dict[str, float]


@dataclass
class Bench:
    """The Redis server and the options that all benchmarks share.

    :param rounds: how often each contestant runs.
    :param scale: which part of the load to run: 1 for all of it, less for a smoke test.
    :param say: prints a line about the progress.
    :param server: the Redis server; a new one if omitted.
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
        """Returns ``count`` times the scale, but not less than ``least``."""
        return max(least, round(count * self.scale))

    @contextmanager
    def cluster(self, kind: Kind, nodes: int = 2, **config: Any) -> Iterator[BenchCluster]:
        """Starts nodes of one contestant. At the end it stops them, closes the receivers and empties Redis.

        :param kind: the contestant. The bare server always has one node.
        :param nodes: how many nodes.
        :param config: further configuration of each node; see :mod:`benchmarks.contestant`.
        """
        started: list[BenchNode] = []
        receivers = Receivers()
        try:
            if kind == "node":
                # Node may be busy with recoveries for longer than its default timeouts for a pong and for a CONNECT.
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
        """Stops the Redis server."""
        self.redis.close()
        self.server.stop()


@dataclass
class BenchCluster:
    """The nodes of one contestant, and its clients."""

    kind: Kind
    nodes: list[BenchNode]
    receivers: Receivers
    bench: Bench

    @property
    def emitter(self) -> BenchNode:
        """The node that emits. It has no clients, unless it is the only node."""
        return self.nodes[0]

    @property
    def others(self) -> list[BenchNode]:
        """The nodes that have clients."""
        return self.nodes[1:] or self.nodes

    def join(self, count: int, rooms: Callable[[int], Sequence[str]] = lambda i: [ROOM]) -> None:
        """Connects receivers to the nodes that have clients.

        :param count: how many.
        :param rooms: returns the rooms that the ``i``-th of them asks to enter.
        """
        self.receivers.add(count, [node.port for node in self.others], rooms)
        self.receivers.rest(0.3)

    def meet(self, count: int) -> None:
        """Connects receivers, and lets them have some events: Node's adapter can't recover one without an offset."""
        self.join(count)
        self.fan_out(3)

    def lose_a_node(self, count: int) -> None:
        """Connects receivers to one of the nodes that have clients, and kills it. The cluster has the others left."""
        emitter, victim, *survivors = self.nodes
        self.nodes = [emitter, victim]
        self.meet(count)
        victim.kill()
        self.receivers.until(lambda: all(receiver.socket is None for receiver in self.receivers.all))
        self.nodes = [emitter, *survivors]

    def fan_out(self, count: int, in_flight: int = 64, pause: float = 0.005) -> Measures:
        """Emits events on the emitter, and waits until all receivers have all of them.

        :param count: how many events.
        :param in_flight: how many emits to await at the same time.
        :param pause: see :meth:`Receivers.until`; in seconds.
        """
        self.receivers.reset()
        self.emitter.emit(count, ROOM, in_flight, SIZE)
        end = self.receivers.until_received(count, pause)
        start = self.emitter.answer()["start"]
        return {"deliveries/s": count * len(self.receivers.all) / (end - start)}

    def write(self, count: int, room: str = ROOM, name: str = "bench") -> None:
        """Emits events, and waits until they are stored."""
        if count:
            self.emitter.emit(count, room, 64, SIZE, name=name)
            self.emitter.answer()

    def away(self, missed: int, other: int) -> None:
        """Cuts off all clients and emits events while they are away.

        :param missed: how many of the events are for the clients.
        :param other: how many others are emitted between them, which are for nobody.
        """
        for receiver in self.receivers.all:
            receiver.drop()
        self.pause()
        self.write(missed // 2)
        self.write(other, "nobody", OTHER)
        self.write(missed - missed // 2)
        self.pause()
        self.receivers.reset()

    def pause(self) -> None:
        """Waits until the nodes have certainly noticed what has just happened: 0.3 seconds."""
        time.sleep(0.3)

    def back(self, missed: int) -> float:
        """Connects all clients again, at once.

        :param missed: how many events each of them missed.
        :returns: after how many seconds all clients had all of these.
        :raises RuntimeError: if a session was not recovered.
        """
        start = time.monotonic()
        self.receivers.connect(self.receivers.all, [node.port for node in self.others], 0.001)
        end = self.receivers.until_received(missed, 0.001)
        lost = sum(not receiver.recovered for receiver in self.receivers.all)
        if lost:
            raise RuntimeError(f"{lost} of {len(self.receivers.all)} clients were not recovered")
        return end - start
