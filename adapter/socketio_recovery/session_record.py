"""What a session's record in Redis says, and the ``pid`` with which a client claims it.  No I/O.

The record is a hash:

=================  ===================================================================
``ns``             namespace
``hash``           SHA-256 of the secret; the secret itself is never stored
``token``          of the owner; empty while the session is detached
``open``           tokens whose ``disconnect`` handler may still have to run, see ``redis/lua/_owned.lua``
``holder``         the owner's node and transport, as JSON without brackets
``claims``         how often it was claimed, counting its creation as one
``epoch, birth``   position at which it was created
``confirmed``      the client is known to have received everything up to this number ...
``sent``           ... and this was the last offset that it had been given then
``deadline``       when it can no longer be claimed (ms since 1970, Redis's time)
``was``            the deadline that it had before it was last claimed
``adopted``        its node died, and another node runs its ``disconnect`` handler, or has run it
``damaged``        it disagrees with the log, and nobody can claim it any more
``data``           the session's data, JSON
``r:.. g:..``      rooms, see ``redis/lua/_rooms.lua``
=================  ===================================================================
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .entries import Position, Room, check_room
from .membership import Rooms, Stay
from .reasons import Outcome

_PID = re.compile(r"([\x21-\x7e]{1,128})\.([A-Za-z0-9_-]{32})", re.ASCII)


class Pid(NamedTuple):
    """What a client shows to get its session back: ``sid.secret``. Whoever knows it is taken for the client."""

    sid: str
    secret: str

    def __str__(self) -> str:
        return f"{self.sid}.{self.secret}"

    def __repr__(self) -> str:  # keeps the secret out of logs and tracebacks
        return f"Pid({self.sid!r}, ...)"

    @property
    def hash(self) -> str:
        """SHA-256 of the secret, in hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    @classmethod
    def new(cls, sid: str) -> Pid:
        """A pid with a new secret of 192 random bits."""
        return cls(sid, secrets.token_urlsafe(24))

    @classmethod
    def parse(cls, text: object) -> Pid | None:
        """The pid that a client sent, or ``None`` if it does not have the form of one."""
        match = _PID.fullmatch(text) if isinstance(text, str) else None
        return cls(match[1], match[2]) if match else None


class Record(NamedTuple):
    """A session as it was when it was claimed, at ``last``."""

    last: Position  #: the log's last entry at that time: K
    floor: int  #: the log held every entry after this number at that time
    seen: bool  #: whether it held the entry that the client names as the last it has seen
    claims: int
    birth: int
    confirmed: int
    sent: int
    data: dict[str, Any]
    stays: list[Stay]


class Refused(NamedTuple):
    """A session was not claimed, and why."""

    outcome: Outcome
    detail: str = ""  #: what is damaged, for the log


class Orphan(NamedTuple):
    """A session whose node died, as it was then."""

    sid: str
    namespace: str
    data: dict[str, Any]
    rooms: Rooms


class Heartbeat(NamedTuple):
    """What a heartbeat says of one session."""

    sid: str
    token: str
    confirmed: tuple[int, int] | None  #: (confirmed, sent), if they changed
    closed_rooms: Sequence[Room]


#: What reading a record raises if something else than this library wrote it.
_DAMAGE = (KeyError, TypeError, ValueError, RecursionError)


def read_claim(reply: Sequence[Any]) -> Record | Refused:
    """What the claim script replied: ``[b"ok", epoch, K, floor, seen, name, value, ...]``, or why not."""
    if reply[0] != b"ok":
        return Refused(Outcome(reply[0].decode()))
    try:
        fields = dict(zip(reply[5::2], reply[6::2], strict=True))
        return Record(
            last=Position(int(reply[1]), int(reply[2])),
            floor=int(reply[3]),
            seen=int(reply[4]) == 1,
            claims=int(fields[b"claims"]),
            birth=int(fields[b"birth"]),
            confirmed=int(fields[b"confirmed"]),
            sent=int(fields[b"sent"]),
            data=_data(fields),
            stays=_stays(fields),
        )
    except _DAMAGE as error:
        return Refused(Outcome.DAMAGED, f"{type(error).__name__}: {error}")


def read_orphan(sid: str, reply: Sequence[Any]) -> Orphan | None:
    """What the adopt script replied: the record's names and values; ``None`` if it has none.

    A damaged record gives an orphan without data and rooms: its ``disconnect`` handler runs all the same.
    """
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    if not fields:
        return None
    namespace = fields[b"ns"].decode(errors="replace")
    try:
        rooms = {room: entered for room, entered, left in _stays(fields) if left is None}
        return Orphan(sid, namespace, _data(fields), rooms)
    except _DAMAGE:
        return Orphan(sid, namespace, {}, {})


def _stays(fields: Mapping[bytes, bytes]) -> list[Stay]:
    stays = []
    for name, value in fields.items():
        if name.startswith(b"r:"):
            stays.append(Stay(check_room(json.loads(name[2:])), int(value)))
        elif name.startswith(b"g:"):
            left, _, room = name[2:].partition(b":")
            stays.append(Stay(check_room(json.loads(room)), int(value), int(left)))
    return stays


def _data(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    data = json.loads(fields[b"data"])
    if not isinstance(data, dict):
        raise TypeError("its data is no dict")
    return data


def encode_data(data: object) -> str:
    """Session data as JSON.

    :raises TypeError: for anything but a ``dict`` of JSON values; the message names the key.
    """
    if not isinstance(data, dict):
        raise TypeError(f"session data must be a dict to be recoverable, not {type(data).__name__}")
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        named = next((key for key, value in data.items() if not _can_be_stored(key, value)), None)
        raise TypeError(f"session data can't be stored: key {named!r}: {error}") from None


def _can_be_stored(key: Any, value: Any) -> bool:
    try:
        json.dumps({key: value}, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
