"""Receivers: many raw WebSocket clients in one thread, which must take as little as possible of the machine.

No client library could: parsing 100,000 packets a second takes a core of its own. While events are counted, nothing is
parsed here: what came is searched for how an event begins. All sockets are looked at every few milliseconds, so
that what came meanwhile is one read.
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

#: How long anything here may take, in seconds, before the benchmark gives up.
PATIENCE = 120.0

_PING = b"\x81\x012"
_TIME = re.compile(rb'"t":(\d+)')
_OFFSET = re.compile(rb',"([^"]+)"\]')


class Receiver:
    """One client. It connects with a session id and an offset, if it had them."""

    def __init__(self, selector: selectors.BaseSelector, rooms: Sequence[str]) -> None:
        self.selector = selector
        self.rooms = rooms
        self.received = 0
        self.sid = ""
        self.pid: str | None = None
        self.offset: str | None = None
        self.recovered = False
        self.live = False
        self.latencies: list[float] | None = None
        self.socket: socket.socket | None = None
        self._opened = False
        self._buffer = b""
        self._end = b""
        self._recent = (b"", b"")

    def connect(self, port: int) -> None:
        self.live = self._opened = self.recovered = False
        self._buffer = self._end = b""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        self.selector.register(self.socket, selectors.EVENT_WRITE, self)

    def ready(self, mask: int) -> None:
        assert self.socket is not None
        if mask & selectors.EVENT_WRITE:
            self.socket.sendall(
                b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            self.selector.modify(self.socket, selectors.EVENT_READ, self)
            return
        try:
            data = self.socket.recv(1 << 20)
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
                if self._buffer:
                    self._count(self._buffer)
                return
            elif frame == b"2":
                self._send(b"3")
            elif frame.startswith(b"42"):  # Node sends what was missed first
                self.received += frame.count(MARK)
                self._recent = (b"", frame)
            else:
                raise RuntimeError(f"the server answers a handshake with {frame[:200]!r}")

    def _frame(self) -> bytes | None:
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
        # masked, with a mask of zeros
        size = bytes([128 + len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + data)

    def drop(self) -> None:
        """The connection is lost, without a word."""
        if self.socket is not None:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
            self.live = False
            recent = b"".join(self._recent)[-4096:]
            if found := _OFFSET.findall(recent):
                self.offset = found[-1].decode()


class Receivers:
    """All receivers of one run."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.all: list[Receiver] = []

    def add(self, count: int, ports: Sequence[int], rooms: Callable[[int], Sequence[str]]) -> list[Receiver]:
        """Connects receivers, a hundred at a time.

        :param rooms: what the ``i``-th asks to enter.
        """
        new = [Receiver(self._selector, rooms(i)) for i in range(count)]
        self.all += new
        for first in range(0, count, 100):
            self.connect(new[first : first + 100], ports)
        return new

    def connect(self, receivers: Iterable[Receiver], ports: Sequence[int], pause: float = 0) -> None:
        """Connects receivers, or again, spread over ``ports``, all at once; returns when all are."""
        some = list(receivers)
        for receiver, port in zip(some, cycle(ports)):
            receiver.connect(port)
        self.until(lambda: all(receiver.live or receiver.socket is None for receiver in some), pause)
        if lost := sum(receiver.socket is None for receiver in some):
            raise RuntimeError(f"{lost} of {len(some)} receivers were sent away")

    def until(self, condition: Callable[[], Any], pause: float = 0, patience: float = PATIENCE) -> float:
        """Receives until ``condition()`` is true; returns when that was, of :func:`time.monotonic`.

        :param pause: how long to leave the machine to others between two looks, in seconds.
        """
        end = time.monotonic() + patience
        while not condition():
            for key, mask in self._selector.select(0.02):
                key.data.ready(mask)
            if time.monotonic() > end:
                received = sum(receiver.received for receiver in self.all)
                raise TimeoutError(f"not within {patience:g} s; {received} events were received")
            if pause:
                time.sleep(pause)
        return time.monotonic()

    def until_received(self, least: int, pause: float = 0) -> float:
        """Receives until each has so many events; returns when that was."""

        def all_have() -> bool:
            if lost := sum(receiver.socket is None for receiver in self.all):
                raise RuntimeError(f"{lost} of {len(self.all)} receivers lost their connection")
            return all(receiver.received >= least for receiver in self.all)

        return self.until(all_have, pause)

    def rest(self, seconds: float) -> None:
        """Goes on receiving for so long."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, pause=0.002, patience=seconds + 10)

    def reset(self) -> None:
        for receiver in self.all:
            receiver.received = 0

    def close(self) -> None:
        for receiver in self.all:
            receiver.drop()
        self.all.clear()
        self._selector.close()
