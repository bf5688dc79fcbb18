"""How much one node, one Redis server and the receivers can take."""

from __future__ import annotations

import time

from .bench import ROOM, SIZE, Bench


def appended(bench: Bench, events: int) -> dict[str, list[float]]:
    """Measures how many entries per second Redis stores.

    They come from a node with 512 emits in flight, and from pipelined XADD alone.
    """
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
    """Measures how many deliveries per second the receivers can take from a server that does nothing but write."""
    with bench.cluster("bare") as cluster:
        cluster.join(receivers)
        cluster.emitter.tell("blast", count=events, size=SIZE)
        end = cluster.receivers.until_received(events, 0.005)
        return receivers * events / (end - float(cluster.emitter.answer()["start"]))


def capacity(bench: Bench) -> dict[str, float]:
    """Measures how many events per second one Redis takes while four nodes read them.

    Two of the four emit, as fast as they can.
    """
    events = bench.some(20_000, 100)
    with bench.cluster("recovery", 4) as cluster:
        cluster.pause()
        before, start = bench.redis_usage.cpu, time.monotonic()
        for node in cluster.nodes[:2]:
            node.emit(events, ROOM, 512, SIZE)
        ends = [float(node.answer()["end"]) for node in cluster.nodes[:2]]
        seconds = max(ends) - start
        cluster.pause()
        return {
            "events/s": 2 * events / seconds,
            "redis µs per event": 1e6 * (bench.redis_usage.cpu - before) / (2 * events),
        }
