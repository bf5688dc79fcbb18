"""The session's record in Redis: created, claimed, kept alive, saved, detached, forgotten.

One owner.  A session belongs to the connection whose *token* its record names. Claiming is one atomic
script: it checks the secret and the deadline, puts the new token in, raises the *fence* (how often the
session was claimed), tells the connection that may still hold it (``evict``), and returns the last number
of the log, K. From then on the old owner's writes are refused: they carry the old token.

No write creates a record but ``create``: a session that expired or was forgotten stays so.

Orphans.  While a session has an owner it is listed in a sorted set, by its deadline. A heartbeat that does
not come in time means that the owner's node is dead, or cut off. Then one living node *adopts* the session:
it becomes the owner, nobody can claim the session any more, and its ``disconnect`` handler runs there. What
is left of the record says so, for the case that the owner was only frozen.

The record is a hash:

=================  ===================================================================
``ns``             namespace
``hash``           SHA-256 of the secret; the secret itself is never stored
``token``          of the owner; empty while detached
``open``           tokens whose ``disconnect`` handler may have to run yet, see ``lua/_owned.lua``
``holder``         the owner's node and transport, as JSON without brackets
``fence``          how often it was claimed, and once for its creation
``epoch, birth``   position at which it was created
``confirmed``      the client is known to have received everything up to here ...
``sent``           ... and this was the last offset it had been given then
``deadline``       when it can no longer be claimed (ms since 1970, Redis's time)
``was``            the deadline before it was last claimed
``adopted``        its node died, and another runs its ``disconnect`` handler, or has run it
``data``           the session's data, JSON
``r:.. g:..``      rooms, see ``lua/_rooms.lua``
=================  ===================================================================

Where a client goes on.  It sends the offset of the last event it saw. That may be long ago, if it is a
quiet client, or never. But when a ping that was queued at position c has been answered, all that was sent
before the ping has arrived. The pair (c, the last offset sent before c) is stored with each heartbeat. A
client whose offset is not older than that last offset, and not newer than c, has missed nothing up to c.
See :func:`start_of`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from .codec import EVICT, Position, Room, check_room, dump
from .connections import Argument, Calls, Script
from .errors import SessionGone
from .log import Keys
from .membership import Rooms, Stay

CREATE, CLAIM, HEARTBEAT = Script("create"), Script("claim"), Script("heartbeat")
DETACH, SAVE, FORGET = Script("detach"), Script("save"), Script("forget")
DUE, ADOPT = Script("due"), Script("adopt")

#: Sessions in one heartbeat script: a long script keeps Redis from serving others.
HEARTBEAT_COUNT = 200

_PID = re.compile(r"([\x21-\x7e]{1,128})\.([A-Za-z0-9_-]{32})", re.ASCII)


class Pid(NamedTuple):
    """What a client shows to get its session back: ``sid.secret``. Whoever has it is the client."""

    sid: str
    secret: str

    def __str__(self) -> str:
        return f"{self.sid}.{self.secret}"

    def __repr__(self) -> str:  # not in logs, not in tracebacks
        return f"Pid({self.sid!r}, ...)"

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @classmethod
    def new(cls, sid: str) -> Pid:
        return cls(sid, secrets.token_urlsafe(24))

    @classmethod
    def parse(cls, text: object) -> Pid | None:
        """The pid that a client sent, or ``None`` if it is not one of ours."""
        match = _PID.fullmatch(text) if isinstance(text, str) else None
        return cls(match[1], match[2]) if match else None


class Record(NamedTuple):
    """A session as it was when it was claimed, at ``last``."""

    last: Position  #: the log's last entry then: K
    fence: int
    birth: int
    confirmed: int
    sent: int
    data: dict[str, Any]
    stays: list[Stay]


class Orphan(NamedTuple):
    """A session whose node died, as it was then."""

    sid: str
    namespace: str
    data: dict[str, Any]
    rooms: Rooms


#: What reading a record raises that this library did not write.
DAMAGE = (KeyError, TypeError, ValueError, RecursionError)


def _stays(fields: dict[bytes, bytes]) -> list[Stay]:
    stays = []
    for name, value in fields.items():
        if name.startswith(b"r:"):
            stays.append(Stay(check_room(json.loads(name[2:])), int(value)))
        elif name.startswith(b"g:"):
            left, _, room = name[2:].partition(b":")
            stays.append(Stay(check_room(json.loads(room)), int(value), int(left)))
    return stays


def _data(fields: dict[bytes, bytes]) -> dict[str, Any]:
    data = json.loads(fields[b"data"])
    if not isinstance(data, dict):
        raise TypeError("its data is no dict")
    return data


def _record(reply: Sequence[Any]) -> Record:
    """The record in a claim's reply; raises :data:`DAMAGE`."""
    fields = dict(zip(reply[3::2], reply[4::2], strict=True))
    return Record(
        last=Position(int(reply[1]), int(reply[2])),
        fence=int(fields[b"fence"]),
        birth=int(fields[b"birth"]),
        confirmed=int(fields[b"confirmed"]),
        sent=int(fields[b"sent"]),
        data=_data(fields),
        stays=_stays(fields),
    )


def _damaged(error: Exception) -> bool:
    """Whether a script failed at what it found in the record, not at what Redis can't do just now."""
    return "WRONGTYPE" in str(error) or ": attempt to " in str(error) or "not an integer" in str(error)


class Refused(NamedTuple):
    """A session was not claimed, and why: ``"unknown"``, ``"expired"``, ``"epoch"`` or ``"damaged"``."""

    reason: str
    detail: str = ""  #: of what is damaged


def seen_by(record: Record, offset: Position | None) -> int | None:
    """The number of the last event that the client saw, or the session's birth.

    :param offset: that the client sent; ``None`` if it has seen no event yet.
    :returns: ``None`` for an offset that no event can have had.
    """
    if offset is None or offset < (record.last.epoch, record.birth):
        # The JavaScript client keeps the offset of an earlier session beside the pid of a new one.
        return record.birth
    return offset.n if offset <= record.last else None


def start_of(record: Record, seen: int) -> int:
    """The number after which the client has missed everything; see :func:`seen_by`."""
    return record.confirmed if record.sent <= seen <= record.confirmed else seen


def encode_data(data: object) -> str:
    """Session data as JSON.

    :raises TypeError: for anything but a ``dict`` of JSON values; names the key.
    """
    if not isinstance(data, dict):
        raise TypeError(f"session data must be a dict to be recoverable, not {type(data).__name__}")
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        raise TypeError(_unserialisable(data)) from None


def _unserialisable(data: dict[Any, Any]) -> str:
    for key, value in data.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            return f"session data can't be stored: key {key!r}: {error}"
    return "session data can't be stored as JSON"


class Beat(NamedTuple):
    """What a heartbeat says of one session."""

    sid: str
    token: str
    confirmed: tuple[int, int] | None  #: (confirmed, sent), if they changed
    closed_rooms: Sequence[Room]


class Sessions:
    """The records of one manager's sessions.

    :param calls: how scripts are run.
    :param node: this node's name.
    :param max_disconnection: how long a detached session waits, in milliseconds.
    :param ttl: how long a session lives without a heartbeat, in milliseconds.
    :param lease: how long an owner has to show that it lives, past that, in milliseconds.
    :param timeout: how long a call may take, in seconds.

    Every method raises :class:`RedisUnavailable` if Redis does not answer in time.
    """

    #: How long a detached record outlives its deadline, in ms: who comes late is told "expired", not "unknown".
    GRACE = 60_000
    #: How long a record with an owner does, in ms: for a node to adopt it, should all be down for a while.
    ORPHAN_GRACE = 86_400_000

    def __init__(
        self, calls: Calls, keys: Keys, node: str, max_disconnection: int, ttl: int, lease: int, timeout: float
    ) -> None:
        self.calls = calls
        self.keys = keys
        self.node = node
        self.max_disconnection = max_disconnection
        self.ttl = ttl
        self.lease = lease
        self.timeout = timeout

    async def _run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        return await self.calls.run(script, keys, arguments, self.timeout)

    def _holder(self, transport: str) -> str:
        return dump([self.node, transport])[1:-1]

    async def create(self, sid: str, pid: Pid | None, namespace: str, token: str, transport: str) -> Position:
        """Creates a session, owned by ``token``. Without a ``pid`` nobody can claim it later.

        :returns: its birth: the log's last entry.
        """
        epoch, n = await self._run(
            CREATE,
            [self.keys.session(sid), self.keys.log, self.keys.meta, self.keys.owned],
            *(namespace, pid.hash if pid else "", token, self._holder(transport), self.ttl, self.ORPHAN_GRACE),
        )
        return Position(int(epoch), int(n))

    async def claim(self, pid: Pid, namespace: str, token: str, transport: str) -> Record | Refused:
        """Makes ``token`` the owner of the session. Nothing changes if it is refused."""
        try:
            reply = await self._run(
                CLAIM,
                [self.keys.session(pid.sid), self.keys.log, self.keys.meta, self.keys.closes, self.keys.owned],
                *(namespace, pid.hash, token, self._holder(transport), dump([EVICT, namespace, pid.sid])[:-1]),
                *(self.ttl, self.ORPHAN_GRACE),
            )
        except Exception as error:
            if not _damaged(error):
                raise
            return Refused("damaged", str(error))
        if reply[0] != b"ok":
            return Refused(reply[0].decode())
        try:
            return _record(reply)
        except DAMAGE as error:
            return Refused("damaged", f"{type(error).__name__}: {error}")

    async def detach(self, sid: str, token: str, failed: bool = False) -> bool:
        """The owner's transport is gone; the session waits.

        :param failed: the token's claim did not end in a recovery: the session goes back to how it found it.
        :returns: whether ``token`` was the owner's.
        """
        keys = [self.keys.session(sid), self.keys.owned]
        arguments = (token, self.max_disconnection, self.GRACE, int(failed), self.ORPHAN_GRACE)
        return bool(await self._run(DETACH, keys, *arguments))

    async def forget(self, sid: str, token: str) -> bool:
        """The session is over. Returns whether ``token`` was the owner's."""
        return bool(await self._run(FORGET, [self.keys.session(sid), self.keys.owned], token))

    async def save(self, sid: str, token: str, data: object) -> None:
        """Stores the session's data.

        :raises TypeError: if it is not JSON; nothing is stored.
        :raises SessionGone: if ``token`` is not the owner's.
        """
        if not await self._run(SAVE, [self.keys.session(sid)], token, encode_data(data)):
            raise SessionGone(sid)

    async def heartbeat(self, beats: Sequence[Beat]) -> dict[int, bool]:
        """Keeps sessions alive and stores what changed.

        :returns: the indexes of the sessions that are gone or belong to another connection, each with whether
            a node has adopted it.
        """
        lost: dict[int, bool] = {}
        for first in range(0, len(beats), HEARTBEAT_COUNT):
            some = beats[first : first + HEARTBEAT_COUNT]
            arguments: list[Argument] = [self.ttl, self.ORPHAN_GRACE]
            for beat in some:
                arguments += (beat.token, *(beat.confirmed or ("", "")), len(beat.closed_rooms))
                arguments += map(dump, beat.closed_rooms)
            keys = [self.keys.log, self.keys.meta, self.keys.closes, self.keys.owned]
            keys += [self.keys.session(beat.sid) for beat in some]
            reply = await self._run(HEARTBEAT, keys, *arguments)
            lost.update({first + abs(int(i)) - 1: int(i) < 0 for i in reply[2:]})
        return lost

    async def due(self, most: int) -> tuple[list[str], bool]:
        """Sessions, by ``sid``, whose owner's node seems dead; other nodes are not given the same.

        Of ``most`` whose deadline has passed those are named that had passed it a lease ago, and are not kept since.

        :returns: also whether there may be more.
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
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        if not fields:
            return None
        namespace = fields[b"ns"].decode(errors="replace")
        try:
            stays = _stays(fields)
            return Orphan(
                sid, namespace, _data(fields), {room: entered for room, entered, left in stays if left is None}
            )
        except DAMAGE:  # its handler runs all the same
            return Orphan(sid, namespace, {}, {})
