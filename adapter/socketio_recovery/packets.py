"""What clients receive: Socket.IO packets, and the Engine.IO messages that carry them.  No I/O.

A packet is an entry's stored data with a few bytes put around it (packet type, namespace, offset). Nothing is parsed
or serialised again, for any number of clients.

Packet formats: the Socket.IO protocol, revision 5, "Packet encoding" and "Custom parser",
https://socket.io/docs/v4/socket-io-protocol/. Frames: RFC 6455, 5.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from engineio.packet import MESSAGE
from engineio.packet import Packet as EngineIOPacket
from socketio.packet import Packet

from .entries import JSON, MSGPACK, Payload, dump


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
        # The standard ``dumps`` makes a new encoder for each call with options. The log's own ``dump`` does not, and it
        # refuses binary data by itself: to look for binary data first would take longer than everything else here.
        plain = getattr(packet_class.data_is_binary, "__func__", None) is Packet.data_is_binary.__func__
        self._standard = plain and module.dumps is json.dumps
        self._dump = dump if self._standard else partial(module.dumps, separators=(",", ":"))

    def encode(self, arguments: Iterable[Any]) -> Payload:
        data: Any = list(arguments)
        if self._standard:
            try:
                return Payload(JSON, dump(data).encode(), (), 0)
            except TypeError:  # binary data, or data that can't be serialised at all, which raises below
                pass
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

    The two differ only when a process without a server (``write_only``) uses another serialisation.
    """
    if payload.format == codec.format:
        return payload
    source = next(c for c in codecs if c.format == payload.format)
    return codec.encode(source.decode(payload))


class Message(EngineIOPacket):  # type: ignore[misc]
    """An Engine.IO MESSAGE that many transports share.

    The base class caches one encoding. Binary data has two: raw bytes on WebSocket, base64 text in polling.
    """

    def __init__(self, data: str | bytes) -> None:
        super().__init__(MESSAGE, data)
        self._base64: str | None = None
        self._frame: bytes | None = None

    def encode(self, b64: bool = False) -> str | bytes:
        if not (self.binary and b64):
            encoded: str | bytes = super().encode()
            return encoded
        if self._base64 is None:
            self._base64 = EngineIOPacket(MESSAGE, self.data).encode(b64=True)
        return self._base64

    @property
    def frame(self) -> bytes:
        """The WebSocket frame that carries it, as a server sends it: not masked (RFC 6455, 5.1 and 5.2)."""
        if self._frame is None:
            data = self.data
            kind, body = (0x82, bytes(data)) if self.binary else (0x81, b"4" + data.encode())
            size = len(body)
            if size < 126:
                head = bytes((kind, size))
            elif size < 1 << 16:
                head = bytes((kind, 126)) + size.to_bytes(2, "big")
            else:
                head = bytes((kind, 127)) + size.to_bytes(8, "big")
            self._frame = head + body
        return self._frame
