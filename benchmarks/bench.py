"""The bench: one Redis server, and the clusters of contestants that run on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
