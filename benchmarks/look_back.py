"""Clients come back to a node that no longer has in memory what they missed: the node looks back in the stream.

It should cost the other clients of the node little, and 200 clients should cost hardly more than one.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from .bench import ROOM, SIZE, Bench, BenchCluster
from .event import OTHER
from .processes import BenchNode
from .receivers import PATIENCE, Receivers

#: The default of ``window_bytes``.
WINDOW = 64 << 20
#: The room of the clients that stay connected, how many they are, and how many events per second they get.
LIVE, LIVE_CLIENTS, LIVE_RATE = "live", 20, 200
#: How many events each client misses, before and after the others.
MISSED = 20
#: How many processes emit the others, and how many emits of each are in flight.
WRITERS, IN_FLIGHT = 2, 512
#: How long the latencies of the other clients are measured before the clients come back, in seconds.
BEFORE = 5.0

#: What was measured with one number of clients: the name of the quantity -> one value for each round.
Figures = dict[str, list[float]]


def measure(bench: Bench, events: int) -> dict[str, Any]:
    """Measures a look back for one client, and for 200.

    :param events: how many events are stored for others, while the clients are away.
    """
    found: dict[str, Any] = {"events": events, "window_bytes": bench.some(WINDOW), "clients": [], "outcomes": {}}
    for clients in (1, bench.some(200, 2)):
        found["clients"].append({"clients": clients, "figures": {}})
    for number in range(min(bench.rounds, 3)):
        for line in found["clients"]:
            figures, outcomes = _run(bench, line["clients"], events)
            for name, value in figures.items():
                line["figures"].setdefault(name, []).append(value)
            for outcome, count in outcomes.items():
                found["outcomes"][outcome] = found["outcomes"].get(outcome, 0) + count
            said = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
            bench.say(f"  round {number + 1}: {line['clients']} clients: {said}")
    return found


def _run(bench: Bench, clients: int, events: int) -> tuple[dict[str, float], dict[str, int]]:
    """Lets so many clients miss events and come back: first to a node that has all of it in memory, for comparison.

    :returns: what was measured, and how often coming back after a look back had each outcome.
    """
    # The clients are away for as long as the machine takes to store the events. Apart from that, the node has the
    # default options.
    options = {"max_disconnection_duration": 3600, "window_bytes": bench.some(WINDOW)}
    with bench.cluster("recovery", 1, manager=options) as cluster, _writers(cluster) as writers:
        (node,) = cluster.nodes
        cluster.join(clients)
        with LiveClients(node.port) as live:
            cluster.pause()
            empty = node.memory()
            _miss(cluster, writers, live, 0)
            memory = _measured_return(cluster, writers, live)
            _miss(cluster, writers, live, events)
            full = node.memory()  # this collects garbage, which takes a moment
            node.usage.forget_peak()
            known = _outcomes(node)
            found = _measured_return(cluster, writers, live)
            peak = node.usage.peak
        outcomes = {name: count - known.get(name, 0) for name, count in _outcomes(node).items()}
    figures = {
        **found,
        "s, from memory": memory["s"],
        "cpu s, from memory": memory["cpu s"],
        "p99 ms during, from memory": memory["p99 ms during"],
        "MB full": (full - empty) / 1e6,
        "MB peak": (peak - empty) / 1e6,
    }
    return figures, {name: count for name, count in outcomes.items() if count}


def _measured_return(cluster: BenchCluster, writers: list[BenchNode], live: LiveClients) -> dict[str, float]:
    """Measures how the clients come back, and what the others notice of it."""
    (node,) = cluster.nodes
    clients = len(cluster.receivers.all)
    with live.getting_events(writers[0]):
        cluster.receivers.rest(1)  # the writer and its Redis connection are warm after this
        live.take()
        cluster.receivers.rest(BEFORE * cluster.bench.scale)
        before = live.take()
        cpu, start = node.usage.cpu, time.monotonic()
        recovered, attempts = _come_back(cluster)
        seconds, cpu = time.monotonic() - start, node.usage.cpu - cpu
        during, end = live.take(), time.monotonic() + PATIENCE
        while not during and time.monotonic() < end:  # on a busy machine, their process has not looked yet
            cluster.pause()
            during += live.take()
    return {
        "recovered, of each": recovered / clients,
        "attempts of each": attempts / clients,
        "s": seconds,
        "cpu s": cpu,
        "p99 ms before": 1000 * _p99(before),
        "p99 ms during": 1000 * _p99(during),
    }


@contextmanager
def _writers(cluster: BenchCluster) -> Iterator[list[BenchNode]]:
    """Processes that only emit. They do not wait until any node has dispatched what they emit."""
    writers = [BenchNode("writer", cluster.bench.server.url, f"bench-{cluster.kind}") for _ in range(WRITERS)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.stop()


def _miss(cluster: BenchCluster, writers: list[BenchNode], live: LiveClients, events: int) -> None:
    """The clients lose their connections. A few events for them are stored, between many for others."""

    def write(count: int, room: str) -> None:
        writers[0].emit(count, room)
        writers[0].answer()

    for receiver in cluster.receivers.all:
        receiver.drop()
    cluster.receivers.reset()
    cluster.pause()
    live.take()
    write(MISSED // 2, ROOM)
    for writer in writers if events else ():
        writer.emit(events // WRITERS, "nobody", IN_FLIGHT, SIZE, name=OTHER)
    for writer in writers if events else ():
        writer.answer()
    write(MISSED - MISSED // 2, ROOM)
    write(1, LIVE)  # once they have this, the node has dispatched everything
    arrived, end = 0, time.monotonic() + PATIENCE
    while (arrived := arrived + len(live.take())) < LIVE_CLIENTS:
        cluster.pause()
        if time.monotonic() > end:
            raise TimeoutError(f"the node did not catch up within {PATIENCE:g} s")


def _come_back(cluster: BenchCluster) -> tuple[int, int]:
    """Connects all clients again, at once, and waits until those that are recovered have what they missed.

    A client that is sent away tries again at once. Those that are not back after two minutes (less with a small scale)
    are given up.

    :returns: how many are recovered, and how many attempts to connect all needed together.
    """
    receivers, port = cluster.receivers, cluster.nodes[0].port
    waiting, attempts = receivers.all, 0
    end = time.monotonic() + cluster.bench.some(120, 10)

    def answered() -> bool:
        return all(r.live or r.socket is None for r in waiting) or time.monotonic() > end

    while waiting and time.monotonic() < end:
        attempts += len(waiting)
        for receiver in waiting:
            receiver.connect(port)
        receivers.until(answered, 0.001, PATIENCE + 10)
        waiting = [receiver for receiver in waiting if not receiver.live]
    for receiver in waiting:
        receiver.drop()
    recovered = [receiver for receiver in receivers.all if receiver.recovered]
    receivers.until(lambda: all(receiver.received >= MISSED for receiver in recovered), 0.001)
    return len(recovered), attempts


def _outcomes(node: BenchNode) -> dict[str, int]:
    node.tell("outcomes")
    return node.answer()


def _p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)] if latencies else 0.0


class LiveClients:
    """The clients that stay connected, in a process of their own: so the others do not delay what is measured.

    They are connected while the ``with`` block runs.

    :param port: the port of their node.
    """

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(port, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> LiveClients:
        self.take()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()
        self._process.join()

    def take(self) -> list[float]:
        """Returns the latencies of all events that arrived since the last call, in seconds."""
        self._pipe.send("take")
        found: list[float] = self._pipe.recv()
        return found

    @contextmanager
    def getting_events(self, writer: BenchNode) -> Iterator[None]:
        """A process outside the cluster emits events to these clients while the ``with`` block runs."""
        over = False

        def work() -> None:
            while not over:
                writer.emit(LIVE_RATE // 10, LIVE, 1, SIZE, rate=LIVE_RATE)
                writer.answer()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over = True
            thread.join()


def _live(port: int, pipe: Connection) -> None:
    """The process of :class:`LiveClients`: it answers until the other end of the pipe is closed."""
    receivers = Receivers()
    for receiver in receivers.add(LIVE_CLIENTS, [port], lambda i: [LIVE]):
        receiver.latencies = []
    try:
        while True:
            receivers.until(pipe.poll, 0.001, 3600)
            pipe.recv()
            pipe.send([seconds for receiver in receivers.all for seconds in receiver.latencies or ()])
            for receiver in receivers.all:
                receiver.latencies = []
    except (EOFError, KeyboardInterrupt):
        receivers.close()


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Returns what was aimed at, by medians: the name of the quantity -> its value."""
    one, many = (
        {name: statistics.median(values) for name, values in line["figures"].items()} for line in found["clients"]
    )
    window = found["window_bytes"] / 1e6
    return {
        "p99 of the other clients during ÷ before, one client": _ratio(one["p99 ms during"], one["p99 ms before"]),
        "p99 of the other clients during ÷ before, many": _ratio(many["p99 ms during"], many["p99 ms before"]),
        "the same when many come back from memory": _ratio(many["p99 ms during, from memory"], many["p99 ms before"]),
        "seconds, many ÷ one": _ratio(many["s"], one["s"]),
        "CPU of the node, many ÷ one": _ratio(many["cpu s"], one["cpu s"]),
        "MB above window_bytes at the peak, one client": one["MB peak"] - window,
        "MB above window_bytes at the peak, many": many["MB peak"] - window,
    }


def _ratio(a: float, b: float) -> float:
    """Returns a ÷ b; not a number if ``b`` was too little to be measured."""
    return a / b if b else math.nan
