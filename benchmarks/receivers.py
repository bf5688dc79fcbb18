"""The receivers: many raw WebSocket clients in one thread, which use as little of the machine as possible.

No client library could do that: parsing 100,000 packets a second takes a whole core. The receivers parse nothing while
they count events. They only search the bytes for the beginning of an event. The thread looks at the sockets every few
milliseconds, so that it reads everything that came meanwhile at once.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from typing import Any

from .event import MARK

#: How long any wait may take before the benchmark fails, in seconds.
PATIENCE = 120.0

#: How many sockets with events are read before those that connect are looked at again.
SLICE = 50

_PING = b"\x81\x012"
_TIME = re.compile(rb'"t":(\d+)')
_OFFSET = re.compile(rb',"([^"]+)"\]')


class Sockets:
    """The sockets of all receivers, and what is read from them."""

    def __init__(self) -> None:
        #: Those of receivers that connect, and those of the others.
        self.connecting = selectors.EpollSelector()
        self.connected = selectors.EpollSelector()
        self.connected.register(self.connecting, selectors.EVENT_READ)  # so that one wait is for all
        self._buffer = memoryview(bytearray(1 << 20))

    def read(self, socket: socket.socket) -> bytes:
        """What a socket has received, up to 1 MiB."""
        return bytes(self._buffer[: socket.recv_into(self._buffer)])

    def turn(self, wait: float) -> None:
        """Has receivers read what is there, and waits up to ``wait`` seconds if that is nothing.

        Those that connect come first, also in the middle of many events: what they wait for is to be the server, not
        this thread.
        """
        events = [(key, mask) for key, mask in self.connected.select(wait) if key.fileobj is not self.connecting]
        for first in range(0, max(len(events), 1), SLICE):
            for key, mask in [*self.connecting.select(0), *events[first : first + SLICE]]:
                key.data.ready(mask)

    def close(self) -> None:
        """Waits for none any more."""
        self.connected.close()
        self.connecting.close()


class Receiver:
    """One client. When it connects again, it sends its private session id and its offset, so that it can be recovered.

    :param sockets: those of all receivers.
    :param rooms: the rooms it asks to enter.
    :ivar received: how many events it has received.
    :ivar recovered: whether its last connect recovered its session.
    :ivar live: whether the Socket.IO connection is established.
    :ivar took: how long its last connect took, in seconds.
    :ivar latencies: the time from emit to arrival of each event, in seconds; ``None`` if that is not measured.
    """

    def __init__(self, sockets: Sockets, rooms: Sequence[str]) -> None:
        self.sockets = sockets
        self.rooms = rooms
        self.received = 0
        self.sid = ""
        self.pid: str | None = None
        self.offset: str | None = None
        self.recovered = False
        self.live = False
        self.took = 0.0
        self.latencies: list[float] | None = None
        self.socket: socket.socket | None = None
        self._opened = False
        self._began = 0.0
        self._buffer = b""
        self._end = b""
        self._recent = (b"", b"")

    def connect(self, port: int) -> None:
        """Begins to connect to a node on this machine. :meth:`ready` continues when the socket can be written."""
        self.live = self._opened = self.recovered = False
        self._began = time.monotonic()
        self._buffer = self._end = b""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        self.sockets.connecting.register(self.socket, selectors.EVENT_WRITE, self)

    def ready(self, mask: int) -> None:
        """Handles what the selector reported for the socket: it is connected, or there are bytes to read."""
        assert self.socket is not None
        if mask & selectors.EVENT_WRITE:
            self.socket.sendall(
                b"GET /socket.io/?recovery=1&EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            self.sockets.connecting.modify(self.socket, selectors.EVENT_READ, self)
            return
        try:
            data = self.sockets.read(self.socket)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.drop()
        elif self.live:
            self._count(data)
        else:
            self._shake_hands(data)

    def _count(self, data: bytes) -> None:
        # An event may be cut in two by the end of `data`, so the last bytes are kept and searched with the next ones.
        k = len(MARK) - 1
        self.received += data.count(MARK) + (self._end + data[:k]).count(MARK)
        self._end = (self._end + data)[-k:] if len(data) < k else data[-k:]
        self._recent = (self._recent[1], data)
        if self.latencies is not None:
            now = time.monotonic_ns()
            self.latencies += [(now - int(t)) / 1e9 for t in _TIME.findall(data)]
        if _PING in data:
            self._send(b"3")

    def _shake_hands(self, data: bytes) -> None:
        self._buffer += data
        if not self._opened:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head:
                raise RuntimeError(f"the server does not take this client: {head[:200]!r}")
            self._opened, self._buffer = True, rest
        while (frame := self._frame()) is not None:
            if frame.startswith(b"0"):
                had = {"pid": self.pid, "offset": self.offset} if self.pid else {}
                if self.pid and self.offset is None:
                    del had["offset"]
                self._send(b"40" + json.dumps({"rooms": self.rooms, **had}).encode())
            elif frame.startswith(b"40"):
                answer = json.loads(frame[2:])
                self.recovered = answer["sid"] == self.sid
                self.sid, self.pid = answer["sid"], answer.get("pid")
                self.live = True
                assert self.socket is not None
                self.sockets.connecting.unregister(self.socket)
                self.sockets.connected.register(self.socket, selectors.EVENT_READ, self)
                self.took = time.monotonic() - self._began
                if self._buffer:
                    self._count(self._buffer)
                return
            elif frame == b"2":
                self._send(b"3")
            elif frame[:1] == b"\x03":  # a closing handshake: the number of its reason begins with this byte
                self.drop()
                return
            elif frame.startswith(b"42"):  # Node sends the missed events before the answer to CONNECT
                self.received += frame.count(MARK)
                self._recent = (b"", frame)
            else:
                raise RuntimeError(f"the server answers a handshake with {frame[:200]!r}")

    def _frame(self) -> bytes | None:
        """Takes one WebSocket frame from the buffer and returns its payload; ``None`` if no frame is complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1], 2
        if size == 126:
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        if len(buffer) < at + size:
            return None
        self._buffer = buffer[at + size :]
        return buffer[at : at + size]

    def _send(self, data: bytes) -> None:
        assert self.socket is not None
        # Clients must mask what they send. A mask of zeros leaves the data as it is.
        size = bytes([128 + len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + data)

    def drop(self) -> None:
        """Closes the connection without a closing handshake, as if it were lost; keeps the last offset."""
        if self.socket is not None:
            (self.sockets.connected if self.live else self.sockets.connecting).unregister(self.socket)
            self.socket.close()
            self.socket = None
            self.live = False
            recent = b"".join(self._recent)[-4096:]
            if found := _OFFSET.findall(recent):
                self.offset = found[-1].decode()


class Receivers:
    """All receivers of one cluster.

    :ivar all: the receivers, connected or not.
    """

    def __init__(self) -> None:
        self._sockets = Sockets()
        self.all: list[Receiver] = []

    def add(self, count: int, ports: Sequence[int], rooms: Callable[[int], Sequence[str]]) -> list[Receiver]:
        """Adds receivers and connects them, a hundred at a time.

        :param count: how many.
        :param ports: the ports of the nodes; the receivers are spread over them.
        :param rooms: returns the rooms that the ``i``-th of them asks to enter.
        :raises RuntimeError: if a node does not accept a receiver.
        :raises TimeoutError: if it takes too long.
        """
        new = [Receiver(self._sockets, rooms(i)) for i in range(count)]
        self.all += new
        for first in range(0, count, 100):
            self.connect(new[first : first + 100], ports)
        return new

    def connect(self, receivers: Iterable[Receiver], ports: Sequence[int], pause: float = 0) -> None:
        """Connects receivers at once, whether for the first time or again, and waits until all are connected.

        :param ports: the ports of the nodes; the receivers are spread over them.
        :param pause: see :meth:`until`.
        :raises RuntimeError: if a node does not accept a receiver.
        :raises TimeoutError: if it takes too long.
        """
        some = list(receivers)
        for receiver, port in zip(some, cycle(ports)):
            receiver.connect(port)
        self.until(lambda: all(receiver.live or receiver.socket is None for receiver in some), pause)
        if lost := sum(receiver.socket is None for receiver in some):
            raise RuntimeError(f"{lost} of {len(some)} receivers were sent away")

    def until(self, condition: Callable[[], Any], pause: float = 0, patience: float = PATIENCE) -> float:
        """Receives until ``condition()`` is true, and returns the time then, by :func:`time.monotonic`.

        :param pause: how long to sleep between two looks at the sockets, in seconds, to leave the machine to others.
        :param patience: how long to wait at most, in seconds.
        :raises TimeoutError: if it takes longer.
        """
        end = time.monotonic() + patience
        while not condition():
            self.turn()
            if time.monotonic() > end:
                received = sum(receiver.received for receiver in self.all)
                raise TimeoutError(f"not within {patience:g} s; {received} events were received")
            if pause:
                time.sleep(pause)
        return time.monotonic()

    def turn(self, wait: float = 0.02) -> None:
        """Receives what is there, and waits up to ``wait`` seconds if that is nothing."""
        self._sockets.turn(wait)

    def until_received(self, least: int, pause: float = 0) -> float:
        """Receives until each receiver has ``least`` events, and returns the time then, by :func:`time.monotonic`.

        :param pause: see :meth:`until`.
        :raises RuntimeError: if a receiver loses its connection.
        :raises TimeoutError: if it takes too long.
        """

        def all_have() -> bool:
            if lost := sum(receiver.socket is None for receiver in self.all):
                raise RuntimeError(f"{lost} of {len(self.all)} receivers lost their connection")
            return all(receiver.received >= least for receiver in self.all)

        return self.until(all_have, pause)

    def rest(self, seconds: float) -> None:
        """Goes on receiving for so many seconds."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, pause=0.002, patience=seconds + 10)

    def reset(self) -> None:
        """Lets all receivers count from 0 again."""
        for receiver in self.all:
            receiver.received = 0

    def close(self) -> None:
        """Closes all connections and removes all receivers."""
        for receiver in self.all:
            receiver.drop()
        self.all.clear()
        self._sockets.close()
