"""Tells the application who joins, leaves, loses its connection and returns, in the rooms that it watches.

While somebody watches, each change of a session is an entry of the log (``changed``); the entries about rooms are there
anyway. An entry only says of whom something has changed. This node then reads how that participant is now, and compares
it with what it has told the application before. So it tells the truth whatever it has missed, and it costs a read for
each change. Two cases have no entry: a node that dies, and a deadline that passes. For those it looks again with each
heartbeat of the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..entries import CLOSE, ENTER, LEAVE, Entry, Room
from ..errors import RedisUnavailable
from ..participants import Change, Found, Participant, ParticipantState, change
from ..partition import Partition
from .node_heartbeat import NodeHeartbeat
from .participants import Participants
from .tasks import KeyedQueue

#: What an application registers: called with what happened, and to whom.
Observer = Callable[[Change, Participant], Any]

#: How long changes are gathered before they are read, in seconds.
GATHER = 0.02


class _Watch:
    """One room, or a namespace if the room is ``None``, and what the application was told of it."""

    def __init__(self, namespace: str, room: Room) -> None:
        self.namespace = namespace
        self.room = room
        self.observers: list[Observer] = []
        self.known: dict[str, Found] = {}
        #: Of whom something has changed; a dict, for its order.
        self.touched: dict[str, None] = {}
        #: About whom Redis is being asked: they may be in the room, and may change again meanwhile.
        self.asked: dict[str, None] = {}
        #: Whether the application was told nothing yet: who is there already is no news.
        self.new = True
        #: Whether to look at everybody.
        self.all = True

    def holds(self, participant: Participant) -> bool:
        """Whether the participant is in the room."""
        return self.room is None or self.room == participant.sid or self.room in participant.rooms


def _touched(watch: _Watch, entry: Entry) -> Iterable[str]:
    """The participants of a watch for whom an entry of its namespace may have changed something."""
    if entry.kind == CLOSE:
        return (*watch.known, *watch.asked) if entry.room == watch.room else ()
    if entry.kind in (ENTER, LEAVE):
        concerned = entry.room == watch.room
    else:
        concerned = watch.room in (None, entry.sid) or entry.sid in watch.known or entry.sid in watch.asked
    return (entry.sid,) if concerned else ()


class ParticipantChanges:
    """The watches of one node.

    :param tasks: runs what the application registered, in order.
    """

    def __init__(
        self,
        participants: Participants,
        heartbeat: NodeHeartbeat,
        partition: Partition,
        tasks: KeyedQueue,
        logger: logging.Logger,
    ) -> None:
        self.participants = participants
        self.heartbeat = heartbeat
        self.partition = partition
        self.tasks = tasks
        self.logger = logger
        self._watches: dict[tuple[str, Room], _Watch] = {}
        self._wake = asyncio.Event()
        #: Set when it is known who was there before: from then on changes are told.
        self.begun = asyncio.Event()
        self.begun.set()
        #: Entries have told all changes in this epoch, since the reader lost its place the last time, and since then.
        self._since = (0, 0, 0)
        self._alive: set[str] = set()  # the nodes that lived when this was last looked at
        self._now = 0  # Redis's time at the heartbeat that was looked at (ms)

    def __bool__(self) -> bool:
        return bool(self._watches)

    def observe(self, namespace: str, room: Room, observer: Observer) -> None:
        """Has ``observer`` called for each change from now on."""
        watch = self._watches.setdefault((namespace, room), _Watch(namespace, room))
        watch.observers.append(observer)
        if watch.new:
            self.begun.clear()
        self._wake.set()
        self.heartbeat.wake()

    def changed(self, entry: Entry) -> None:
        """An entry that may change who is where was dispatched."""
        if not self._watches:
            return
        for watch in self._watches.values():
            if watch.namespace == entry.namespace and (touched := _touched(watch, entry)):
                watch.touched.update(dict.fromkeys(touched))
                self._wake.set()

    async def run(self) -> None:
        """Reads what has changed and tells it, for ever. To be run as a task."""
        while True:
            try:
                async with asyncio.timeout(self.heartbeat.durations.node_heartbeat / 1000 if self._watches else None):
                    await self._wake.wait()
                    await asyncio.sleep(GATHER)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                self._look_around()
                for watch in list(self._watches.values()):
                    await self._read(watch)
                if not any(watch.new for watch in self._watches.values()):
                    self.begun.set()
            except RedisUnavailable as error:
                self.logger.warning("can't ask who comes and goes, will try again: %s", error)

    def _look_around(self) -> None:
        """What has no entry: what changed while entries were lost or not written; nodes that die; deadlines."""
        partition = self.partition
        since = (partition.position.epoch, partition.cursor.restarts, self.heartbeat.watched_since)
        now, alive = self.heartbeat.now, set(self.heartbeat.alive)
        for watch in self._watches.values():
            # Of a node that was not known, nobody was there yet, or not any more.
            watch.all |= since != self._since or not alive <= self._alive
            if now == self._now:
                continue
            for sid, (participant, deadline, lost) in watch.known.items():
                waits = participant.state is ParticipantState.RECONNECTING
                over = waits and deadline < now
                # Not only if a node has died or come back since the last look: Redis may have been asked in a moment
                # in which the node was late with a heartbeat, and which lies between two of this node's own.
                if over or (lost if participant.node in alive else not waits):
                    watch.touched[sid] = None
        self._since, self._alive, self._now = since, alive, now

    async def _read(self, watch: _Watch) -> None:
        whole, touched = watch.all, watch.touched
        if not whole and not touched:
            return
        watch.all, watch.touched = False, {}
        try:
            if whole:
                rooms = () if watch.room is None else (watch.room,)
                members = await self.participants.members(watch.namespace, rooms)
                touched = {**dict.fromkeys(watch.known), **dict.fromkeys(members.standings)}
            watch.asked = touched
            found = await self.participants.find(watch.namespace, list(touched))
        except BaseException:
            watch.all |= whole
            watch.touched = {**touched, **watch.touched}
            raise
        finally:
            watch.asked = {}
        for sid in touched:
            now = found.get(sid)
            if now is not None and not watch.holds(now.participant):
                now = None
            before = watch.known.get(sid)
            if now is None:
                watch.known.pop(sid, None)
            else:
                watch.known[sid] = now
            self._tell(watch, before, now)
        watch.new = False

    def _tell(self, watch: _Watch, before: Found | None, now: Found | None) -> None:
        what = change(before and before.participant, now and now.participant)
        about = now or before
        if what is None or about is None or watch.new:
            return
        for observer in watch.observers:

            async def tell(observer: Observer = observer) -> None:
                result = observer(what, about.participant)
                if isinstance(result, Awaitable):
                    await result

            self.tasks.start(("participants", watch.namespace, watch.room, id(observer)), tell)
