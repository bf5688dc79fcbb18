"""A client's send queue: the packets that wait for its transport, and the fast path past the queue.

Engine.IO has a task for each client that waits for its queue. To wake that task, take the packet out, encode it and
send it costs several times as much as writing it to the socket, and each message is a write of its own. So where
nothing waits before them, messages are written to the WebSocket's TCP transport at once: all messages of a batch in one
write, and as bytes that all recipients share. A server does not mask what it sends (RFC 6455, 5.1), so the same frame
fits every client.

*Nothing waits before them* when the writing task waits for the queue (what it took before is sent), the queue is empty,
and the transport is not congested. Otherwise they are queued like everyone else's packets, which keeps one order.

Frames that are written here are never compressed, not even for a client that agreed to ``permessage-deflate``, in which
each message may be compressed or not (RFC 7692, 6). For most events, compression costs far more than it saves. Messages
from :data:`COMPRESSED_FROM` on are queued for such clients, and the WebSocket compresses them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..packets import Message

#: Bytes that may be in the TCP transport's buffer. What does not fit waits in the queue, where clients share messages
#: and where they are counted.
CONGESTED = 128 << 10
#: Bytes from which on a message is compressed for a client that agreed to it; Node's threshold.
COMPRESSED_FROM = 1024


class SendQueue:
    """The queue of an Engine.IO socket.

    It has the methods of :class:`asyncio.Queue` that python-engineio uses. That class would take 3 kB for each client,
    also for one that is idle; this one keeps nothing while nothing waits.
    """

    __slots__ = (
        "_compresses",
        "_drains",
        "_getters",
        "_idle",
        "_is_open",
        "_packets",
        "_sent",
        "_socket",
        "_tcp",
        "_unfinished",
        "_writer_waits",
        "bytes",
    )

    def __init__(self) -> None:
        self._packets: deque[Any] | None = None
        self._getters: tuple[asyncio.Future[None], ...] = ()
        #: How many packets wait or are being sent; the future is done when there are none.
        self._unfinished = 0
        self._sent: asyncio.Future[None] | None = None
        self._socket: Any = None
        self._tcp: asyncio.Transport | None = None
        self._is_open: Callable[[], bool] = _no
        self._compresses: Callable[[], bool] = _no
        self._writer_waits = False
        self._drains: Sequence[tuple[int, int, asyncio.Future[None]]] = ()
        self._idle: asyncio.Future[None] | None = None
        #: Bytes that wait.
        self.bytes = 0

    # -- the fast path ------------------------------------------------------------------------------

    def open(
        self, socket: Any, tcp: asyncio.Transport, is_open: Callable[[], bool], compresses: Callable[[], bool]
    ) -> None:
        """There is a WebSocket. Once the Engine.IO ``socket`` is upgraded to it, messages may go past the queue.

        :param tcp: the WebSocket's TCP transport.
        :param is_open: tells whether the WebSocket takes messages, as far as ``tcp`` does not know.
        :param compresses: tells whether the client agreed to ``permessage-deflate``.
        """
        self._socket, self._tcp, self._is_open, self._compresses = socket, tcp, is_open, compresses

    def close(self) -> None:
        """The WebSocket is closed: everything is queued from now on."""
        self._tcp = None
        self._wake_idle()

    def send(self, messages: Sequence[Message]) -> None:
        """Sends messages behind everything that was put before."""
        if self._tcp is not None and messages and self._nothing_before():
            frames = [message.frame for message in messages]
            size = sum(map(len, frames))
            fits = self._tcp.get_write_buffer_size() + size <= CONGESTED
            large = size >= COMPRESSED_FROM and max(map(len, frames)) >= COMPRESSED_FROM
            if fits and not (large and self._compresses()):
                self._tcp.write(b"".join(frames))
                return
        for message in messages:
            self.put_nowait(message)

    def _nothing_before(self) -> bool:
        assert self._tcp is not None
        return (
            self._writer_waits
            and self._packets is None
            and self._socket.upgraded
            and not self._tcp.is_closing()
            and self._is_open()
        )

    async def written(self, timeout: float) -> None:
        """Waits until the writing task has nothing left to send: then :meth:`send` writes at once.

        It returns at once where that can't be, and when :meth:`wake` or :meth:`close` is called.

        :param timeout: how long to wait at most, in seconds.
        """
        if self._tcp is None or not self._socket.upgraded or (self._writer_waits and self.empty()):
            return
        if self._idle is None:
            self._idle = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._idle], timeout=timeout)

    def _wake_idle(self) -> None:
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    # -- as a queue ---------------------------------------------------------------------------------

    def put_nowait(self, packet: Any) -> None:
        """Adds a packet, or ``None``, which ends the writer. The queue has no bound of its own."""
        if self._packets is None:
            self._packets = deque()
        self._packets.append(packet)
        self._unfinished += 1
        self.bytes += _size(packet)
        self._wake_getter()

    async def put(self, packet: Any) -> None:
        """The same; it never waits."""
        self.put_nowait(packet)

    async def get(self) -> Any:
        """Takes the next packet, once there is one."""
        self._writer_waits = True
        if self._packets is None:
            self._wake_idle()
        try:
            while self._packets is None:
                await self._packet()
            return self.get_nowait()
        finally:
            self._writer_waits = False

    async def _packet(self) -> None:
        """Waits for its turn to take a packet."""
        getter = asyncio.get_running_loop().create_future()
        self._getters = (*self._getters, getter)
        try:
            await getter
        except asyncio.CancelledError:
            self._getters = tuple(other for other in self._getters if other is not getter)
            if self._packets is not None and not getter.cancelled():  # it was this one's turn
                self._wake_getter()
            raise

    def _wake_getter(self) -> None:
        while self._getters:
            getter, *others = self._getters
            self._getters = tuple(others)
            if not getter.done():
                getter.set_result(None)
                break

    def get_nowait(self) -> Any:
        """Takes the next packet.

        :raises asyncio.QueueEmpty: if there is none.
        """
        if self._packets is None:
            raise asyncio.QueueEmpty
        packet = self._packets.popleft()
        if not self._packets:
            self._packets = None
        self.bytes -= _size(packet)
        for size, most_bytes, future in self._drains:
            if self.holds(size, most_bytes) and not future.done():
                future.set_result(None)
        return packet

    def task_done(self) -> None:
        """A packet that was taken is sent."""
        self._unfinished -= 1
        if not self._unfinished and self._sent is not None:
            self._sent.set_result(None)
            self._sent = None

    async def join(self) -> None:
        """Waits until everything is sent."""
        if self._unfinished:
            if self._sent is None:
                self._sent = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._sent])

    def empty(self) -> bool:
        return self._packets is None

    def qsize(self) -> int:
        return len(self._packets or ())

    # -- who waits for room -------------------------------------------------------------------------

    async def drained(self, size: int, most_bytes: int) -> None:
        """Waits until no more than ``size`` packets and ``most_bytes`` bytes wait, or :meth:`wake` is called."""
        if self.holds(size, most_bytes):
            return
        waits = (size, most_bytes, asyncio.get_running_loop().create_future())
        self._drains = [*self._drains, waits]
        try:
            await waits[2]
        finally:
            self._drains = [other for other in self._drains if other is not waits]

    def wake(self) -> None:
        """Ends all :meth:`drained` and :meth:`written`, whatever waits: the transport or a connection is over."""
        self._wake_idle()
        for *_, future in self._drains:
            if not future.done():
                future.set_result(None)

    def holds(self, size: int, most_bytes: int) -> bool:
        """Whether no more than ``size`` packets and ``most_bytes`` bytes wait."""
        return self.qsize() <= size and self.bytes <= most_bytes


def _no() -> bool:
    return False


def _size(packet: Any) -> int:
    data = getattr(packet, "data", None)
    return len(data) if isinstance(data, (str, bytes)) else 0
