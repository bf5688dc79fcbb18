"""A client's send queue in a synchronous server, and the fast path past it.

The event loop's thread delivers events. python-engineio's writer is a thread (or a greenlet) of its own for each
client, which takes packets out of the queue and sends them. To wake it costs several times as much as the sending. So
where nothing waits before them, the event loop writes messages to the socket itself, without blocking: all messages of
a batch at once, and as bytes that all recipients share. What the socket does not take waits in the queue, and the
writer goes on with it.

*Nothing waits before them* when the writer waits for the queue (what it took before is sent) and the queue is empty.
Both change under the queue's lock, which the fast path holds while it writes: so no two write to a socket at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..packets import Message
from .modes import Mode, Signal


class Wire(Protocol):
    """Where frames of a WebSocket can be written to."""

    def fits(self, frames: Sequence[bytes]) -> bool:
        """Whether these frames may be written as they are; else the WebSocket compresses them."""

    def write_now(self, data: bytes) -> int:
        """Writes as much as it takes now.

        :returns: how many bytes.
        :raises OSError: if nothing can be written any more.
        """


class Rest:
    """What is left of frames that were written in part: a packet to the writer.

    :param data: bytes as they go to the socket.
    """

    packet_type = None

    def __init__(self, data: bytes) -> None:
        self.data = data

    def encode(self, b64: bool = False) -> Rest:
        return self


class ThreadSendQueue:
    """The queue of an Engine.IO socket of a synchronous server.

    It has the methods of :class:`queue.Queue` that python-engineio uses, and those of ``aio/send_queue.py`` that the
    core uses.

    :param empty: the exception that :meth:`get` raises when nothing came in time.
    :param soon: calls a function on the event loop.
    """

    def __init__(self, mode: Mode, empty: type[Exception], soon: Callable[..., None]) -> None:
        self._mode = mode
        self._empty = empty
        self._soon = soon
        self._lock = mode.lock()
        self._items: deque[Any] = deque()
        self._getters: deque[Signal] = deque()
        self._joiners: list[Signal] = []
        self._unfinished = 0
        self._writer_waits = False
        self._socket: Any = None
        self._wire: Wire | None = None
        self._drains: Sequence[tuple[int, int, asyncio.Future[None]]] = ()
        self._idle: asyncio.Future[None] | None = None
        #: Bytes that wait.
        self.bytes = 0

    # -- the fast path, on the event loop ------------------------------------------------------------

    def open(self, socket: Any, wire: Wire | None) -> None:
        """There is a WebSocket. Once the Engine.IO ``socket`` is upgraded to it, messages may go past the queue."""
        with self._lock:
            self._socket, self._wire = socket, wire

    def close(self) -> None:
        """The WebSocket is closed: everything is queued from now on."""
        with self._lock:
            self._wire = None
            waits = self._idle is not None
        if waits:
            self._soon(self._wake_idle)

    def send(self, messages: Sequence[Message]) -> None:
        """Sends messages behind everything that was put before. It does not wait."""
        with self._lock:
            packets: Sequence[Any] = messages
            if self._wire is not None and self._writer_waits and not self._items and self._socket.upgraded:
                frames = [message.frame for message in messages]
                if self._wire.fits(frames):
                    data = b"".join(frames)
                    try:
                        written = self._wire.write_now(data)
                    except OSError:  # the writer finds out, too
                        self._wire, written = None, 0
                    if written == len(data):
                        return
                    packets = (Rest(data[written:]),) if written else messages
            for packet in packets:
                self._put(packet)
            getter = self._getters.popleft() if self._getters else None
        if getter is not None:
            getter.set()

    # -- as a queue, from any thread -----------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds a packet, or ``None``, which ends the writer. It never waits: the queue has no bound of its own."""
        with self._lock:
            self._put(item)
            getter = self._getters.popleft() if self._getters else None
        if getter is not None:
            getter.set()

    put_nowait = put

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the next packet.

        :param timeout: how long to wait for it, in seconds. The default is for ever.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._items:
                    self._writer_waits = False
                    return self._get()
                if not block or (until is not None and time.monotonic() >= until):
                    self._writer_waits = False
                    raise self._empty
                signal = self._mode.signal()
                self._getters.append(signal)
                self._writer_waits = True
                wanted = self._idle is not None
            if wanted:
                self._soon(self._wake_idle)
            try:
                signal.wait(None if until is None else until - time.monotonic())
            except BaseException:  # gevent.Timeout, say
                with self._lock:
                    other = self._getters.popleft() if signal not in self._getters and self._getters else None
                if other is not None:  # it was this one's turn
                    other.set()
                raise
            finally:
                with self._lock:
                    if signal in self._getters:
                        self._getters.remove(signal)
                        self._writer_waits = False

    def get_nowait(self) -> Any:
        """Takes the next packet if there is one."""
        return self.get(block=False)

    def task_done(self) -> None:
        """A packet that was taken is sent."""
        with self._lock:
            self._unfinished -= 1
            joiners, self._joiners = ([], self._joiners) if self._unfinished > 0 else (self._joiners, [])
        for joiner in joiners:
            joiner.set()

    def join(self) -> None:
        """Waits until everything is sent."""
        with self._lock:
            if self._unfinished <= 0:
                return
            signal = self._mode.signal()
            self._joiners.append(signal)
        signal.wait()

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)

    def _put(self, item: Any) -> None:
        self._items.append(item)
        self._unfinished += 1
        self.bytes += _size(item)

    def _get(self) -> Any:
        item = self._items.popleft()
        self.bytes -= _size(item)
        if self._drains:
            self._soon(self._look_at_drains)
        return item

    # -- who waits for the writer, on the event loop -------------------------------------------------

    async def written(self, timeout: float) -> None:
        """Waits until the writing thread has nothing left to send. See ``aio/send_queue.py``."""
        with self._lock:
            if self._wire is None or not self._socket.upgraded or (self._writer_waits and not self._items):
                return
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            idle = self._idle
        await asyncio.wait([idle], timeout=timeout)

    def _wake_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.set_result(None)

    async def drained(self, size: int, most_bytes: int) -> None:
        """Waits until no more than ``size`` packets and ``most_bytes`` bytes wait, or :meth:`wake` is called."""
        waits = (size, most_bytes, asyncio.get_running_loop().create_future())
        with self._lock:
            if self.holds(size, most_bytes):
                return
            self._drains = [*self._drains, waits]
        try:
            await waits[2]
        finally:
            with self._lock:
                self._drains = [other for other in self._drains if other is not waits]

    def wake(self) -> None:
        """Ends all :meth:`drained` and :meth:`written`, whatever waits: the transport or a connection is over."""
        self._wake_idle()
        for *_, future in self._drains:
            if not future.done():
                future.set_result(None)

    def _look_at_drains(self) -> None:
        for size, most_bytes, future in self._drains:
            if self.holds(size, most_bytes) and not future.done():
                future.set_result(None)

    def holds(self, size: int, most_bytes: int) -> bool:
        """Whether no more than ``size`` packets and ``most_bytes`` bytes wait."""
        return len(self._items) <= size and self.bytes <= most_bytes


def _size(packet: Any) -> int:
    data = getattr(packet, "data", None)
    return len(data) if isinstance(data, (str, bytes)) else 0
