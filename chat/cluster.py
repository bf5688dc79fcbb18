"""One node's view of the cluster, which it exchanges with the other nodes by heartbeats in Redis.

A heartbeat stores how this node is; the reply says how the other nodes are. The cluster's page shows
:meth:`ClusterView.snapshot`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from socketio_recovery import AsyncRedisStreamsManager

from .journal import Journal
from .measurements import EventRate
from .people import People
from .settings import ChatSettings
from .store import UNAVAILABLE, ChatStore, HeartbeatReply

#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 0.5
#: A node is down when its last heartbeat is this old, in milliseconds.
DOWN_AFTER = 2000
#: The record of a node is removed when its last heartbeat is this old, in milliseconds.
FORGET_AFTER = 600_000


class ClusterView:
    """What a node knows about the cluster, and what it tells the cluster about itself.

    :param settings: the node's configuration.
    :param store: the node's access to Redis.
    :param manager: the client manager of the node's Socket.IO server.
    :param journal: the node's structured log.
    :param people: the list of people; this object keeps it right while it is started.
    """

    def __init__(
        self,
        settings: ChatSettings,
        store: ChatStore,
        manager: AsyncRedisStreamsManager,
        journal: Journal,
        people: People,
    ) -> None:
        self.settings = settings
        self.store = store
        self.manager = manager
        self.journal = journal
        self.people = people
        self.event_rate = EventRate()
        #: The reply to the last successful heartbeat; ``None`` before the first one.
        self.last_reply: HeartbeatReply | None = None
        #: "starting", "up", "draining" or "stopped".
        self.state = "starting"
        self._started = time.time()
        self._reported_outcomes: Counter[str] = Counter()
        #: How often something changed about people on this node that the library does not tell the other nodes.
        self._changes = 0
        #: The same of all nodes: pairs of a node's run and its count.
        self._known_changes: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._redis_answers = True
        #: Since when Redis has answered, in ms (Redis's time); 0 from the beginning.
        self._answers_since = 0

    @property
    def ready(self) -> bool:
        """Whether the load balancer may send clients here: the node follows the log, and its lag is small enough."""
        return not self.not_ready

    @property
    def not_ready(self) -> list[str]:
        """Why the load balancer should send no clients here, as sentences; empty if it may."""
        reasons = self.manager.unhealthy_reasons
        lag = self.manager.log_lag
        return reasons if lag < self.settings.max_lag else [*reasons, f"this node is {lag:.1f} s behind the log"]

    def people_changed(self) -> None:
        """Has all nodes list the people again: somebody's name, node or rooms changed, which is stored already.

        The library tells each node who comes, goes and returns, but not what changes about those who stay. So the next
        heartbeat, which is sent at once, has a higher count, and the other nodes see this at their own next heartbeat.
        """
        self._changes += 1
        self.people.look_again()
        self._wake.set()

    def kill(self, by: str) -> None:
        """Kills this process with SIGKILL. As after a power cut, nobody is informed and nothing is saved.

        :param by: who asked for it; for the journal.
        """
        self.journal("node.killed", logging.WARNING, by=by)
        os.kill(os.getpid(), signal.SIGKILL)

    # -- heartbeats ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the tasks that send heartbeats and list the people."""
        for work in (self._heartbeat_loop, self.people.follow):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        """Stops the tasks and sends a last heartbeat that says "stopped"."""
        # To cancel the tasks is not enough: redis-py sends commands through asyncio.wait_for(), which swallows that now
        # and then in Python 3.11. Such a task ends when its command is done.
        self.state, self.people.stopped = "stopped", True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._heartbeat()
        except UNAVAILABLE:
            self.journal("node.unheard", logging.WARNING, why="Redis does not answer")

    async def _heartbeat_loop(self) -> None:
        while self.state != "stopped":
            self._wake.clear()
            try:
                await self._heartbeat()
            except UNAVAILABLE as error:
                if self._redis_answers:
                    self.journal("redis.lost", logging.WARNING, error=error)
                self._redis_answers = False
            else:
                if not self._redis_answers:
                    self.journal("redis.back")
                    assert self.last_reply is not None
                    self._answers_since = self.last_reply.now
                self._redis_answers = True
            if self.state == "starting" and self.ready:
                self.state = "up"
                self.journal("node.ready")
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self._wake.wait()
                    await asyncio.sleep(0.02)  # changes often come in groups: one heartbeat is enough for all of them
            except TimeoutError:
                pass

    async def _heartbeat(self) -> None:
        outcomes = Counter(self.manager.outcomes)
        record = {
            "boot": self.manager.host_id,
            "state": self.state,
            "ready": self.ready,
            "changes": self._changes,
            "lag": round(self.manager.log_lag * 1000, 1),
            "rate": round(self.event_rate.per_second, 1),
            "started": round(self._started * 1000),
            "demo": self.settings.demo,
        }
        new_outcomes = outcomes - self._reported_outcomes
        reply = self.last_reply = await self.store.heartbeat(self.settings.name, record, new_outcomes)
        self._reported_outcomes = outcomes
        if reply.kill and self.settings.demo:
            self.kill("another page")
        old = [name for name, node in reply.nodes.items() if reply.now - node["at"] > FORGET_AFTER]
        if old:
            await self.store.forget_nodes(old)
        changes = {(node["boot"], node.get("changes", 0)) for node in reply.nodes.values()}
        if changes != self._known_changes:
            self._known_changes = changes
            self.people.look_again()

    # -- for the cluster's page ---------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """The state of the cluster as JSON: nodes, number of people, outcomes of connecting, news. Times are in ms.

        If Redis does not answer, ``redis`` is false, the news are empty, and the rest is what was known last.
        """
        reply = self.last_reply or HeartbeatReply(0, {}, {}, False)
        here, reconnecting = self.people.count("here"), self.people.count("reconnecting")
        nodes = [self._shown(name, node, reply.now, here[name]) for name, node in sorted(reply.nodes.items())]
        news: Sequence[dict[str, Any]] = ()
        redis_answers = self._redis_answers
        try:
            news = await self.store.news()
        except UNAVAILABLE:
            redis_answers = False
        return {
            "asked": self.settings.name,
            "demo": self.settings.demo,
            "redis": redis_answers,
            "nodes": nodes,
            "here": here.total(),
            "reconnecting": reconnecting.total(),
            "outcomes": reply.outcomes,
            "news": list(news),
        }

    def _shown(self, name: str, node: Mapping[str, Any], now: int, clients: int) -> dict[str, Any]:
        """A node as the cluster's page shows it.

        Its ``state`` is "starting", "up", "draining" or "stopped" as the node reported it; "behind" if it is up and not
        ready; "down" if no heartbeat came lately. No node could send one while Redis was away, so that time does not
        count.
        """
        state = node["state"]
        running = state != "stopped"
        if running and now - max(node["at"], self._answers_since) >= DOWN_AFTER:
            state, running = "down", False
        elif state == "up" and not node["ready"]:
            state = "behind"
        return {
            "name": name,
            "state": state,
            "clients": clients if running else 0,
            "rate": node["rate"] if running else 0,
            "lag": node["lag"],
            "up": now - node["started"],
            "silent": now - node["at"],
            "boot": node["boot"][:8],
        }
