"""Runs one scenario from start to verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .check import Verdict, check
from .emitters import Emitters
from .history import FaultMark, RunHistory
from .scenarios import Scenario
from .world import World

#: Seconds between two lines of progress.
PROGRESS = 2.0


@dataclass
class Result:
    """The result of a run."""

    scenario: Scenario
    seed: int
    duration: float
    clients: int
    nodes: int
    server: str
    verdict: Verdict
    history: RunHistory
    marks: list[FaultMark]
    began: float
    took: float
    fates: Counter[str]
    logs: dict[str, str]


async def run(
    scenario: Scenario,
    *,
    seed: int,
    duration: float,
    clients: int,
    nodes: int,
    server: str = "aiohttp",
    rate: float = 15.0,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Runs a scenario and checks what happened.

    :param duration: for how many seconds there are faults; there is at least one round of them.
    :param clients: how many clients there are, besides the two witnesses.
    :param nodes: how many nodes there are, besides the one without faults.
    :param server: what serves the nodes: one of :data:`tests.support.node_servers.SERVERS`.
    :param rate: events per second of each emitter, roughly.
    :param say: is called with lines of progress.
    :raises AssertionError: if the cluster did not become healthy again.
    """
    world = World(scenario.setup, seed, duration, clients, nodes, server)
    start = time.time()
    async with world:
        try:
            async with Emitters(world, rate) as emitters:
                progress = asyncio.create_task(_progress(world, say))
                try:
                    await asyncio.sleep(0.3)
                    await scenario.faults(world, emitters)
                    await emitters.end()
                    end = await world.finish(lambda id: emitters.emit(id, "end", emitters.outside))
                finally:
                    progress.cancel()
                    with suppress(asyncio.CancelledError):
                        await progress
            states = await world.states()
        except BaseException:
            say("the end of the nodes' logs:\n" + "\n".join(node.log()[-3000:] for node in world.all_nodes))
            raise
        history = RunHistory(
            emitters.emits,
            world.record.entries,
            [world.history_of(client, states.get(client.name)) for client in world.everybody],
            end,
            world.max_disconnection,
            world.losses,
        )
        logs = {node.name: node.log() for node in world.all_nodes}
    verdict = check(history)
    took = time.time() - start
    return Result(
        *(scenario, seed, duration, clients, nodes, server, verdict, history, world.marks, world.began, took),
        emitters.fates,
        logs,
    )


async def _progress(world: World, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(PROGRESS)
        last = world.marks[-1].text if world.marks else "none yet"
        say(
            f"{time.time() - world.began:5.0f} s  {world.deliveries():7d} deliveries  "
            f"{world.connected():3d} of {len(world.everybody)} connected  {len(world.marks)} faults, the last: {last}"
        )
