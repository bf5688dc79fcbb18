"""This node's part in the cluster: its pulse, the list of people it shows its clients, its log lag."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError
from socketio_recovery import AsyncRedisStreamsManager, PublishTimeout, RedisUnavailable

from .journal import Journal
from .presence import FORGET_AFTER, alive, presence_of, unrecorded_departures
from .settings import Settings
from .store import ChatStore, HeartbeatReply

#: Seconds between two beats, and between two measurements of the log's lag.
HEARTBEAT_INTERVAL = 0.5
PROBE_INTERVAL = 2.0
#: Events per second are counted over so many seconds.
RATE_PERIOD = 5.0

UNAVAILABLE = (RedisError, OSError, PublishTimeout, RedisUnavailable)


class ClusterView:
    """:param tell: shows this node's clients who is here.
    :param probe: sends an event that nobody gets through the log; returns when this node has read it back.
    """

    def __init__(
        self,
        settings: Settings,
        store: ChatStore,
        manager: AsyncRedisStreamsManager,
        journal: Journal,
        tell: Callable[[list[dict[str, Any]]], Awaitable[None]],
        probe: Callable[[], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.store = store
        self.manager = manager
        self.journal = journal
        self.boot = uuid.uuid4().hex
        #: This node's clients: connection -> the person's id.
        self.here: dict[str, str] = {}
        #: Who is here, on all nodes; see :func:`chat.presence.presence_of`.
        self.people: list[dict[str, Any]] = []
        self.last_reply: HeartbeatReply | None = None
        self.state = "starting"
        self._tell = tell
        self._probe = probe
        self._started = time.time()
        self._events: deque[float] = deque()
        self._told_outcomes: Counter[str] = Counter()
        self._seen: object = None
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._probing_since: float | None = None
        self._lag = 0.0
        self._answers = True

    # -- what this node knows -----------------------------------------------------------------------

    @property
    def lag(self) -> float:
        """How far this node is behind the log, in seconds: from an append until this node has read it."""
        waiting = time.monotonic() - self._probing_since if self._probing_since is not None else 0.0
        return max(self._lag, waiting)

    @property
    def ready(self) -> bool:
        """Whether to send clients here: the log is followed, and the lag is small."""
        return self.manager.healthy and self.lag < self.settings.max_lag

    def count(self) -> None:
        """An event goes through the log."""
        self._events.append(time.monotonic())

    @property
    def rate(self) -> float:
        """Events that this node put into the log, per second."""
        since = time.monotonic() - RATE_PERIOD
        while self._events and self._events[0] < since:
            self._events.popleft()
        return len(self._events) / RATE_PERIOD

    def wake(self) -> None:
        """Something changed: do not wait for the next beat."""
        self._wake.set()

    # -- the pulse ----------------------------------------------------------------------------------

    def start(self) -> None:
        for work in (self._heartbeat_loop, self._measure_lag):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        """Ends the pulse, and says goodbye: who was here counts as reconnecting at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.state = "stopped"
        try:
            await self._heartbeat()
        except UNAVAILABLE:
            self.journal("node.unheard", logging.WARNING, why="Redis does not answer")

    async def _heartbeat_loop(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._heartbeat()
                await self._update_people()
            except UNAVAILABLE as error:
                if self._answers:
                    self.journal("redis.lost", logging.WARNING, error=error)
                self._answers = False
            else:
                if not self._answers:
                    self.journal("redis.back")
                self._answers = True
            if self.state == "starting" and self.ready:
                self.state = "up"
                self.journal("node.ready")
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self._wake.wait()
                    await asyncio.sleep(0.02)  # changes come in groups
            except TimeoutError:
                pass

    async def _heartbeat(self) -> None:
        outcomes = Counter(self.manager.outcomes)
        record = {
            "boot": self.boot,
            "state": self.state,
            "ready": self.ready,
            "clients": len(self.here),
            "lag": round(self.lag * 1000, 1),
            "rate": round(self.rate, 1),
            "started": round(self._started * 1000),
            "demo": self.settings.demo,
        }
        more = outcomes - self._told_outcomes
        self.last_reply = await self.store.heartbeat(self.settings.name, record, more)
        self._told_outcomes = outcomes
        if self.last_reply.kill and self.settings.demo:
            self.kill("another page")
        old = [name for name, node in self.last_reply.nodes.items() if self.last_reply.now - node["at"] > FORGET_AFTER]
        if old:
            await self.store.forget_nodes(old)

    def kill(self, by: str) -> None:
        """The node dies as by a power cut: nobody is told, nothing is saved."""
        self.journal("node.killed", logging.WARNING, by=by)
        os.kill(os.getpid(), signal.SIGKILL)

    async def _update_people(self) -> None:
        """Sees who is here, writes down what nobody else could, shows it to this node's clients."""
        reply = self.last_reply
        assert reply is not None
        up = sorted((name, node["boot"]) for name, node in reply.nodes.items() if alive(node, reply.now))
        seen = (reply.version, up)
        waiting = any(person["state"] != "here" for person in self.people)
        if seen == self._seen and not waiting:
            return
        records = await self.store.people()
        found = presence_of(records, reply.nodes, reply.now, round(self.settings.recover_within * 1000))
        for id, conn in (*found.lost, *unrecorded_departures(records, self.settings.name, self.boot, self.here)):
            await self.store.mark_lost(id, conn)
        for id, conn in found.gone:
            if await self.store.remove_person(id, conn):
                self.journal("person.expired", person=id)
        self._seen = seen
        if found.people != self.people:
            self.people = found.people
            await self._tell(self.people)

    async def _measure_lag(self) -> None:
        while True:
            self._probing_since = time.monotonic()
            try:
                await self._probe()
                self._lag = time.monotonic() - self._probing_since
            except UNAVAILABLE:
                self._lag = time.monotonic() - self._probing_since
            self._probing_since = None
            await asyncio.sleep(PROBE_INTERVAL)

    # -- for the cluster's page ---------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """How the cluster is: nodes, people, outcomes, news. Times in milliseconds."""
        reply = self.last_reply or HeartbeatReply(0, "", {}, {}, False)
        nodes = [_shown(name, node, reply.now) for name, node in sorted(reply.nodes.items())]
        news: Sequence[dict[str, Any]] = ()
        answers = self._answers
        try:
            news = await self.store.news()
        except UNAVAILABLE:
            answers = False
        return {
            "asked": self.settings.name,
            "demo": self.settings.demo,
            "redis": answers,
            "nodes": nodes,
            "here": sum(person["state"] == "here" for person in self.people),
            "reconnecting": sum(person["state"] == "reconnecting" for person in self.people),
            "outcomes": reply.outcomes,
            "news": list(news),
        }


def _shown(name: str, node: Mapping[str, Any], now: int) -> dict[str, Any]:
    state = node["state"]
    running = alive(node, now)
    if not running and state != "stopped":
        state = "down"
    elif state == "up" and not node["ready"]:
        state = "behind"
    return {
        "name": name,
        "state": state,
        "clients": node["clients"] if running else 0,
        "rate": node["rate"] if running else 0,
        "lag": node["lag"],
        "up": now - node["started"],
        "silent": now - node["at"],
        "boot": node["boot"][:8],
    }
