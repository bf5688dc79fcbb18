"""Compares what the library says of participants with what the session records and the log say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import redis.exceptions
from socketio_recovery.entries import CLOSE, ENTER, LEAVE, Room
from socketio_recovery.participants import Change, Participant, read_members, read_nodes, read_participants
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.scripts import COUNT, MEMBERS, PARTICIPANTS, Script

from .check import LogHistory
from .redis import SimulatedRedis, text
from .simulation import SESSION, SimulatedNode, Simulation

KEYS = Keys("m")


def run(store: SimulatedRedis, script: Script, keys: Sequence[str], *arguments: str) -> Any:
    """Runs a script in no time."""
    rest = [text(part) for part in (len(keys), *keys, *arguments)]
    try:
        return store.execute([b"EVALSHA", script.sha.encode(), *rest])
    except redis.exceptions.NoScriptError:
        return store.execute([b"EVAL", script.source.encode(), *rest])


def sets(store: SimulatedRedis, rooms: Sequence[Room]) -> list[set[str]]:
    """Who is in each of the rooms, by what the library says, whether their time is over or not."""
    keys = [KEYS.members("/", room) for room in rooms]
    reply = run(store, MEMBERS, [KEYS.meta, KEYS.nodes, KEYS.everyone("/"), *keys], *("" for _ in rooms))
    return [{sid.decode() for sid in found[::2]} for found in reply[4:]]


def members(store: SimulatedRedis, rooms: Sequence[Room]) -> list[str]:
    """Who is in any of the rooms, by what the library says."""
    keys = [KEYS.members("/", room) for room in rooms]
    names = [room if isinstance(room, str) else "" for room in rooms]
    reply = run(store, MEMBERS, [KEYS.meta, KEYS.nodes, KEYS.everyone("/"), *keys], *names)
    return list(read_members(reply).standings)


def said(store: SimulatedRedis, rooms: Sequence[Room]) -> dict[str, Participant]:
    """What the library says: sid -> participant."""
    sids = members(store, rooms)
    records = [KEYS.session(sid) for sid in sids]
    reply = run(store, PARTICIPANTS, [KEYS.closes, KEYS.nodes, KEYS.everyone("/"), *records])
    return {sid: found.participant for sid, found in read_participants(sids, reply).items()}


def counted(store: SimulatedRedis, rooms: Sequence[Room]) -> list[int]:
    """What the library counts: connected and reconnecting."""
    counted = KEYS.members("/", rooms[0]) if rooms else KEYS.everyone("/")
    return list(run(store, COUNT, [KEYS.nodes, counted]))


def memberships(history: LogHistory) -> dict[str, set[Room]]:
    """The rooms of each session by the log as it is now."""
    rooms: dict[str, set[Room]] = {}
    for _, entry in history.timelines[-1]:
        if entry.kind == ENTER:
            rooms.setdefault(entry.sid, set()).add(entry.room)
        elif entry.kind == LEAVE:
            rooms.get(entry.sid, set()).discard(entry.room)
        elif entry.kind == CLOSE:
            for entered in rooms.values():
                entered.discard(entry.room)
    return rooms


def truth(store: SimulatedRedis) -> dict[str, str]:
    """Who is there by the session records and the nodes' heartbeats: sid -> state."""
    nodes = {node.name: node for node in read_nodes(store.do_hgetall(b"{m}:nodes")).values()}
    now = store.ms
    found = {}
    for key in list(store.data.keys):
        record = store.key(key) if key.startswith(SESSION) else None
        if not record or b"ns" not in record or b"adopted" in record:
            continue
        state, waits = "reconnecting", int(record[b"deadline"]) >= now
        if record[b"holder"]:
            node = nodes.get(json.loads(b"[" + record[b"holder"] + b"]")[0])
            if node is None or node.at + node.ttl < now:
                continue
            if node.alive(now):
                state, waits = "connected", True
        if waits:
            found[key.removeprefix(SESSION).decode()] = state
    return found


def check_participants(cluster: Simulation, history: LogHistory, rooms: Iterable[Room]) -> None:
    """Checks what must be true at any time: who is there, in which state and in which rooms."""
    expected = truth(cluster.store)
    everybody = said(cluster.store, ())
    assert {sid: participant.state.value for sid, participant in everybody.items()} == expected
    inside = memberships(history)
    for sid, participant in everybody.items():
        assert set(participant.rooms) == inside.get(sid, set()), f"the rooms of {sid}"
    asked = tuple(rooms)
    for room, found in zip(asked, sets(cluster.store, asked), strict=True):
        assert everybody.keys() & found == {sid for sid in everybody if room in inside.get(sid, ())}, room


def check_counts(cluster: Simulation, history: LogHistory, rooms: Iterable[Room], set_back: bool) -> None:
    """Checks what must be true when everything is settled: those with a connection, and how many there are.

    :param set_back: whether Redis's clock was set back: then dead nodes count as alive for longer.

    If Redis lost the end of a session, that session is its node's until its deadline. If the clock jumped ahead, or
    Redis was away for long, deadlines of sessions may have passed before their node died. And those of idle clients
    pass up to three heartbeats before it is certain that all of their dead node have. A count does not know that.
    """
    nodes = read_nodes(cluster.store.do_hgetall(b"{m}:nodes")).values()
    dying = any(not node.alive(cluster.store.ms) and node.at + node.ttl >= cluster.store.ms for node in nodes)
    everybody = said(cluster.store, ())
    connected = {sid for sid, participant in everybody.items() if participant.state == "connected"}
    clients = {c.session.sid for c in cluster.clients if c.websocket and c.connected and c.session}
    assert connected >= clients if set_back or history.lost else connected == clients
    for asked in ((), *((room,) for room in rooms)):
        states = [participant.state.value for participant in said(cluster.store, asked).values()]
        connections, waiting = counted(cluster.store, asked)
        more = waiting - states.count("reconnecting")
        assert connections == states.count("connected"), asked
        assert more == 0 or (more > 0 and (history.outage or dying)), asked


class Observed:
    """What one node was told of the participants of a room."""

    def __init__(self, node: SimulatedNode, room: Room, from_the_beginning: bool) -> None:
        self.node = node
        self.room = room
        self.from_the_beginning = from_the_beginning
        self.states: dict[str, str | None] = {}
        self.faults: list[str] = []
        node.manager.on_participants(room, observer=self.changed)

    def changed(self, change: Change, participant: Participant) -> None:
        sid, known = participant.sid, participant.sid in self.states
        before = self.states.get(sid)
        if (change is Change.JOIN) != (before is None) and (known or self.from_the_beginning):
            self.faults.append(f"{change} of {sid}, which was {before}")
        self.states[sid] = None if change is Change.LEAVE else participant.state.value

    def told_all(self) -> bool:
        """Whether it was told everything. A deadline that passes is told with the next heartbeat of the node."""
        rooms = () if self.room is None else (self.room,)
        now = {sid: participant.state.value for sid, participant in said(self.node.store, rooms).items()}
        states = {sid: state for sid, state in self.states.items() if state is not None}
        if not self.from_the_beginning:  # it is told nothing of those who were there before it
            now = {sid: state for sid, state in now.items() if sid in self.states}
        return states == now
