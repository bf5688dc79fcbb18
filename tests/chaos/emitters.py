"""Emits events from every node and from outside, and moves clients between rooms, while faults happen."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from socketio_recovery import AsyncRedisStreamsManager, PublishTimeout

from local.processes import die_with_parent
from tests.support.node_process import NodeProcess
from tests.support.paths import ROOT

from .history import Emit, Fate, Room
from .world import CHANNEL, MANAGER, MOVING, ROOMS, World

#: How an emitter sends an event: id, rooms, skip, padding, volatile -> the event's fate.
Send = Callable[[str, tuple[Room, ...], tuple[str, ...], str | bytes, bool], Awaitable[Fate]]

_quiet = logging.getLogger("chaos.outside")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Emitters:
    """Emitters, one for each node and one outside, and a mover. They run while its ``async with`` block runs.

    :param rate: events per second of each emitter, roughly.
    """

    def __init__(self, world: World, rate: float) -> None:
        self.world = world
        self.rate = rate
        self.emits: list[Emit] = []
        self.fates: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    async def __aenter__(self) -> Emitters:
        limit = MANAGER["publish_timeout"] + 3
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=limit))
        self._outside = AsyncRedisStreamsManager(
            self.world.redis_url, CHANNEL, write_only=True, logger=_quiet, publish_timeout=MANAGER["publish_timeout"]
        )
        for node in self.world.all_nodes:
            self._run(self._emitter(node.name, self._through(node)))
        self._run(self._emitter("outside", self.outside))
        self._run(self._mover())
        return self

    def _run(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def end(self) -> None:
        """Waits until the present emits and moves are over, and starts no others."""
        self._over = True
        await asyncio.gather(*self._tasks)

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        await self._outside.close()

    # -- emitters -----------------------------------------------------------------------------------

    async def _emitter(self, name: str, send: Send) -> None:
        rng = random.Random(f"{self.world.seed} {name}")
        number = 0
        while not self._over:
            for _ in range(rng.choice((1, 1, 1, 1, 10))):  # sometimes a burst of ten
                await self.emit(f"{name}.{number}", name, send, *self._target(rng), volatile=rng.random() < 0.05)
                number += 1
            await asyncio.sleep(rng.uniform(0, 3.6 / self.rate))

    def _target(self, rng: random.Random) -> tuple[tuple[Room, ...], tuple[str, ...]]:
        kind = rng.random()
        if kind < 0.2:
            return (), ()
        if kind < 0.3:
            return (), (self._sid(rng),)
        if kind < 0.6:
            return (rng.choice(ROOMS),), ()
        if kind < 0.8:
            return (rng.choice(MOVING),), ()
        if kind < 0.9:
            return (rng.choice(ROOMS), rng.choice(MOVING)), ()
        return (self._sid(rng),), ()

    def _sid(self, rng: random.Random) -> str:
        connects = rng.choice(self.world.everybody).connects()
        return str(connects[-1]["sid"]) if connects else "nobody"

    async def emit(
        self,
        id: str,
        emitter: str,
        send: Send,
        rooms: tuple[Room, ...] = (),
        skip: tuple[str, ...] = (),
        padding: str | bytes = "",
        volatile: bool = False,
    ) -> Fate:
        """Emits an event, and notes its fate."""
        start = time.time()
        fate = await send(id, rooms, skip, padding, volatile)
        self.emits.append(Emit(id, emitter, rooms, skip, start, time.time(), fate, len(padding)))
        self.fates[fate] += 1
        if fate != "stored":
            await asyncio.sleep(0.1)
        return fate

    async def outside(
        self, id: str, rooms: tuple[Room, ...], skip: tuple[str, ...], padding: str | bytes, volatile: bool
    ) -> Fate:
        """Emits by a manager without a server, as a process outside the cluster does."""
        try:
            await self._outside.emit(
                "e", (id, padding), room=list(rooms) or None, skip_sid=list(skip), volatile=volatile
            )
        except PublishTimeout as error:
            return _fate(error.fate)
        return "stored"

    def _through(self, node: NodeProcess) -> Send:
        async def send(
            id: str, rooms: tuple[Room, ...], skip: tuple[str, ...], padding: str | bytes, volatile: bool
        ) -> Fate:
            assert isinstance(padding, str)  # it goes to the node as JSON
            kwargs = {"to": list(rooms) or None, "skip_sid": list(skip), "volatile": volatile}
            (result,) = await self._do(node, "emit", ["e", {"tuple": [id, padding]}], kwargs) or (
                {"error": "", "fate": "unknown"},
            )
            return _fate(result["fate"]) if "error" in result else "stored"

        return send

    async def _do(
        self, node: NodeProcess, method: str, args: list[Any], kwargs: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        """Calls a method of a node's server; ``None`` if the node does not answer."""
        try:
            async with self._http.post(node.control + "/do", json={"calls": [[method, args, kwargs]]}) as response:
                results: list[dict[str, Any]] = await response.json()
                return results
        except aiohttp.ClientConnectorError:
            return [{"error": "no such node", "fate": "withdrawn"}]
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def post(self, node: NodeProcess, path: str) -> None:
        """Sends a command to a node. It is no error if the node can't be reached."""
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._http.post(node.control + path):
                pass

    async def held(self, sids: set[str]) -> set[str]:
        """Returns those of the sessions that some node counts as connected."""
        held = set()
        for node in self.world.all_nodes:
            calls = [["is_connected", [sid, "/"], {}] for sid in sorted(sids)]
            async with self._http.post(node.control + "/do", json={"on": "manager", "calls": calls}) as response:
                results = await response.json()
            held |= {sid for sid, found in zip(sorted(sids), results, strict=True) if found["result"]}
        return held

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Starts a process that emits events which concern no client, as fast as possible: :mod:`.traffic`.

        :returns: a function that emits so many of them, and returns when they are stored.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.traffic", self.world.redis_url, CHANNEL),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=die_with_parent,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lines, say = process.stdout, process.stdin

        async def emit(count: int) -> None:
            say.write(b"%d\n" % count)
            assert await lines.readline(), "the traffic's process ended"

        try:
            assert await lines.readline(), "the traffic's process did not start"
            yield emit
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # -- rooms --------------------------------------------------------------------------------------

    async def _mover(self) -> None:
        rng = random.Random(f"{self.world.seed} mover")
        while not self._over:
            node, room = rng.choice(self.world.all_nodes), rng.choice(MOVING)
            kind = rng.random()
            if kind < 0.05:
                await self._do(node, "close_room", [room], {})
            else:
                method = "enter_room" if kind < 0.6 else "leave_room"
                await self._do(node, method, [self._sid(rng), room], {})
            await asyncio.sleep(rng.uniform(0.05, 0.2))


def _fate(said: str | None) -> Fate:
    """Returns the fate that the library's exception names. After other errors (``None``) the fate is unknown."""
    return "withdrawn" if said == "withdrawn" else "stored" if said == "stored" else "unknown"
