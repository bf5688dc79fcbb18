"""Storms: thousands of clients come back at once. Jitter: each of many clients loses its connection now and then."""

from __future__ import annotations

import random
import statistics
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .bench import ROOM, SIZE, Bench, Measures
from .processes import Kind
from .receivers import Receivers
from .works import recover

#: A contestant as it is measured here: its kind, and further configuration of its nodes.
Setup = tuple[Kind, dict[str, Any]]
#: What one run measures, and how long each client took to be connected again, in seconds.
Run = Callable[[Bench, Setup], tuple[Measures, list[float]]]

#: This library and ``AsyncRedisManager``, each with ``tuning.collect_less()`` and without it, and Node's adapter.
SETUPS: dict[str, Setup] = {
    "this library, tuned": ("recovery", {"tuned": True}),
    "this library": ("recovery", {}),
    "AsyncRedisManager, tuned": ("redis", {"tuned": True}),
    "AsyncRedisManager": ("redis", {}),
    "Node's adapter": ("node", {}),
}
#: Events that each client misses in a storm.
MISSED = 20
#: How many points of each distribution are kept.
POINTS = 200


@dataclass(frozen=True)
class Storm:
    """One kind of storm.

    :param title: what the report calls it.
    :param setups: the names of the contestants.
    :param rounds: the most rounds to run.
    """

    title: str
    run: Run
    setups: Sequence[str]
    rounds: int


def storms() -> dict[str, Storm]:
    """All of them, by the names that the command line knows."""
    everyone, recovering = list(SETUPS), ["this library, tuned", "this library", "Node's adapter"]
    tuned = ["this library, tuned", "AsyncRedisManager, tuned"]  # without, some clients are sent away to come again
    return {
        "storm-2k": Storm("2,000 clients recover on one node, 20 missed each", storm(2000, 0), everyone, 3),
        "storm-5k": Storm("5,000 clients, and 1,000 unrelated events", storm(5000, 1000), everyone, 2),
        "storm-10k": Storm("10,000 clients of a killed node on two others", killed(10_000), tuned, 2),
        "jitter-1500": Storm("1,500 clients, each cut every 15 s, for a minute", jitter(1500, 60), recovering, 2),
        "jitter-4k": Storm("4,000 clients, the same", jitter(4000, 60), ["this library, tuned", "Node's adapter"], 2),
    }


def measure(bench: Bench, only: Sequence[str] | None, against: Sequence[Kind]) -> dict[str, Any]:
    """Measures storms; the contestants take turns.

    :param only: the names of those to run; ``None`` for all.
    :param against: the kinds of contestants to run.
    :returns: name -> ``title``, ``result`` (contestant -> quantity -> one value for each round) and ``times``
        (contestant -> how long each client took in the last round, in seconds: some of them, in order).
    """
    results: dict[str, Any] = {}
    for name, one in storms().items():
        if only is not None and name not in only:
            continue
        setups = [setup for setup in one.setups if SETUPS[setup][0] in against]
        found: dict[str, dict[str, list[float]]] = {setup: {} for setup in setups}
        times: dict[str, list[float]] = {}
        for number in range(min(bench.rounds, one.rounds)):
            for i in range(len(setups)):
                setup = setups[(i + number) % len(setups)]
                measures, took = one.run(bench, SETUPS[setup])
                for quantity, value in measures.items():
                    found[setup].setdefault(quantity, []).append(value)
                took.sort()
                times[setup] = [took[round(p * (len(took) - 1) / (POINTS - 1))] for p in range(POINTS)]
                said = ", ".join(f"{quantity} {value:.3g}" for quantity, value in measures.items())
                bench.say(f"  {one.title}: {setup}: {said}")
        results[name] = {"title": one.title, "result": found, "times": times}
    return results


def storm(clients: int, unrelated: int) -> Run:
    """All clients of a node come back to it at once. With ``AsyncRedisManager`` they can only connect again.

    :param unrelated: events for nobody that are emitted while they are away.
    """

    def run(bench: Bench, setup: Setup) -> tuple[Measures, list[float]]:
        kind, config = setup
        with bench.cluster(kind, **config) as cluster:
            cluster.meet(bench.some(clients, 2))
            return recover(MISSED, unrelated)(cluster), [receiver.took for receiver in cluster.receivers.all]

    return run


def killed(clients: int) -> Run:
    """A node is killed; its clients come back at once, to two others."""

    def run(bench: Bench, setup: Setup) -> tuple[Measures, list[float]]:
        kind, config = setup
        with bench.cluster(kind, 4, **config) as cluster:
            cluster.lose_a_node(bench.some(clients, 2))
            return recover(MISSED, 0)(cluster), [receiver.took for receiver in cluster.receivers.all]

    return run


def jitter(clients: int, seconds: float, every: float = 15.0, away: float = 2.0) -> Run:
    """Each client loses its connection about every ``every`` seconds, and is away for ``away`` seconds.

    Two events a second go to all. Each client must have each event once at the end.
    """

    def run(bench: Bench, setup: Setup) -> tuple[Measures, list[float]]:
        kind, config = setup
        with bench.cluster(kind, **config) as cluster:
            receivers = cluster.receivers
            cluster.meet(bench.some(clients, 2))
            receivers.reset()
            duration = max(seconds * bench.scale, 3)
            count = round(2 * duration)
            cluster.emitter.emit(count, ROOM, 1, SIZE, rate=2)
            took = _cut(receivers, [node.port for node in cluster.others], duration, every, away, kind == "recovery")
            cluster.emitter.answer()
            end = time.monotonic() + 10
            receivers.until(lambda: time.monotonic() > end or all(r.received >= count for r in receivers.all))
            receivers.rest(0.5)
            lost = sum(max(0, count - receiver.received) for receiver in receivers.all)
            doubled = sum(max(0, receiver.received - count) for receiver in receivers.all)
            if kind == "recovery" and (lost or doubled):
                raise RuntimeError(f"{lost} deliveries are missing, {doubled} came twice")
            took.sort()
            p50, p99 = 1000 * statistics.median(took), 1000 * took[int(len(took) * 0.99)]
            measures = {"p50 ms": p50, "p99 ms": p99, "reconnects": len(took), "lost": lost, "doubled": doubled}
            return measures, took

    return run


def _cut(
    receivers: Receivers, ports: Sequence[int], duration: float, every: float, away: float, recover: bool
) -> list[float]:
    """Cuts receivers now and then, and connects them again, for ``duration`` seconds and until all are back.

    :param recover: whether each must recover.
    :returns: how long each connect took, in seconds.
    """
    dice = random.Random(1)
    took: list[float] = []
    connecting: set[int] = set()
    now = time.monotonic()
    end = now + duration
    #: When each receiver is to be cut, or to be connected again.
    due = sorted((now + dice.uniform(0, every), i) for i in range(len(receivers.all)))
    while due or connecting:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, i = due.pop(0)
            receiver = receivers.all[i]
            if receiver.socket is None:
                receiver.connect(ports[i % len(ports)])
                connecting.add(i)
            elif now < end:
                receiver.drop()
                insort(due, (now + away, i))
        receivers.turn(0.002)
        for i in [i for i in connecting if receivers.all[i].live or receivers.all[i].socket is None]:
            receiver = receivers.all[i]
            if receiver.socket is None or (recover and not receiver.recovered):
                raise RuntimeError("a client was sent away, or not recovered")
            connecting.remove(i)
            took.append(receiver.took)
            insort(due, (time.monotonic() + dice.uniform(every / 2, every * 1.5), i))
        if now > end and not connecting and all(receiver.socket is not None for receiver in receivers.all):
            break
    return took
