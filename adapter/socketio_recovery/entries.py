"""Entries of the log: how they are written to the fields of a Redis Stream, and read from them.  No I/O.

An entry has two forms here:

* *stream fields*: ``head`` (JSON: kind, namespace, who gets it) and ``data`` (the arguments, already in the clients'
  serialisation), then ``0``, ``1``, ... for binary attachments as raw bytes;
* :class:`Entry`: the same, in memory.

What clients receive is made from it in ``packets.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

#: A room: its name, or a number that an application uses for one. ``None`` is everybody.
Room = str | int | None

EVENT: Final = "event"
ENTER: Final = "enter"
LEAVE: Final = "leave"
CLOSE: Final = "close"
DISCONNECT: Final = "disconnect"
EVICT: Final = "evict"
CALLBACK: Final = "callback"
SERVER: Final = "server"
EPOCH: Final = "epoch"
CHANGED: Final = "changed"

JSON, MSGPACK = "j", "m"

#: Names that events of applications can't have.
RESERVED: Final = ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")

#: How many heads of entries are kept ready, and how long they may be, in bytes.
HEADS, HEAD = 2048, 512


class Position(NamedTuple):
    """A place in the log: the epoch (int, ms since 1970 when it began) and the entry's gapless number."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch:x}-{self.n:x}"


class Offset(NamedTuple):
    """A position as clients see it, with the time at which its entry was stored. To clients it is an opaque string.

    :param ms: when the entry was stored (ms since 1970, Redis's time); 0 if that is not known. It distinguishes
        entries that share a number, after the log lost its tail and grew again.
    """

    position: Position
    ms: int

    def __str__(self) -> str:
        return offset_text(*self.position, self.ms)

    @property
    def id(self) -> str:
        """The stream id of the entry; ``""`` if its time is not known."""
        return f"{self.ms}-{self.position.n}" if self.ms else ""

    @classmethod
    def parse(cls, text: object) -> Offset | None:
        """The offset that a client sent, or ``None`` if this library did not make it."""
        match = _OFFSET.fullmatch(text) if isinstance(text, str) else None
        return cls(Position(int(match[1], 16), int(match[2], 16)), int(match[3] or "0", 16)) if match else None


def offset_text(epoch: int, n: int, ms: int) -> str:
    """An offset as text, without making the objects: each event of a replay needs one."""
    return f"{epoch:x}-{n:x}-{ms:x}" if ms else f"{epoch:x}-{n:x}"


_OFFSET = re.compile(r"([0-9a-f]{1,12})-([0-9a-f]{1,13})(?:-([0-9a-f]{1,12}))?", re.ASCII)


class Payload(NamedTuple):
    """Arguments in a clients' serialisation."""

    format: str  # JSON or MSGPACK
    data: bytes
    attachments: Sequence[bytes]  # JSON only; MSGPACK has them inside
    arity: int  # arguments in data; used by MSGPACK, whose array header is not in data


class Entry:
    """One entry of the log. Which attributes mean something depends on ``kind``.

    ======================  ==========================================================
    ``event``               namespace, rooms, skip, payload, volatile, callback, trace
    ``enter``, ``leave``    namespace, sid, room
    ``close``               namespace, room
    ``disconnect``          namespace, sid
    ``evict``               namespace, sid, node, transport
    ``callback``            callback, payload, by: an answer
    ``server``              callback, payload, event: an event between nodes
    ``epoch``               nothing: a new epoch begins
    ``changed``             namespace, sid: a session came, went or ended; only while somebody watches
    ======================  ==========================================================
    """

    __slots__ = (
        "by",
        "callback",
        "event",
        "kind",
        "ms",
        "n",
        "namespace",
        "node",
        "payload",
        "room",
        "rooms",
        "sid",
        "skip",
        "trace",
        "transport",
        "volatile",
    )

    def __init__(self, kind: str, n: int = 0, ms: int = 0) -> None:
        self.kind = kind
        self.n = n
        self.ms = ms
        self.namespace = ""
        self.rooms: Sequence[Room] = ()  # EVENT: empty means everybody
        self.skip: Sequence[str] = ()
        self.payload: Payload | None = None
        self.volatile = False
        #: The ``traceparent`` of the emit, if that is traced; see ``tracing.py``.
        self.trace = ""
        #: EVENT: (node, id) of who waits for the acknowledgement. CALLBACK: (node, id) of who waited.
        #: SERVER: (node, id) of who emitted it; the id is 0 if nobody waits for an answer.
        self.callback: tuple[str, int] | None = None
        self.by = ""  # CALLBACK: the ``sid``, or the name of the node, that answers
        self.event = ""  # SERVER: the name of the event
        self.sid = ""
        self.room: Room = None
        self.node = ""
        self.transport = ""

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        payload = self.payload
        if payload is None:
            return 0
        size = len(payload.data)
        return size + sum(map(len, payload.attachments)) if payload.attachments else size

    @property
    def replayed(self) -> bool:
        """Whether a client that missed this event gets it on recovery."""
        return self.kind == EVENT and not self.volatile and self.callback is None


# -- what applications may name ---------------------------------------------------------------------
#
# What passes here, the readers of the log take: else an entry would be stored that each node leaves out.


def check_room(room: object) -> Room:
    """``room`` as a plain str or int, if it can be a room.

    :raises TypeError: for anything but a str or an int: rooms are shared between processes.
    """
    if room is None or type(room) is str or type(room) is int:
        return room
    if isinstance(room, str):
        return str.__str__(room)
    if isinstance(room, int) and not isinstance(room, bool):
        return int.__int__(room)
    raise TypeError(f"a room must be a str or an int to be shared between nodes, not {type(room).__name__}: {room!r}")


def check_rooms(room: object) -> list[Room]:
    """The rooms that an application names: one, or several in a list, a tuple or a set.

    :raises TypeError: if one of them can't be a room.
    """
    return [check_room(one) for one in _each(room)]


def audience(room: object) -> list[Room] | None:
    """The rooms of an event, for which no rooms mean everybody; ``None`` if the event is for nobody.

    ``None`` among several rooms is everybody, too.

    :raises TypeError: if one of them can't be a room.
    """
    if type(room) is str:  # as nearly always
        return [room]
    rooms = check_rooms(room)
    if None in rooms:
        return []
    return list(dict.fromkeys(rooms)) or None


def skipped(skip_sid: object) -> list[str]:
    """Who is left out: the ids among what an application gives. What is no str is nobody's id."""
    if skip_sid is None:  # as nearly always
        return []
    return [str.__str__(sid) for sid in _each(skip_sid) if isinstance(sid, str)]


def check_namespace(namespace: object) -> str:
    """``namespace`` as a plain str.

    :raises TypeError: if it is no str.
    """
    if isinstance(namespace, str):
        return str.__str__(namespace)
    raise TypeError(f"a namespace must be a str, not {type(namespace).__name__}: {namespace!r}")


def check_event(event: object) -> None:
    """Whether ``event`` can be the name of an event.

    The JavaScript client closes its connection at any other, when it comes and each time it is replayed: see
    https://github.com/socketio/socket.io/blob/main/packages/socket.io-parser/lib/index.ts, ``isPayloadValid``.

    :raises TypeError: if it is neither a str nor a number.
    :raises ValueError: if it is a name that the protocol reserves.
    """
    if not isinstance(event, (str, int)) or isinstance(event, bool):
        raise TypeError(f"the name of an event must be a str, not {type(event).__name__}: {event!r}")
    if event in RESERVED:
        raise ValueError(f"{event!r} is reserved: clients take no event of that name, so use another")


def _each(value: object) -> Collection[object]:
    one = isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(value, Collection)
    return (value,) if one else value  # type: ignore[return-value]


# -- to and from the stream -------------------------------------------------------------------------


def event_head(
    namespace: str,
    rooms: Sequence[Room],
    skip: Sequence[str],
    payload: Payload,
    volatile: bool = False,
    callback: tuple[str, int] | None = None,
    trace: str = "",
) -> str:
    again = callback is None and not trace  # else no other head is the same
    length = 0
    for room in rooms:
        if isinstance(room, str):
            length += len(room)
    small = again and len(rooms) + len(skip) < 8 and length < HEAD
    head = _event_head if small else _event_head.__wrapped__
    return head(namespace, tuple(rooms), tuple(skip), payload.format, payload.arity, volatile, callback, trace)


@lru_cache(HEADS)
def _event_head(
    namespace: str,
    rooms: tuple[Room, ...],
    skip: tuple[str, ...],
    format: str,
    arity: int,
    volatile: bool,
    callback: tuple[str, int] | None,
    trace: str,
) -> str:
    options: dict[str, Any] = {}
    if format != JSON:
        options["f"] = [format, arity]
    if volatile:
        options["v"] = 1
    if callback:
        options["cb"] = callback
    if trace:
        options["trace"] = trace
    head: list[Any] = [EVENT, namespace]
    if rooms or skip or options:
        head.append(rooms)
    if skip or options:
        head.append(skip)
    if options:
        head.append(options)
    return dump(head)


def callback_head(node: str, callback_id: int, payload: Payload, by: str = "") -> str:
    return dump([CALLBACK, node, callback_id, [payload.format, payload.arity], *([by] if by else ())])


def server_head(node: str, callback_id: int, event: str, payload: Payload) -> str:
    return dump([SERVER, node, callback_id, [payload.format, payload.arity], event])


def control_head(kind: str, *arguments: object) -> str:
    return dump([kind, *arguments])


#: JSON of the log's own: compact, and independent of the ``json`` module the application chose. It refuses NaN and
#: infinity (``ValueError``), which are not JSON: browsers would close their connections at them, again and again.
dump: Callable[[object], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def payload_fields(payload: Payload) -> list[str | bytes]:
    fields: list[str | bytes] = ["data", payload.data]
    for i, attachment in enumerate(payload.attachments):
        fields += (str(i), attachment)
    return fields


def parse_entry(n: int, ms: int, fields: Sequence[bytes]) -> Entry:
    """The entry in a stream's ``fields``: name, value, name, value, ... without the epoch.

    :raises ValueError: for fields that this library did not write.
    """
    if fields[0] != b"head":
        raise ValueError(f"entry {n} of the log has no head: something else writes to this stream")
    head = parse_head(fields[1])
    entry = Entry(head.kind, n, ms)
    if head.format is None:
        entry.namespace, entry.sid, entry.room = head.namespace, head.sid, head.room
        entry.node, entry.transport = head.node, head.transport
        return entry
    entry.namespace, entry.rooms, entry.skip = head.namespace, head.rooms, head.skip
    entry.volatile, entry.callback, entry.trace = head.volatile, head.callback, head.trace
    entry.by, entry.event = head.by, head.event
    entry.payload = Payload(head.format, fields[3], tuple(fields[5::2]), head.arity)
    if not _is_list(entry.payload):
        raise ValueError(f"entry {n} of the log holds no list of arguments, which this library would have written")
    return entry


class Head(NamedTuple):
    """What an entry's head says. ``format`` is ``None`` where no payload comes with it."""

    kind: str
    namespace: str = ""
    rooms: tuple[Room, ...] = ()
    skip: tuple[str, ...] = ()
    volatile: bool = False
    callback: tuple[str, int] | None = None
    format: str | None = None
    arity: int = 0
    sid: str = ""
    room: Room = None
    node: str = ""
    transport: str = ""
    trace: str = ""
    by: str = ""
    event: str = ""


def parse_head(text: bytes) -> Head:
    """What a head says.

    :raises ValueError: for what this library did not write.
    """
    return (_parse_head if len(text) <= HEAD else _parse_head.__wrapped__)(text)


@lru_cache(HEADS)
def _parse_head(text: bytes) -> Head:
    """As :func:`parse_head`; the heads of events to the same rooms are the same."""
    values = json.loads(text)
    kind, more = values[0], values[1:]
    if kind == EVENT:
        namespace = more[0]
        rooms = more[1] if len(more) > 1 else ()
        skip = more[2] if len(more) > 2 else ()
        options = more[3] if len(more) > 3 else {}
        if type(rooms) not in (list, tuple) or type(skip) not in (list, tuple):
            raise ValueError(f"an event to {rooms!r}, but not to {skip!r}")
        callback = tuple(options["cb"]) if "cb" in options else None
        format, arity = options.get("f", (JSON, 0))
        trace = _trace(options.get("trace"))
        head = Head(kind, namespace, tuple(rooms), tuple(skip), "v" in options, callback, format, arity, trace=trace)
    elif kind == CALLBACK:
        node, id, (format, arity), by = more if len(more) > 3 else (*more, "")
        head = Head(kind, callback=(node, id), format=format, arity=arity, by=by)
    elif kind == SERVER:
        node, id, (format, arity), event = more
        head = Head(kind, callback=(node, id), format=format, arity=arity, event=event)
    elif kind in (ENTER, LEAVE):
        namespace, sid, room = more
        head = Head(kind, namespace, sid=sid, room=room)
    elif kind == CLOSE:
        namespace, room = more
        head = Head(kind, namespace, room=room)
    elif kind in (DISCONNECT, CHANGED):
        namespace, sid = more
        head = Head(kind, namespace, sid=sid)
    elif kind == EVICT:
        namespace, sid, node, transport = more
        head = Head(kind, namespace, sid=sid, node=node, transport=transport)
    elif kind == EPOCH:
        head = Head(kind)
    else:
        raise ValueError(f"an entry of an unknown kind {kind!r}: are all nodes of one version?")
    if not _well_formed(head):
        raise ValueError(f"an entry of kind {kind!r} holds what this library would not write")
    return head


def _trace(value: object) -> str:
    """A ``traceparent`` as this library writes it, or nothing: it is no reason to leave out an event."""
    match = _TRACE.fullmatch(value) if isinstance(value, str) else None
    return match[0] if match and match[1].strip("0") and match[2].strip("0") else ""


_TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)


def _well_formed(head: Head) -> bool:
    """Whether an entry can be dispatched and kept: the same for every node, whoever is connected there."""
    callback = head.callback
    formats = (JSON, MSGPACK) if head.kind in (EVENT, CALLBACK, SERVER) else (None,)
    texts = (head.namespace, head.sid, head.node, head.transport, head.by, head.event)
    return (
        head.format in formats
        and (head.format != MSGPACK or (type(head.arity) is int and head.arity >= 0))
        and all(type(text) is str for text in texts)
        and all(type(room) in (str, int) for room in head.rooms)
        and all(type(sid) is str for sid in head.skip)
        and (head.room is None or type(head.room) in (str, int))
        and (callback is None or (len(callback) == 2 and type(callback[0]) is str and type(callback[1]) is int))
    )


def _is_list(payload: Payload) -> bool:
    if payload.format == MSGPACK:
        return True  # its arguments are counted in the head
    data = payload.data
    if payload.format != JSON or data[:1] != b"[" or data[-1:] != b"]":
        return False
    return data.isascii() or bool(data.decode())  # which raises what is a ValueError
