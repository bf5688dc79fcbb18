"""The WebSocket of a synchronous server: simple-websocket, beneath python-engineio's wrapper.

Two things are done past simple-websocket. Frames that are ready are written to the socket as they are. And everything
is sent whole: simple-websocket calls ``socket.send`` and does not look at what it returns, so that under gevent the end
of a large message was lost.
"""

from __future__ import annotations

import os
from _socket import socket as RawSocket
from collections.abc import Sequence
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RDWR
from typing import Any

from ...aio.send_queue import COMPRESSED_FROM
from ..send_queue import Rest


class SharedSocket:
    """The TCP socket of a WebSocket, held beside the WebSocket: a duplicate, so that its number stays ours.

    :param sock: a plain TCP or Unix socket.
    :param compresses: whether the client may have agreed to ``permessage-deflate``.
    """

    def __init__(self, sock: Any, compresses: bool) -> None:
        self._raw = RawSocket(fileno=os.dup(sock.fileno()))
        self._compresses = compresses

    def fits(self, frames: Sequence[bytes]) -> bool:
        return not self._compresses or max(map(len, frames)) < COMPRESSED_FROM

    def write_now(self, data: bytes) -> int:
        try:
            return self._raw.send(data, MSG_DONTWAIT | MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0

    def cut(self) -> None:
        """Ends the TCP connection at once; who reads or writes gets an error."""
        try:
            self._raw.shutdown(SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._raw.close()


def shared_socket(websocket: Any) -> SharedSocket | None:
    """The socket beneath python-engineio's wrapper of a WebSocket; ``None`` if it can't be written to past it."""
    simple = getattr(websocket, "ws", None)
    sock = getattr(simple, "sock", None)
    plain = type(sock).__module__ in ("socket", "gevent._socket3") and type(sock).__name__ == "socket"
    if not plain or not hasattr(simple, "ws"):
        return None
    asked = str(getattr(simple, "environ", {}).get("HTTP_SEC_WEBSOCKET_EXTENSIONS", ""))
    return SharedSocket(sock, "permessage-deflate" in asked)


class WholeWebSocket:
    """python-engineio's wrapper of a WebSocket, which sends everything whole."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket

    def send(self, message: Any) -> None:
        from wsproto.events import BytesMessage, TextMessage

        simple = self._websocket.ws
        if isinstance(message, Rest):
            data = message.data
        elif not simple.connected:
            raise OSError("the WebSocket is closed")
        else:
            event = BytesMessage(data=message) if isinstance(message, bytes) else TextMessage(data=message)
            data = simple.ws.send(event)
        simple.sock.sendall(data)

    def wait(self) -> Any:
        return self._websocket.wait()

    def close(self) -> None:
        self._websocket.close()
