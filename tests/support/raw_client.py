"""A client that speaks Engine.IO and Socket.IO by hand, to see and send the packets themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp

from .waiting import PATIENCE


class HasUrl(Protocol):
    """A server that clients can connect to."""

    url: str


class RawClient:
    """A WebSocket on which a test sends and reads the packets of Engine.IO and Socket.IO as text."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def send(self, text: str) -> None:
        await self.ws.send_str(text)

    async def read(self) -> str:
        """Returns the next packet. Pings are answered and left out.

        :returns: the packet; or ``"<CLOSED>"``, ``"<BINARY>"`` and so on for a WebSocket message that is not text.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self.ws.receive()
                if message.type != aiohttp.WSMsgType.TEXT:
                    return f"<{message.type.name}>"
                if message.data != "2":
                    return str(message.data)
                await self.ws.send_str("3")


@asynccontextmanager
async def raw(node: HasUrl, agent: str = "Mozilla/5.0 (raw)", query: str = "") -> AsyncIterator[RawClient]:
    """Opens a connection to a node and reads the first packet of Engine.IO. The client has no namespace yet.

    :param node: anything that has a ``url``.
    :param agent: the client's User-Agent. By default it is one of a client that can recover.
    :param query: what the client has in its query, in front of the rest.
    """
    async with aiohttp.ClientSession(headers={"User-Agent": agent}) as http:
        async with http.ws_connect(f"{node.url}/socket.io/?{query}EIO=4&transport=websocket") as ws:
            client = RawClient(ws)
            assert (await client.read()).startswith("0{")
            yield client


def payload(packet: str, prefix: str) -> Any:
    """Returns what a packet carries as JSON after its ``prefix``."""
    assert packet.startswith(prefix), packet
    return json.loads(packet[len(prefix) :])
