"""What it costs to ask who is in a room: among few sessions, and among many.

The sessions are records in Redis without clients, written by the library's own scripts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import redis.asyncio
from socketio_recovery.aio.log import Append, Log
from socketio_recovery.aio.node_heartbeat import NodeHeartbeat
from socketio_recovery.aio.participants import Participants
from socketio_recovery.aio.redis_link import RedisLink
from socketio_recovery.aio.redis_servers import RedisServers
from socketio_recovery.aio.script_calls import ScriptCalls
from socketio_recovery.aio.sessions import Sessions
from socketio_recovery.entries import ENTER, control_head
from socketio_recovery.redis.actions import moves
from socketio_recovery.redis.keys import Keys
from socketio_recovery.session_record import Pid
from socketio_recovery.settings import Durations

from .bench import Bench

#: How many sessions there are, with the full load.
FEW, MANY = 1000, 100_000
#: How many of them are in the rooms that are asked about.
ROOMS = (10, 100, 1000)
#: How often each question is asked in one round.
TIMES = 50
#: An hour, in milliseconds: nothing ends while it is measured.
HOUR = 3_600_000


def measure(bench: Bench) -> dict[str, Any]:
    """Measures questions among few sessions and among many.

    :returns: ``sessions``: the two numbers; ``figures``: name -> for each number of sessions the values of all rounds.
    """
    sessions = [bench.some(FEW, 20), bench.some(MANY, 40)]
    figures: dict[str, list[list[float]]] = {}
    for i, count in enumerate(sessions):
        for name, values in asyncio.run(_measure(bench, count)).items():
            figures.setdefault(name, [[], []])[i].extend(values)
        bench.redis.flushall()
    return {"sessions": sessions, "figures": figures}


async def _measure(bench: Bench, count: int) -> dict[str, list[float]]:
    client = redis.asyncio.Redis.from_url(bench.server.url)
    keys, logger = Keys("bench"), logging.getLogger("benchmarks")
    calls = ScriptCalls(RedisLink(RedisServers(client), 30))
    sessions = Sessions(calls, keys, "node", HOUR, HOUR, HOUR, 300, lambda: lambda position, ms: None)
    log = Log(keys, lambda timeout: RedisLink(RedisServers(client), timeout), None, HOUR, 0, 300, logger)
    writer = asyncio.create_task(log.write())
    try:
        durations = Durations(HOUR, HOUR, HOUR, HOUR, 1000, HOUR)
        await NodeHeartbeat(calls, keys, "node", durations, lambda: False, 30, logger).send()
        memory = bench.redis.info("memory")["used_memory"]
        for start in range(0, count, 5000):
            sids = [f"s{i:019}" for i in range(start, min(start + 5000, count))]
            await asyncio.gather(*(sessions.create(sid, Pid.new(sid), "/", sid, "transport") for sid in sids))
        figures: dict[str, list[float]] = {"all sessions: bytes of Redis for each": []}
        figures["all sessions: bytes of Redis for each"].append(
            (bench.redis.info("memory")["used_memory"] - memory) / count
        )
        for size in ROOMS:
            await asyncio.gather(*(log.append(_enters(keys, f"s{i:019}", size)) for i in range(min(size, count))))
        asks = Participants(calls, keys, 60)
        for _ in range(bench.rounds):
            for size in ROOMS:
                wanted = min(size, count)
                name = f"a room of {size:,}"
                figures.setdefault(f"{name}: ms to ask who is there", []).append(
                    await _ask(lambda size=size: asks.list("/", [size]), lambda found, n=wanted: len(found) == n)
                )
                figures.setdefault(f"{name}: ms to count", []).append(
                    await _ask(lambda size=size: asks.count("/", [size]), lambda found, n=wanted: found.total == n)
                )
            figures.setdefault("everybody: ms to count", []).append(
                await _ask(lambda: asks.count("/", []), lambda found: found.total == count)
            )
        return figures
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await calls.close()
        await client.aclose()


def _enters(keys: Keys, sid: str, room: int) -> Append:
    return Append(control_head(ENTER, "/", sid, room), (), moves(ENTER, keys, "/", sid, room))


async def _ask(question: Any, right: Any) -> float:
    """Asks a question some times, one after the other; returns milliseconds for each."""
    start = time.perf_counter()
    for _ in range(TIMES):
        assert right(await question())
    return 1000 * (time.perf_counter() - start) / TIMES
