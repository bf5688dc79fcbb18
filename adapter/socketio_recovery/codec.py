"""Entries of the log: to stream fields, from stream fields, and to the packets that clients receive.

No I/O here. Three forms of one event:

* *stream fields*: ``head`` (JSON: kind, namespace, who gets it) and ``data`` (the arguments, already in
  the clients' serialisation), then ``0``, ``1``, ... for binary attachments as raw bytes;
* :class:`Entry`: the same, in memory;
* *packet*: what an Engine.IO MESSAGE carries. It is the stored data with a few bytes put around it
  (packet type, namespace, offset): nothing is parsed or serialised again, for any number of clients.

Packet formats: the Socket.IO protocol, revision 5, "Packet encoding" and "Custom parser".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

from socketio.packet import Packet

#: A room: its name, or a number that an application uses for one. ``None`` is everybody.
Room = str | int | None

EVENT: Final = "event"
ENTER: Final = "enter"
LEAVE: Final = "leave"
CLOSE: Final = "close"
DISCONNECT: Final = "disconnect"
EVICT: Final = "evict"
CALLBACK: Final = "callback"
EPOCH: Final = "epoch"

JSON, MSGPACK = "j", "m"

#: How many heads of entries are kept ready, and how long they may be, in bytes.
HEADS, HEAD = 2048, 512


class Position(NamedTuple):
    """A place in the log: the epoch (int, ms since 1970 when it began) and the entry's gapless number."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch:x}-{self.n:x}"


def offset(position: Position, ms: int) -> str:
    """A position as clients see it: an opaque string.

    :param ms: when the entry was stored (Redis's time); 0 if that is not known. It tells the entry from another
        with the same number, should the log lose its tail and grow again.
    """
    return f"{position}-{ms:x}" if ms else str(position)


_OFFSET = re.compile(r"([0-9a-f]{1,12})-([0-9a-f]{1,13})(?:-([0-9a-f]{1,12}))?", re.ASCII)


def parse_offset(text: object) -> Position | None:
    """The position that an offset sent by a client names, or ``None`` if it is not one of ours."""
    match = _OFFSET.fullmatch(text) if isinstance(text, str) else None
    return Position(int(match[1], 16), int(match[2], 16)) if match else None


def parse_offset_ms(text: object) -> int:
    """When the entry was stored that an offset names; 0 if it does not say."""
    match = _OFFSET.fullmatch(text) if isinstance(text, str) else None
    return int(match[3], 16) if match and match[3] else 0


class Payload(NamedTuple):
    """Arguments in a clients' serialisation."""

    format: str  # JSON or MSGPACK
    data: bytes
    attachments: Sequence[bytes]  # JSON only; MSGPACK has them inside
    arity: int  # arguments in data; used by MSGPACK, whose array header is not in data


class Entry:
    """One entry of the log. Which attributes mean something depends on ``kind``.

    ======================  ==========================================================
    ``event``               namespace, rooms, skip, payload, volatile, callback
    ``enter``, ``leave``    namespace, sid, room
    ``close``               namespace, room
    ``disconnect``          namespace, sid
    ``evict``               namespace, sid, node, transport
    ``callback``            node, callback (its id), payload
    ``epoch``               nothing: a new epoch begins
    ======================  ==========================================================
    """

    __slots__ = (
        "callback",
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
        #: EVENT: (node, id) of who waits for the acknowledgement. CALLBACK: (node, id) of who waited.
        self.callback: tuple[str, int] | None = None
        self.sid = ""
        self.room: Room = None
        self.node = ""
        self.transport = ""

    @property
    def replayed(self) -> bool:
        """Whether a client that missed this event gets it on recovery."""
        return self.kind == EVENT and not self.volatile and self.callback is None


#: An entry as it waits in a window: its values, in a tuple. Python's garbage collector goes over all objects that can
#: hold others, again and again, but not over tuples that hold nothing of the kind: a window of 100,000 entries that
#: were objects made each recovery half as slow again.
Packed = tuple[Any, ...]


def pack(entry: Entry) -> Packed:
    """An entry that a recovery may need."""
    if entry.kind != EVENT:
        return (entry.kind, entry.ms, entry.namespace, entry.sid, entry.room)
    assert entry.payload is not None
    format, data, attachments, arity = entry.payload
    return (
        *(EVENT, entry.ms, entry.namespace, tuple(entry.rooms), tuple(entry.skip)),
        *(format, data, tuple(attachments), arity),
    )


def unpack(n: int, packed: Packed) -> Entry:
    """The entry again, with its number."""
    entry = Entry(packed[0], n, packed[1])
    if packed[0] != EVENT:
        _, _, entry.namespace, entry.sid, entry.room = packed
    else:
        _, _, entry.namespace, entry.rooms, entry.skip, *payload = packed
        entry.payload = Payload(*payload)
    return entry


def size_of(packed: Packed) -> int:
    """Bytes that an entry takes in a window, roughly."""
    if packed[0] != EVENT:
        return 300
    return 300 + len(packed[6]) + sum(len(attachment) + 60 for attachment in packed[7])


def places(packed: Packed) -> Sequence[Room]:
    """The rooms under which an entry is found: whom it is for, or whom it moves.

    What happens to one session is found under its own room, the one named by its ``sid``.
    """
    if packed[0] == EVENT:
        return packed[3] or (None,)
    return packed[4:] if packed[0] == CLOSE else packed[3:4]


def check_room(room: object) -> Room:
    """``room`` itself, if it can be a room.

    :raises TypeError: for anything but a str or an int: rooms are shared between processes.
    """
    if room is None or (isinstance(room, (str, int)) and not isinstance(room, bool)):
        return room
    raise TypeError(f"a room must be a str or an int to be shared between nodes, not {type(room).__name__}: {room!r}")


# -- to and from the stream -------------------------------------------------------------------------


def event_head(
    namespace: str,
    rooms: Sequence[Room],
    skip: Sequence[str],
    payload: Payload,
    volatile: bool = False,
    callback: tuple[str, int] | None = None,
) -> str:
    small = callback is None and len(rooms) + len(skip) < 8 and sum(len(r) for r in rooms if isinstance(r, str)) < HEAD
    head = _event_head if small else _event_head.__wrapped__
    return head(namespace, tuple(rooms), tuple(skip), payload.format, payload.arity, volatile, callback)


@lru_cache(HEADS)
def _event_head(
    namespace: str,
    rooms: tuple[Room, ...],
    skip: tuple[str, ...],
    format: str,
    arity: int,
    volatile: bool,
    callback: tuple[str, int] | None,
) -> str:
    options: dict[str, Any] = {}
    if format != JSON:
        options["f"] = [format, arity]
    if volatile:
        options["v"] = 1
    if callback:
        options["cb"] = callback
    head: list[Any] = [EVENT, namespace]
    if rooms or skip or options:
        head.append(rooms)
    if skip or options:
        head.append(skip)
    if options:
        head.append(options)
    return dump(head)


def callback_head(node: str, callback_id: int, payload: Payload) -> str:
    return dump([CALLBACK, node, callback_id, [payload.format, payload.arity]])


def control_head(kind: str, *arguments: object) -> str:
    return dump([kind, *arguments])


#: JSON of the log's own: compact, and independent of the ``json`` module the application chose.
dump: Callable[[object], str] = json.JSONEncoder(separators=(",", ":")).encode


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
    head = (_parse_head if len(fields[1]) <= HEAD else _parse_head.__wrapped__)(fields[1])
    entry = Entry(head.kind, n, ms)
    if head.format is None:
        entry.namespace, entry.sid, entry.room = head.namespace, head.sid, head.room
        entry.node, entry.transport = head.node, head.transport
        return entry
    entry.namespace, entry.rooms, entry.skip = head.namespace, head.rooms, head.skip
    entry.volatile, entry.callback = head.volatile, head.callback
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


@lru_cache(HEADS)
def _parse_head(text: bytes) -> Head:
    """What a head says; the heads of events to the same rooms are the same.

    :raises ValueError: for what this library did not write.
    """
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
        head = Head(kind, namespace, tuple(rooms), tuple(skip), "v" in options, callback, format, arity)
    elif kind == CALLBACK:
        node, id, (format, arity) = more
        head = Head(kind, callback=(node, id), format=format, arity=arity)
    elif kind in (ENTER, LEAVE):
        namespace, sid, room = more
        head = Head(kind, namespace, sid=sid, room=room)
    elif kind == CLOSE:
        namespace, room = more
        head = Head(kind, namespace, room=room)
    elif kind == DISCONNECT:
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


def _well_formed(head: Head) -> bool:
    """Whether an entry can be dispatched and kept: the same for every node, whoever is connected there."""
    callback = head.callback
    formats = (JSON, MSGPACK) if head.kind in (EVENT, CALLBACK) else (None,)
    return (
        head.format in formats
        and (head.format != MSGPACK or (type(head.arity) is int and head.arity >= 0))
        and all(type(text) is str for text in (head.namespace, head.sid, head.node, head.transport))
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


# -- to and from the clients' serialisation ---------------------------------------------------------


class JsonModule(Protocol):
    """What python-socketio asks of a ``json`` module."""

    def dumps(self, obj: Any, **kwargs: Any) -> str: ...

    def loads(self, s: str) -> Any: ...


class Codec(Protocol):
    """One serialisation of the clients: python-socketio's ``serializer``."""

    format: str

    def encode(self, arguments: Iterable[Any]) -> Payload:
        """Serialises the arguments of an event (its name first) or of an acknowledgement."""

    def decode(self, payload: Payload) -> list[Any]:
        """The arguments again."""

    def packets(self, namespace: str, payload: Payload, offset: str | None, id: int | None) -> list[str | bytes]:
        """What Engine.IO sends for an event, as one or more messages.

        :param offset: appended as the last argument, for clients that can use it.
        :param id: asks the client for an acknowledgement of that number.
        """


class JsonCodec:
    """The default serialisation: JSON text, binary attachments beside it."""

    format = JSON

    def __init__(self, module: JsonModule = json, packet_class: type[Packet] = Packet) -> None:
        self.json = module
        self.packet_class = packet_class
        # The standard ``dumps`` makes an encoder for each call with options, and refuses binary data by itself:
        # to look for that first takes longer than all else here.
        plain = getattr(packet_class.data_is_binary, "__func__", None) is Packet.data_is_binary.__func__
        self._standard = plain and module.dumps is json.dumps
        self._dump = dump if self._standard else partial(module.dumps, separators=(",", ":"))

    def encode(self, arguments: Iterable[Any]) -> Payload:
        data: Any = list(arguments)
        if self._standard:
            with suppress(TypeError):  # binary data; or what can't be serialised, which is told below
                return Payload(JSON, dump(data).encode(), (), 0)
        attachments: Sequence[bytes] = ()
        if self.packet_class.data_is_binary(data):
            data, found = self.packet_class.deconstruct_binary(data)
            attachments = [bytes(a) for a in found]
        return Payload(JSON, self._dump(data).strip().encode(), attachments, 0)

    def decode(self, payload: Payload) -> list[Any]:
        data = self.json.loads(payload.data.decode())
        if payload.attachments:
            data = self.packet_class.reconstruct_binary(data, payload.attachments)
        return list(data)

    def packets(self, namespace: str, payload: Payload, offset: str | None, id: int | None) -> list[str | bytes]:
        text = payload.data.decode()
        if offset is not None:
            text = f'{text[:-1]},"{offset}"]'
        where = "" if namespace == "/" else namespace + ","
        number = "" if id is None else id
        if not payload.attachments:
            return [f"2{where}{number}{text}"]
        return [f"5{len(payload.attachments)}-{where}{number}{text}", *payload.attachments]


class MsgpackCodec:
    """``serializer="msgpack"``: the whole packet is one MessagePack map."""

    format = MSGPACK

    def __init__(self, packet_class: Any) -> None:
        import msgpack  # an optional dependency of python-socketio

        self.msgpack = msgpack
        self.packet_class = packet_class

    def encode(self, arguments: Iterable[Any]) -> Payload:
        packer = self.msgpack.Packer(default=self.packet_class.dumps_default, autoreset=False)
        count = 0
        for argument in arguments:
            packer.pack(argument)
            count += 1
        return Payload(MSGPACK, packer.bytes(), (), count)

    def decode(self, payload: Payload) -> list[Any]:
        unpacker = self.msgpack.Unpacker(ext_hook=self.packet_class.ext_hook)
        unpacker.feed(payload.data)
        return list(unpacker)

    def packets(self, namespace: str, payload: Payload, offset: str | None, id: int | None) -> list[str | bytes]:
        packer = self.msgpack.Packer(autoreset=False)
        packer.pack_map_header(3 if id is None else 4)
        packer.pack("type")
        packer.pack(2)
        packer.pack("nsp")
        packer.pack(namespace)
        if id is not None:
            packer.pack("id")
            packer.pack(id)
        packer.pack("data")
        packer.pack_array_header(payload.arity + (offset is not None))
        head = packer.bytes() + payload.data
        return [head if offset is None else head + self.msgpack.packb(offset)]


def codec_for(packet_class: Any, module: JsonModule) -> Codec:
    """The codec that fits a python-socketio server.

    :param packet_class: the server's ``packet_class``.
    :param module: the ``json`` module for ``serializer="default"``.
    :raises ValueError: for a serializer of the application's own: its wire format is not known here.
    """
    if issubclass(packet_class, Packet):
        if packet_class.uses_binary_events:
            return JsonCodec(module, packet_class)
        if hasattr(packet_class, "dumps_default"):
            return MsgpackCodec(packet_class)
    raise ValueError(
        f"serializer {packet_class.__name__} is not supported: use 'default', 'msgpack' or a subclass of theirs"
    )


def converted(payload: Payload, codec: Codec, codecs: Sequence[Codec]) -> Payload:
    """``payload`` in ``codec``'s serialisation, which is that of this node's clients.

    Differs only when a process without a server (``write_only``) serialises otherwise.
    """
    if payload.format == codec.format:
        return payload
    source = next(c for c in codecs if c.format == payload.format)
    return codec.encode(source.decode(payload))
