"""python-engineio's driver for aiohttp: how the fast path gets at the TCP transport of a WebSocket.

With another driver there is no ``aiohttp.request``, and everything is queued.
"""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import engineio
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from engineio.async_drivers import aiohttp as driver

HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


def request(**headers: str) -> web.Request:
    """A request for a WebSocket, on a TCP transport that takes everything at once."""

    async def drained() -> None: ...

    transport = Mock(spec=asyncio.Transport)
    transport.is_closing.return_value = False
    protocol = Mock(transport=transport, ssl_context=None, _paused=False, _reading_paused=False, connected=True)
    protocol._drain_helper = drained
    url = "/socket.io/?transport=websocket&EIO=4"
    return make_mocked_request("GET", url, {**HEADERS, **headers}, transport=transport, protocol=protocol)


def server() -> Any:
    return engineio.AsyncServer(async_mode="aiohttp", monitor_clients=False)


def test_the_environ_holds_the_request() -> None:
    found = request()
    assert driver.translate_request(found)["aiohttp.request"] is found


def test_a_request_has_the_tcp_transport() -> None:
    """Frames are written to it, and ``abort`` cuts it when a client does not read."""
    transport = request().transport
    assert transport is not None
    for name in ("write", "get_write_buffer_size", "is_closing", "abort"):
        assert callable(getattr(transport, name))


@pytest.mark.parametrize(("headers", "compresses"), [({}, False), (DEFLATE, True)])
async def test_a_websocket_has_its_environ_and_says_whether_it_compresses_when_its_handler_is_called(
    headers: dict[str, str], compresses: bool
) -> None:
    """``watch`` looks at ``websocket.environ`` and ``websocket._sock.compress``."""
    seen = []

    async def handler(websocket: Any) -> None:
        seen.append((websocket.environ, bool(websocket._sock.compress), websocket._sock))

    environ = driver.translate_request(request(**headers))
    result = await driver.WebSocket(handler, server())(environ)
    [(found, compressed, sock)] = seen
    assert found is environ
    assert compressed is compresses
    assert isinstance(sock, web.WebSocketResponse)
    assert result is sock


async def test_the_driver_writes_a_message_as_one_frame_without_a_pause() -> None:
    """So a frame that the fast path writes does not come into the middle of one of the driver's."""
    found = request()
    transport: Any = found.transport
    written: list[bytes] = []
    frames: list[bytes] = []

    async def handler(websocket: Any) -> None:
        transport.write.side_effect = lambda data: written.append(bytes(data))
        transport.writelines.side_effect = lambda parts: written.extend(map(bytes, parts))
        for message in ("4text", b"data"):
            sending = websocket.send(message)
            with pytest.raises(StopIteration):
                sending.send(None)
            frames.append(b"".join(written))
            written.clear()

    await driver.WebSocket(handler, server())(driver.translate_request(found))
    assert frames == [b"\x81\x054text", b"\x82\x04data"]


def test_the_driver_is_the_one_of_async_mode_aiohttp() -> None:
    assert server()._async["websocket"] is driver.WebSocket
