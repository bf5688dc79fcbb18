"""One node of the chat: a process with an aiohttp server. ``python -m chat.node``

It is configured by environment variables:

=============  ==============================================  =======================================
``NODE_NAME``  what the page calls it                          the machine's name
``HOST``       the address it listens on                       ``127.0.0.1``
``PORT``       the port                                        ``8000``
``REDIS_URL``  the Redis that all nodes share                  ``redis://localhost:6379/0``
``CLIENT_JS``  the ``dist`` folder of ``socket.io-client``     where ``make chat`` installs it
``DEMO``       ``1`` lets anybody kill this node               off
=============  ==============================================  =======================================
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import socketio
from aiohttp import web
from socketio_recovery import AsyncRedisStreamsManager, PublishTimeout, RedisUnavailable

from . import CLIENT_FILE, CLIENT_JS

LOBBY = "lobby"
MAX_TEXT = 1000  # characters
MAX_NAME = 40
WEB = Path(__file__).parent / "web"
#: The page needs nothing from elsewhere; what others write can't run on it.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}

log = logging.getLogger("chat")


@dataclass(frozen=True)
class Settings:
    """How a node is configured; see the top of this file."""

    name: str
    host: str
    port: int
    redis_url: str
    client_js: Path
    demo: bool

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Settings:
        """:raises ValueError: for a ``PORT`` that is none."""
        return cls(
            name=environ.get("NODE_NAME") or platform.node() or "node",
            host=environ.get("HOST") or "127.0.0.1",
            port=int(environ.get("PORT") or 8000),
            redis_url=environ.get("REDIS_URL") or "redis://localhost:6379/0",
            client_js=Path(environ.get("CLIENT_JS") or CLIENT_JS),
            demo=environ.get("DEMO") == "1",
        )


def clean(value: object, what: str, most: int) -> str:
    """What a client sent as a text: one line, not empty, not too long.

    :raises ValueError: if it is something else; the message is for the client.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a text")
    text = " ".join(value.split())
    if not text:
        raise ValueError(f"{what} is empty")
    if len(text) > most:
        raise ValueError(f"{what} is longer than {most} characters")
    return text


def name_in(auth: object, sid: str) -> str:
    """The name a client connects with, or one for a guest."""
    try:
        return clean(auth.get("name") if isinstance(auth, dict) else None, "the name", MAX_NAME)
    except ValueError:
        return f"Guest {sid[:4]}"


class Chat:
    """The chat's events. What a client sends is checked; errors go back in the acknowledgement."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.manager = AsyncRedisStreamsManager(
            settings.redis_url, channel="chat", logger=logging.getLogger("socketio_recovery")
        )
        self.sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=self.manager, max_http_buffer_size=100_000)
        for handler in (self.connect, self.hello, self.rename, self.say):
            self.sio.on(handler.__name__, handler)
        if settings.demo:
            self.sio.on("kill", self.kill)

    async def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        if self.manager.recovered(sid):
            log.info("session %s is back", sid)
            return  # same sid, rooms and session data; missed events follow
        await self.sio.save_session(sid, {"name": name_in(auth, sid)})
        await self.sio.enter_room(sid, LOBBY)
        log.info("session %s begins (%s)", sid, self.manager.recovery_reason(sid))

    async def hello(self, sid: str, *_: object) -> dict[str, Any]:
        """Where the client is. It gets the answer after the events that it missed."""
        return {
            "node": self.settings.name,
            "sid": sid,
            "name": (await self.sio.get_session(sid))["name"],
            "recovered": self.manager.recovered(sid),
            "reason": self.manager.recovery_reason(sid),
            "demo": self.settings.demo,
        }

    async def rename(self, sid: str, name: object = None, *_: object) -> dict[str, str]:
        try:
            name = clean(name, "the name", MAX_NAME)
            await self.sio.save_session(sid, {"name": name})
        except (ValueError, RedisUnavailable) as error:
            return {"error": str(error)}
        return {"name": name}

    async def say(self, sid: str, text: object = None, *_: object) -> dict[str, str]:
        """A message, to everybody. The answer is its id, or what is wrong."""
        try:
            message = {
                "id": uuid.uuid4().hex,
                "name": (await self.sio.get_session(sid))["name"],
                "text": clean(text, "the message", MAX_TEXT),
                "at": round(time.time() * 1000),
            }
            await self.sio.emit("message", message, to=LOBBY)
        except (ValueError, PublishTimeout, RedisUnavailable) as error:
            return {"error": str(error)}
        return {"id": str(message["id"])}

    async def kill(self, sid: str, *_: object) -> None:
        """The node dies as by a power cut: nobody is told, nothing is saved."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def start(self, app: web.Application) -> None:
        try:
            await self.manager.start()
        except RedisUnavailable as error:
            log.warning("%s; this node is not ready until it does", error)

    async def stop(self, app: web.Application) -> None:
        await self.manager.drain()
        await self.manager.close()

    async def ready(self, request: web.Request) -> web.Response:
        """For the load balancer: whether to send clients here."""
        return web.Response(text="ready\n") if self.manager.healthy else web.Response(status=503, text="not ready\n")

    def application(self) -> web.Application:
        app = web.Application()
        self.sio.attach(app)
        app.router.add_get("/healthz", up)
        app.router.add_get("/readyz", self.ready)
        app.router.add_get("/", file(WEB / "index.html"))
        app.router.add_get("/style.css", file(WEB / "style.css"))
        app.router.add_get("/main.js", file(WEB / "main.js"))
        app.router.add_get("/socket.io.js", file(self.settings.client_js / CLIENT_FILE))
        app.on_startup.append(self.start)
        app.on_shutdown.append(self.stop)
        return app


async def up(request: web.Request) -> web.Response:
    """For whoever starts this process: it is alive, whatever Redis does."""
    return web.Response(text="up\n")


def file(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that serves one file."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=HEADERS)

    return serve


def main() -> int:
    try:
        settings = Settings.of(os.environ)
        logging.basicConfig(format=f"{settings.name}: %(message)s", level=logging.WARNING)
        log.setLevel(logging.INFO)
        if not (settings.client_js / CLIENT_FILE).exists():
            raise FileNotFoundError("socket.io-client is not installed: run `make chat`")
        app = Chat(settings).application()
        web.run_app(app, host=settings.host, port=settings.port, print=None, access_log=None, shutdown_timeout=1)
    except (OSError, ValueError) as error:
        print(f"chat.node: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
