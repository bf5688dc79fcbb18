"""One scenario, from start to verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .check import Verdict, check
from .history import History, Mark
from .load import Load
from .scenarios import Scenario
from .world import World

#: How often a line of progress is said, in seconds.
PROGRESS = 2.0


@dataclass
class Result:
    """A run that is over."""

    scenario: Scenario
    seed: int
    duration: float
    clients: int
    nodes: int
    verdict: Verdict
    history: History
    marks: list[Mark]
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
    rate: float = 15.0,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Runs a scenario and checks what happened.

    :param duration: for how long there are faults, in seconds; at least one round.
    :param clients: besides the two witnesses.
    :param nodes: besides the one without faults.
    :param rate: events per second of each emitter, roughly.
    :param say: told how it goes, now and then.
    :raises AssertionError: if the cluster did not get well again.
    """
    world = World(scenario.setup, seed, duration, clients, nodes)
    start = time.time()
    async with world:
        try:
            async with Load(world, rate) as load:
                progress = asyncio.create_task(_progress(world, say))
                try:
                    await asyncio.sleep(0.3)
                    await scenario.faults(world, load)
                    await load.end()
                    end = await world.finish(lambda id: load.emit(id, "end", load.outside))
                finally:
                    progress.cancel()
                    with suppress(asyncio.CancelledError):
                        await progress
            states = await world.states()
        except BaseException:
            say("the end of the nodes' logs:\n" + "\n".join(node.log()[-3000:] for node in world.all_nodes))
            raise
        history = History(
            load.emits,
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
        *(scenario, seed, duration, clients, nodes, verdict, history, world.marks, world.began, took),
        load.fates,
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
