"""Session records in Redis: created, claimed, kept alive, saved, detached, forgotten, adopted.

One owner.  A session belongs to the connection whose *token* its record names. Claiming is one atomic script. It checks
the secret and the deadline, puts the new token in, tells the connection that may still hold the session (``evict``),
and returns the last number of the log, K. From then on the old owner's writes are refused, because they carry the old
token.

Only ``create`` makes a record. No other write does, so a session that expired or was forgotten stays so.

Orphans.  While a session has an owner it is listed in a sorted set by its deadline. If no heartbeat extends the
deadline in time, the owner's node is dead or cut off. Then one living node *adopts* the session: it becomes the owner,
nobody can claim the session any more, and its ``disconnect`` handler runs there. What is left of the record says so, in
case the owner was only frozen.

What a record says is in ``session_record.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..entries import CHANGED, EVICT, Offset, Position, Room, control_head, dump
from ..errors import SessionGone
from ..participants import node_number
from ..reasons import Outcome
from ..redis.keys import Keys
from ..redis.scripts import ADOPT, CLAIM, CREATE, DETACH, DUE, FORGET, HEARTBEAT, SAVE, Argument, Script
from ..session_record import Heartbeat, Orphan, Pid, Record, Refused, encode_data, read_claim, read_orphan
from .script_calls import ScriptCalls

#: What ``lua/detach.lua`` says if somebody has ended the session.
ENDED = 3
#: How often a script is told of more rooms of a session, at most.
NAMING = 5
#: Sessions in one heartbeat script: a long script keeps Redis from serving others.
HEARTBEAT_COUNT = 200


def _damaged(error: Exception) -> bool:
    """Whether a script failed at what it found in the record, rather than at what Redis can't do just now."""
    return "WRONGTYPE" in str(error) or ": attempt to " in str(error) or "not an integer" in str(error)


class Sessions:
    """The records of one manager's sessions.

    :param calls: how scripts are run.
    :param node: this node's name.
    :param max_disconnection: how long a detached session waits, in milliseconds.
    :param ttl: how long a session lives without a heartbeat, in milliseconds.
    :param lease: how long an owner has to show that it lives, past that, in milliseconds.
    :param timeout: how long a call may take, in seconds.
    :param witness: is called before Redis is asked for something whose answer says where the log ends; returns what is
        to be called with that. See :meth:`Log.witness`.

    Every method raises :class:`RedisUnavailable` if Redis does not answer in time.
    """

    #: How long a detached record outlives its deadline, in ms: a client that comes late is told "expired", not
    #: "unknown".
    GRACE = 60_000
    #: How long a record with an owner outlives its deadline, in ms: all nodes may be down before one can adopt it.
    ORPHAN_GRACE = 86_400_000

    def __init__(
        self,
        calls: ScriptCalls,
        keys: Keys,
        node: str,
        max_disconnection: int,
        ttl: int,
        lease: int,
        timeout: float,
        witness: Callable[[], Callable[[Position, int], None]],
    ) -> None:
        self.calls = calls
        self.keys = keys
        self.node = node
        self.max_disconnection = max_disconnection
        self.ttl = ttl
        self.lease = lease
        self.timeout = timeout
        self.witness = witness

    async def _run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        return await self.calls.run(script, keys, arguments, self.timeout)

    def _holder(self, transport: str) -> str:
        return dump([self.node, transport])[1:-1]

    async def create(self, sid: str, pid: Pid | None, namespace: str, token: str, transport: str) -> Position:
        """Creates a session, owned by ``token``. Without a ``pid`` nobody can claim it later.

        :returns: its birth: the log's last entry.
        """
        told = self.witness()
        epoch, n, ms = await self._run(
            CREATE,
            [self.keys.session(sid), self.keys.log, self.keys.meta, self.keys.owned, self.keys.everyone(namespace)],
            *(namespace, pid.hash if pid else "", token, self._holder(transport), self.ttl, self.ORPHAN_GRACE),
            *(-node_number(self.node), control_head(CHANGED, namespace, sid)),
        )
        birth = Position(int(epoch), int(n))
        told(birth, int(ms))
        return birth

    async def claim(
        self, pid: Pid, namespace: str, token: str, transport: str, offset: Offset | None = None
    ) -> Record | Refused:
        """Makes ``token`` the owner of the session. Nothing changes if it is refused.

        :param offset: that of the last event that the client has seen; the record says whether the log holds it.
        """
        told = self.witness()
        keys = self.keys
        try:
            reply = await self._run(
                CLAIM,
                [keys.session(pid.sid), keys.log, keys.meta, keys.closes, keys.owned, keys.everyone(namespace)],
                *(namespace, pid.hash, token, self._holder(transport), dump([EVICT, namespace, pid.sid])[:-1]),
                *(self.ttl, self.ORPHAN_GRACE, offset.id if offset is not None else ""),
                *(-node_number(self.node), control_head(CHANGED, namespace, pid.sid)),
            )
        except Exception as error:
            if not _damaged(error):
                raise
            return Refused(Outcome.DAMAGED, str(error))
        record = read_claim(reply)
        if isinstance(record, Record):
            told(record.last, record.ms)
        return record

    async def detach(
        self, sid: str, token: str, namespace: str = "/", rooms: Iterable[Room] = (), failed: bool = False
    ) -> bool:
        """The owner's transport is gone; the session waits. If somebody has ended it meanwhile, it is forgotten.

        :param rooms: those that it is in, as far as this node knows.
        :param failed: the token's claim did not end in a recovery: the session goes back to how it found it.
        :returns: whether ``token`` was the owner's.
        """
        arguments = (token, self.max_disconnection, self.GRACE, int(failed), self.ORPHAN_GRACE)
        done = await self._over(DETACH, sid, namespace, rooms, *arguments)
        return await self.forget(sid, token, namespace, rooms) if done == ENDED else bool(done)

    async def forget(self, sid: str, token: str, namespace: str = "/", rooms: Iterable[Room] = ()) -> bool:
        """The session is over. Returns whether ``token`` was the owner's.

        :param rooms: those that it is in, as far as this node knows.
        """
        return bool(await self._over(FORGET, sid, namespace, rooms, token))

    async def _over(self, script: Script, sid: str, namespace: str, rooms: Iterable[Room], *arguments: Argument) -> int:
        """Tells Redis that a connection is over, and returns what it says: 0, 1 or :data:`ENDED`."""
        keys, named = self.keys, [dump(room) for room in rooms]
        ends = keys.members_end(namespace)
        for attempt in range(NAMING):
            done, *others = await self._run(
                script,
                [
                    *(keys.session(sid), keys.owned, keys.log, keys.meta, keys.everyone(namespace)),
                    *(keys.members_named(namespace, room) for room in named),
                ],
                *(*arguments, control_head(CHANGED, namespace, sid), keys.members_of, ends, int(attempt == NAMING - 1)),
            )
            if int(done) != 2:
                return int(done)
            # It has entered them just now: this node has not heard of it.
            named += [room.decode(errors="replace") for room in others]
        raise AssertionError("the last attempt is not refused")

    async def save(self, sid: str, token: str, data: object) -> None:
        """Stores the session's data.

        :raises TypeError: if it would come back changed; nothing is stored.
        :raises SessionGone: if ``token`` is not the owner's.
        """
        await self._save(sid, token, "data", encode_data(data))

    async def save_extra(self, sid: str, token: str, extra: str) -> None:
        """Stores what else the server keeps with the session.

        :raises SessionGone: if ``token`` is not the owner's.
        """
        await self._save(sid, token, "extra", extra)

    async def _save(self, sid: str, token: str, field: str, value: str) -> None:
        if not await self._run(SAVE, [self.keys.session(sid)], token, field, value):
            raise SessionGone(sid)

    async def damaged(self, sid: str, token: str) -> None:
        """Notes that the session's record does not agree with the log: nobody can claim the session any more."""
        await self._run(SAVE, [self.keys.session(sid)], token, "damaged", 1)

    async def heartbeat(self, heartbeats: Sequence[Heartbeat]) -> dict[int, bool]:
        """Keeps sessions alive and stores what changed.

        :returns: the indexes of the sessions that are gone or belong to another connection, each with whether
            a node has adopted it.
        """
        lost: dict[int, bool] = {}
        for first in range(0, len(heartbeats), HEARTBEAT_COUNT):
            some = heartbeats[first : first + HEARTBEAT_COUNT]
            arguments: list[Argument] = [self.ttl, self.ORPHAN_GRACE]
            for heartbeat in some:
                arguments += (heartbeat.token, *(heartbeat.confirmed or ("", "")), len(heartbeat.closed_rooms))
                arguments += map(dump, heartbeat.closed_rooms)
            keys = [self.keys.log, self.keys.meta, self.keys.closes, self.keys.owned]
            keys += [self.keys.session(heartbeat.sid) for heartbeat in some]
            told = self.witness()
            reply = await self._run(HEARTBEAT, keys, *arguments)
            told(Position(int(reply[0]), int(reply[1])), 0)
            lost.update({first + abs(int(i)) - 1: int(i) < 0 for i in reply[2:]})
        return lost

    async def due(self, most: int) -> tuple[list[str], bool]:
        """Looks at up to ``most`` overdue sessions.

        Returns those that were marked in doubt one lease ago and had no heartbeat since. Their owners' nodes seem to be
        dead. Other nodes are not given the same sessions for another lease.

        :returns: their ``sid``s, and whether there may be more overdue sessions.
        """
        count, *keys = await self._run(DUE, [self.keys.owned], most, self.lease)
        return [key.decode().removeprefix(self.keys.session("")) for key in keys], int(count) == most

    async def adopt(self, sid: str, token: str) -> Orphan | None:
        """Makes ``token`` the owner of a session whose node is dead; ``None`` if it is not, or not any more."""
        reply = await self._run(
            ADOPT,
            [self.keys.session(sid), self.keys.log, self.keys.meta, self.keys.closes, self.keys.owned],
            *(token, self._holder(""), self.ttl, self.ORPHAN_GRACE),
        )
        return read_orphan(sid, reply)
