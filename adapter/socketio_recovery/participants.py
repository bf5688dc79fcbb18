"""Participants: who is in a namespace or a room, on all nodes, and who is only reconnecting.  No I/O.

Redis has for each namespace, and for each room, a sorted set of the sessions in it (``redis/lua/_members.lua``). The
score of a session is either the number of the node that has its connection, as a negative number, or the time until
which it waits for its client. Nodes say by heartbeats that they live. So a session's state follows from what is there
already when somebody asks, and nobody has to clean up after a node that was killed:

=====================================  =========================================================
score                                  state
=====================================  =========================================================
a node that lives                      connected
a node without heartbeats for a lease  reconnecting, until the session's deadline; then over
a time to come                         reconnecting
a time that has passed                 over
=====================================  =========================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from .entries import Position, Room, check_room


class ParticipantState(StrEnum):
    """Whether a participant has a connection just now."""

    CONNECTED = "connected"
    #: It lost its connection, or its node died, and its time to come back is not over.
    RECONNECTING = "reconnecting"


class Change(StrEnum):
    """What happened to a participant."""

    #: It is new, or it entered the room.
    JOIN = "join"
    #: It left the room, it disconnected, or it did not come back in time.
    LEAVE = "leave"
    #: It lost its connection.
    RECONNECTING = "reconnecting"
    #: It came back.
    RETURNED = "returned"


class Participant(NamedTuple):
    """A client of the cluster."""

    #: Its session id.
    sid: str
    #: The node that has its connection, or had it last: the ``host_id`` of that node's manager.
    node: str
    state: ParticipantState
    #: Since when it is in this state, in seconds since 1970 (Redis's time).
    since: float
    #: The rooms that it is in, but for its own, the one with the name ``sid``.
    rooms: tuple[Room, ...]
    #: Its session data, as ``save_session`` stored them. Changes in it are not stored.
    data: dict[str, Any]


class Count(NamedTuple):
    """How many participants there are."""

    connected: int
    reconnecting: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.connected + self.reconnecting


class NodeState(NamedTuple):
    """What the last heartbeat of a node said. All times are Redis's, in ms."""

    name: str
    at: int
    lease: int
    ttl: int

    def alive(self, now: int) -> bool:
        """Whether it lives, as far as one can know."""
        return self.at + self.lease >= now


class Standing(NamedTuple):
    """How a session is, as far as its score says it."""

    state: ParticipantState
    #: If its node died: that node.
    dead: NodeState | None = None


class Members(NamedTuple):
    """Who is in some rooms, at one position of the log."""

    position: Position
    #: By their sids.
    standings: dict[str, Standing]


class Found(NamedTuple):
    """A participant, and what is needed to see when that changes."""

    participant: Participant
    #: Until when it can come back, while it is reconnecting: ms since 1970, Redis's time.
    deadline: int
    #: Whether it is reconnecting because its node died.
    lost: bool


def node_number(name: str) -> int:
    """The number of a node: 48 bits, which a score can hold exactly. Two nodes of one cluster don't share it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) + 1


def read_nodes(names_and_values: Sequence[bytes]) -> dict[int, NodeState]:
    """The nodes by their numbers. What this library did not write is left out."""
    nodes = {}
    for name, value in zip(names_and_values[::2], names_and_values[1::2], strict=True):
        try:
            number, at, lease, ttl = map(int, value.split())
        except ValueError:
            continue
        nodes[number] = NodeState(name.decode(errors="replace"), at, lease, ttl)
    return nodes


def standing(score: float, nodes: Mapping[int, NodeState], now: int) -> Standing | None:
    """How a session with this score is; ``None`` if it is over.

    The deadline of a session whose node died is in its record: see :func:`read_participant`.
    """
    if score > 0:
        return Standing(ParticipantState.RECONNECTING) if score >= now else None
    node = nodes.get(int(-score))
    if node is None or node.at + node.ttl < now:
        return None
    return Standing(ParticipantState.CONNECTED) if node.alive(now) else Standing(ParticipantState.RECONNECTING, node)


def read_members(reply: Sequence[Any]) -> Members:
    """What the members script replied."""
    epoch, n, now, names_and_values, *sets = reply
    nodes = read_nodes(names_and_values)
    standings = {}
    for members in sets:
        for sid, score in zip(members[::2], members[1::2], strict=True):
            found = standing(float(score), nodes, int(now))
            if found is not None:
                standings[sid.decode(errors="replace")] = found
    return Members(Position(int(epoch or 0), int(n)), standings)


def read_participants(sids: Sequence[str], reply: Sequence[Any]) -> dict[str, Found]:
    """What the participants script replied for these sids. Those that are over are left out."""
    now, names_and_values, *records = reply
    nodes = read_nodes(names_and_values)
    found = {}
    for sid, record in zip(sids, records, strict=True):
        one = _read_participant(sid, record, nodes, int(now)) if record else None
        if one is not None:
            found[sid] = one
    return found


def _read_participant(sid: str, record: Sequence[bytes], nodes: Mapping[int, NodeState], now: int) -> Found | None:
    """A participant; ``None`` if it is over, or if its record is not as this library writes it."""
    try:
        score, holder, since, deadline, data, *rooms = (part.decode() for part in record)
        how = standing(float(score), nodes, now)
        if how is None or (how.dead is not None and int(deadline) < now):
            return None
        node = json.loads(f"[{holder}]")[0] if holder else ""
        changed = max(int(since), how.dead.at if how.dead is not None else 0)
        entered = tuple(check_room(json.loads(room)) for room in rooms)
        participant = Participant(sid, str(node), how.state, changed / 1000, entered, dict(json.loads(data)))
        return Found(participant, int(deadline), how.dead is not None)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def change(before: Participant | None, now: Participant | None) -> Change | None:
    """What happened to a participant; ``None`` on either side for one that is not there. ``None`` if nothing did."""
    if before is None:
        return Change.JOIN if now is not None else None
    if now is None:
        return Change.LEAVE
    if now.state is before.state:
        return None
    return Change.RETURNED if now.state is ParticipantState.CONNECTED else Change.RECONNECTING
