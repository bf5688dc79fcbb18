"""Asks Redis who is in a namespace or a room, on all nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..entries import Room
from ..participants import Count, Found, Members, Participant, read_members, read_nodes, read_participants
from ..redis.keys import Keys
from ..redis.scripts import COUNT, MEMBERS, PARTICIPANTS, PLACE, Argument, Script
from .node_heartbeat import NodeHeartbeat
from .script_calls import ScriptCalls

#: Session records that are read in one script: a long script keeps Redis from serving others.
STEP = 200


class Participants:
    """Questions about the clients of the cluster. Any process can ask.

    :param timeout: how long a call may take, in seconds.
    :param heartbeat: that of the node that asks; ``None`` in a process that only writes.

    Every method raises :class:`RedisUnavailable` if Redis does not answer in time. ``rooms`` is what
    :func:`socketio_recovery.entries.audience` returns: no rooms mean everybody in the namespace.
    """

    def __init__(self, calls: ScriptCalls, keys: Keys, timeout: float, heartbeat: NodeHeartbeat | None = None) -> None:
        self.calls = calls
        self.keys = keys
        self.timeout = timeout
        self.heartbeat = heartbeat

    async def _ask(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        if self.heartbeat is not None:
            await self.heartbeat.ensure()
        return await self.calls.run(script, keys, arguments, self.timeout)

    async def members(self, namespace: str, rooms: Sequence[Room]) -> Members:
        """Who is in any of the rooms, at one position of the log."""
        keys = self.keys
        reply = await self._ask(
            MEMBERS,
            [keys.meta, keys.nodes, keys.everyone(namespace), *(keys.members(namespace, room) for room in rooms)],
            [room if isinstance(room, str) else "" for room in rooms],
        )
        return read_members(reply)

    async def list(self, namespace: str, rooms: Sequence[Room]) -> list[Participant]:
        """The participants in any of the rooms, in the order in which they came or lost their connection.

        Who is there, and whether connected, is as of one position of the log; a participant's rooms and data are read
        right after that.
        """
        members = await self.members(namespace, rooms)
        found = await self.find(namespace, list(members.standings))
        participants = [one.participant._replace(state=members.standings[sid].state) for sid, one in found.items()]
        return sorted(participants, key=lambda participant: (participant.since, participant.sid))

    async def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that live."""
        keys = self.keys
        reply = await self.calls.run(PARTICIPANTS, [keys.closes, keys.nodes, keys.everyone("/")], (), self.timeout)
        now, names_and_values = reply
        return tuple(node.name for node in read_nodes(names_and_values).values() if node.alive(int(now)))

    async def find(self, namespace: str, sids: Sequence[str]) -> dict[str, Found]:
        """The participants with these sids; those that are over are left out."""
        keys = self.keys
        found: dict[str, Found] = {}
        for start in range(0, len(sids), STEP):
            step = sids[start : start + STEP]
            reply = await self._ask(
                PARTICIPANTS,
                [keys.closes, keys.nodes, keys.everyone(namespace), *(keys.session(sid) for sid in step)],
            )
            found |= read_participants(step, reply)
        return found

    async def place(self, sid: str, namespace: str, rooms: Iterable[str]) -> None:
        """Counts a session in rooms by the state that it has now: see ``lua/_members.lua``.

        :param rooms: as JSON.
        """
        members = [self.keys.members_named(namespace, room) for room in rooms]
        if members:
            await self.calls.run(PLACE, [self.keys.everyone(namespace), *members], [sid], self.timeout)

    async def count(self, namespace: str, rooms: Sequence[Room]) -> Count:
        """How many participants are in the rooms, each counted once.

        For one room, or everybody, it costs the same whatever their number is.
        """
        if len(rooms) > 1:
            return _counted(await self.members(namespace, rooms))
        keys = self.keys
        members = keys.members(namespace, rooms[0]) if rooms else keys.everyone(namespace)
        count = Count(*map(int, await self._ask(COUNT, [keys.nodes, members])))
        if not count.total and rooms and isinstance(rooms[0], str):  # it may be the own room of a session
            return _counted(await self.members(namespace, rooms))
        return count


def _counted(members: Members) -> Count:
    dead = sum(standing.state == "reconnecting" for standing in members.standings.values())
    return Count(len(members.standings) - dead, dead)
