"""An application for any ASGI server: it emits to each client a burst of events of all kinds and sizes.

The environment variable ``NODE_CONFIG`` has its configuration as JSON: ``redis``, ``channel``, ``manager`` (options),
and ``wrapped``, to put a middleware around ``send``. ``GET /state`` says what was sent in which way, and ``GET /flood``
emits a lot to everybody.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import socketio
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.aio.send_queue import SendQueue
from socketio_recovery.packets import Message

from .events import COUNT, FLOOD, argument

config = json.loads(os.environ["NODE_CONFIG"])
manager = AsyncRedisStreamsManager(config["redis"], channel=config["channel"], **config.get("manager", {}))
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
inner = socketio.ASGIApp(sio)
#: Messages that were written past the queue and that were queued, the largest of the former, and open WebSockets.
state: Counter[str] = Counter()
send_messages = SendQueue.send


def counted(queue: SendQueue, messages: Sequence[Message]) -> None:
    before = queue.qsize()
    send_messages(queue, messages)
    if queue.qsize() == before:
        state["past the queue"] += len(messages)
        state["largest"] = max(state["largest"], *(len(message.frame) for message in messages))
    else:
        state["queued"] += len(messages)


SendQueue.send = counted  # type: ignore[assignment,method-assign]


@sio.event  # type: ignore[untyped-decorator]
async def connect(sid: str, environ: Any, auth: Any = None) -> None:
    if not (auth or {}).get("quiet"):
        sio.start_background_task(burst, sid)


async def burst(sid: str) -> None:
    """Some at a time, so that batches have several of them."""
    for first in range(0, COUNT, 5):
        await asyncio.gather(*(sio.emit("event", (i, argument(i)), to=sid) for i in range(first, first + 5)))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] in ("/state", "/flood", "/one"):
        if scope["path"] == "/flood":
            for i in range(FLOOD):
                await sio.emit("flood", (i, "x" * 20_000))
        if scope["path"] == "/one":
            await sio.emit("one")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(state).encode()})
        return

    async def passed_on(message: Any) -> None:
        await send(message)

    state["open"] += scope["type"] == "websocket"
    try:
        await inner(scope, receive, passed_on if config.get("wrapped") else send)
    finally:
        state["open"] -= scope["type"] == "websocket"
