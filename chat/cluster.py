"""One node's view of the cluster, which it exchanges with the other nodes by heartbeats in Redis.

A heartbeat stores how this node is; the reply says how the other nodes are. From that the node works out which people
are in the chat, and shows the list to its own clients. The cluster's page shows :meth:`ClusterView.snapshot`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from socketio_recovery import AsyncRedisStreamsManager

from .journal import Journal
from .measurements import EventRate
from .presence import (
    FORGET_AFTER,
    alive,
    presence_of,
    reached_since,
    unrecorded_arrivals,
    unrecorded_departures,
)
from .settings import ChatSettings
from .store import UNAVAILABLE, ChatStore, HeartbeatReply

#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 0.5


class ClusterView:
    """What a node knows about the cluster, and what it tells the cluster about itself.

    :param settings: the node's configuration.
    :param store: the node's access to Redis.
    :param manager: the client manager of the node's Socket.IO server.
    :param journal: the node's structured log.
    :param show_people: sends the list of people to this node's clients.
    :param record_again: writes the record of the person with this connection again, which is on this node.
    """

    def __init__(
        self,
        settings: ChatSettings,
        store: ChatStore,
        manager: AsyncRedisStreamsManager,
        journal: Journal,
        show_people: Callable[[list[dict[str, Any]]], Awaitable[None]],
        record_again: Callable[[str], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.store = store
        self.manager = manager
        self.journal = journal
        self.event_rate = EventRate()
        #: Identifies this run of the process. A node that was started again has the same name and another ``boot``.
        self.boot = uuid.uuid4().hex
        #: The clients that are connected to this node: id of the connection -> id of the person.
        self.here: dict[str, str] = {}
        #: The people on all nodes, as :func:`chat.presence.presence_of` lists them.
        self.people: list[dict[str, Any]] = []
        #: The reply to the last successful heartbeat; ``None`` before the first one.
        self.last_reply: HeartbeatReply | None = None
        #: "starting", "up", "draining" or "stopped".
        self.state = "starting"
        self._show_people = show_people
        self._record_again = record_again
        self._started = time.time()
        self._reported_outcomes: Counter[str] = Counter()
        self._last_look: object = None
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._redis_answers = True
        #: Since when this node has reached Redis without a break, in ms (Redis's time); 0 from the beginning.
        self._reached_since = 0

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

    def wake(self) -> None:
        """Sends the next heartbeat at once, because something changed."""
        self._wake.set()

    def kill(self, by: str) -> None:
        """Kills this process with SIGKILL. As after a power cut, nobody is informed and nothing is saved.

        :param by: who asked for it; for the journal.
        """
        self.journal("node.killed", logging.WARNING, by=by)
        os.kill(os.getpid(), signal.SIGKILL)

    # -- heartbeats ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the task that sends heartbeats."""
        self._tasks.append(asyncio.create_task(self._heartbeat_loop()))

    async def stop(self) -> None:
        """Stops the task and sends a last heartbeat that says "stopped".

        With it, the people on this node count as reconnecting at once. Without it, the other nodes would have to wait
        until they take this node for dead.
        """
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
                if self._redis_answers:
                    self.journal("redis.lost", logging.WARNING, error=error)
                self._redis_answers = False
            else:
                if not self._redis_answers:
                    self.journal("redis.back")
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
            "boot": self.boot,
            "state": self.state,
            "ready": self.ready,
            "clients": len(self.here),
            "lag": round(self.manager.log_lag * 1000, 1),
            "rate": round(self.event_rate.per_second, 1),
            "started": round(self._started * 1000),
            "demo": self.settings.demo,
        }
        new_outcomes = outcomes - self._reported_outcomes
        last = self.last_reply.now if self.last_reply is not None else 0
        reply = self.last_reply = await self.store.heartbeat(self.settings.name, record, new_outcomes)
        self._reached_since = reached_since(self._reached_since, last, reply.now)
        self._reported_outcomes = outcomes
        if reply.kill and self.settings.demo:
            self.kill("another page")
        old = [name for name, node in reply.nodes.items() if reply.now - node["at"] > FORGET_AFTER]
        if old:
            await self.store.forget_nodes(old)

    async def _update_people(self) -> None:
        """Works out who is in the chat, and shows the list to this node's clients if it changed.

        It also writes down what a dead node could not: that its people lost their connection, or did not come back. And
        it corrects what was written about this node's own people while it was taken for dead.
        """
        reply = self.last_reply
        assert reply is not None
        up = sorted(
            (name, node["boot"]) for name, node in reply.nodes.items() if alive(node, reply.now, self._reached_since)
        )
        look = (reply.version, up)
        waiting = any(person["state"] != "here" for person in self.people)
        if look == self._last_look and not waiting:
            return
        here = dict(self.here)  # whoever comes or leaves while the records are read is seen the next time
        records = await self.store.people()
        keep = round(self.settings.recover_within * 1000)
        found = presence_of(records, reply.nodes, reply.now, self._reached_since, keep)
        for conn in unrecorded_arrivals(records, here):
            await self._record_again(conn)
        for id, conn in (*found.lost, *unrecorded_departures(records, self.settings.name, self.boot, self.here)):
            await self.store.mark_lost(id, conn)
        for id, conn in found.gone:
            if await self.store.remove_person(id, conn):
                self.journal("person.expired", person=id)
        self._last_look = look
        if found.people != self.people:
            self.people = found.people
            await self._show_people(self.people)

    # -- for the cluster's page ---------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """The state of the cluster as JSON: nodes, number of people, outcomes of connecting, news. Times are in ms.

        If Redis does not answer, ``redis`` is false, the news are empty, and the rest is what was known last.
        """
        reply = self.last_reply or HeartbeatReply(0, "", {}, {}, False)
        nodes = [_shown(name, node, reply.now, self._reached_since) for name, node in sorted(reply.nodes.items())]
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
            "here": sum(person["state"] == "here" for person in self.people),
            "reconnecting": sum(person["state"] == "reconnecting" for person in self.people),
            "outcomes": reply.outcomes,
            "news": list(news),
        }


def _shown(name: str, node: Mapping[str, Any], now: int, since: int) -> dict[str, Any]:
    """A node as the cluster's page shows it.

    Its ``state`` is "starting", "up", "draining" or "stopped" as the node reported it; "behind" if it is up and not
    ready; "down" if no heartbeat came lately.
    """
    state = node["state"]
    running = alive(node, now, since)
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
