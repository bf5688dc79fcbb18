"""A client's outbox: the queue of packets for its transport, and the short way past it.

Engine.IO has a task for each client that waits for its queue: to wake it, take the packet out, encode it and send it
costs several times what writing it to the socket does, and each message is a write of its own. So where nothing is
before them, messages are written to the WebSocket's TCP transport at once, all of one batch together, and as bytes
that all recipients share: what a server sends is not masked (RFC 6455, 5.1), so the same frame fits everybody.

*Nothing is before them* when the writing task waits for the queue (what it took before is sent), the queue is empty,
and the transport is not congested. Else they are queued, as everything is that others send. So there is one order.

Frames written here are never compressed, also where the client agreed to ``permessage-deflate``, in which each
message may be compressed or not (RFC 7692, 6): at the size of most events compression costs far more than it saves.
Messages from :data:`COMPRESSED_FROM` on take the other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from engineio.packet import MESSAGE
from engineio.packet import Packet as EngineIOPacket

#: Bytes that may be in the transport's buffer: what does not fit waits in the queue, where it is shared, and counted.
CONGESTED = 128 << 10
#: Bytes from which on a message is compressed where the client agreed to it; Node's threshold.
COMPRESSED_FROM = 1024


class Message(EngineIOPacket):  # type: ignore[misc]
    """An Engine.IO MESSAGE shared by many transports.

    The base class caches one encoding; binary data has two: raw on WebSocket, base64 in polling.
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
        """The WebSocket frame that carries it, from a server (RFC 6455, 5.2)."""
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


class Outbox(asyncio.Queue[Any]):
    """The queue of an Engine.IO socket."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._socket: Any = None
        self._wire: asyncio.Transport | None = None
        self._compresses = False
        self._waited_for = False

    def open(self, socket: Any, wire: asyncio.Transport | None, compresses: bool) -> None:
        """There is a WebSocket; once the Engine.IO ``socket`` is upgraded to it, the short way is its TCP transport.

        :param wire: that transport, if it can be written to.
        :param compresses: whether ``permessage-deflate`` was agreed on.
        """
        self._socket, self._wire, self._compresses = socket, wire, compresses

    def close(self) -> None:
        """The WebSocket is no more."""
        self._wire = None

    async def get(self) -> Any:
        self._waited_for = True
        try:
            return await super().get()
        finally:
            self._waited_for = False

    def send(self, messages: Sequence[Message]) -> None:
        """Sends messages behind everything that was put before."""
        if self._wire is not None and messages and self._clear():
            frames = [message.frame for message in messages]
            size = sum(map(len, frames))
            fits = self._wire.get_write_buffer_size() + size <= CONGESTED
            if fits and not (self._compresses and max(map(len, frames)) >= COMPRESSED_FROM):
                self._wire.write(b"".join(frames))
                return
        for message in messages:
            self.put_nowait(message)

    def _clear(self) -> bool:
        """Whether nothing is before what comes next."""
        assert self._wire is not None
        return self._waited_for and self.empty() and self._socket.upgraded and not self._wire.is_closing()
