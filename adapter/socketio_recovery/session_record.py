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
``was, was_since``  the deadline that it had before it was last claimed, and its ``since``
``since``          since when it has its connection, or has none (ms since 1970, Redis's time)
``last``           the holder that it had last, while it has none
``adopted``        its node died, and another node runs its ``disconnect`` handler, or has run it
``damaged``        it disagrees with the log, and nobody can claim it any more
``data``           the session's data, JSON
``extra``          what else the server keeps with the session, as a text of its own (Flask's session, for one); often
                   absent
``r:.. g:..``      rooms, see ``redis/lua/_rooms.lua``
=================  ===================================================================
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
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
    ms: int  #: when that was stored, or later (ms since 1970, Redis's time)
    floor: int  #: the log held every entry after this number at that time
    seen: bool  #: whether it held the entry that the client names as the last it has seen
    claims: int
    birth: int
    confirmed: int
    sent: int
    data: dict[str, Any]
    stays: list[Stay]
    extra: str | None = None


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
    extra: str | None = None


class Heartbeat(NamedTuple):
    """What a heartbeat says of one session."""

    sid: str
    token: str
    confirmed: tuple[int, int] | None  #: (confirmed, sent), if they changed
    closed_rooms: Sequence[Room]


#: What reading a record raises if something else than this library wrote it.
_DAMAGE = (KeyError, TypeError, ValueError, RecursionError)


def read_claim(reply: Sequence[Any]) -> Record | Refused:
    """What the claim script replied: ``[b"ok", epoch, K, ms, floor, seen, name, value, ...]``, or why not."""
    if reply[0] != b"ok":
        return Refused(Outcome(reply[0].decode()))
    try:
        fields = dict(zip(reply[6::2], reply[7::2], strict=True))
        return Record(
            last=Position(int(reply[1]), int(reply[2])),
            ms=int(reply[3]),
            floor=int(reply[4]),
            seen=int(reply[5]) == 1,
            claims=int(fields[b"claims"]),
            birth=int(fields[b"birth"]),
            confirmed=int(fields[b"confirmed"]),
            sent=int(fields[b"sent"]),
            data=_data(fields),
            stays=_stays(fields),
            extra=_extra(fields),
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
        return Orphan(sid, namespace, _data(fields), rooms, _extra(fields))
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


def _extra(fields: Mapping[bytes, bytes]) -> str | None:
    extra = fields.get(b"extra")
    return None if extra is None else extra.decode()


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

#: What JSON has besides objects and arrays.
_SCALARS = frozenset({str, int, float, bool, type(None)})


def encode_data(data: object) -> str:
    """Session data as JSON, if it is the same when it is read again.

    :raises TypeError: for data that would come back changed, or not at all. These come back as they are: ``dict`` with
        ``str`` as keys, ``list``, ``str``, ``int``, ``float``, ``bool`` and ``None``, but no subclasses of them. The
        message says where the fault is, and what to save instead.
    """
    if type(data) is not dict:
        raise TypeError(f"session data must be a plain dict to be recoverable, not {type(data).__name__}")
    text = _stored(data)
    if text is None or not _is_plain(data):
        raise TypeError(f"session data can't be stored: {_fault(data)}")
    return text


def _stored(value: object) -> str | None:
    """The value as JSON; ``None`` if it does not come back equal."""
    try:
        text = _encode(value)
        return text if json.loads(text) == value else None
    except (TypeError, ValueError, RecursionError):
        return None


def _is_plain(data: dict[str, Any]) -> bool:
    """Whether all types are exactly those that JSON has: others may be equal to what comes back (an ``Enum``)."""
    containers: list[Any] = [data]
    for container in containers:
        if type(container) is dict:
            if any(type(key) is not str for key in container):
                return False
            values: Iterable[Any] = container.values()
        elif type(container) is list:
            values = container
        else:
            return False
        containers.extend(value for value in values if type(value) not in _SCALARS)
    return True


def _fault(data: dict[Any, Any]) -> str:
    """Where and why data would not come back as it is, and what to save instead."""
    #: Each value, the place of its container in this list, and how it is found there.
    found: list[tuple[Any, int, str]] = [(data, 0, "session")]
    seen: set[int] = set()

    def path(at: int) -> str:
        steps = [found[at][2]]
        while at:
            at = found[at][1]
            steps.append(found[at][2])
        return "".join(reversed(steps))

    for at, (value, _, _) in enumerate(found):
        if (why := _own_fault(value)) is not None:
            return f"{path(at)} {why}"
        if type(value) in _SCALARS or id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) is list:
            found.extend((item, at, f"[{i}]") for i, item in enumerate(value))
            continue
        for key, item in value.items():
            if type(key) is not str or _stored(key) is None:
                return f"{path(at)} has the key {_shown(key)}, which would come back as another: use a str"
            found.append((item, at, f"[{key!r}]"))
    deep = next((key for key, value in data.items() if _stored(value) is None), None)
    return f"session[{deep!r}] contains itself, or is nested too deep: save something flatter"


def _shown(key: Any) -> str:
    try:
        return repr(key)
    except ValueError:  # an int of too many digits
        return f"({type(key).__name__})"


def _own_fault(value: Any) -> str | None:
    """Why a value by itself would not come back as it is; ``None`` if it would."""
    kind = type(value)
    if kind is dict or kind is list or (kind in _SCALARS and _stored(value) is not None):
        return None
    if kind is float:
        return f"is {value}, which JSON does not have: save None or a str"
    if kind is int:
        return "has too many digits: save a str, such as hex() of it"
    if kind is str:
        return "holds two halves of a character (surrogates), which would come back as one: save the character"
    if isinstance(value, tuple):
        return f"is a {kind.__name__}, which would come back as a list: save a list"
    for plain in (str, int, float, list, dict):
        if isinstance(value, plain):
            name = plain.__name__
            return f"is a {kind.__name__}, which would come back as a plain {name}: save a plain {name}"
    return f"is a {kind.__name__}, which JSON does not have: save a str, a number, a list or a dict"
