"""What a node answers to plain HTTP requests: the pages, the health checks, the state of the cluster as JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from . import CLIENT_FILE
from .events import Chat
from .store import UNAVAILABLE

WEB = Path(__file__).parent / "web"
#: The pages load nothing from other hosts. The policy also keeps the browser from running what chat users write.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Files that are served under another path than their name.
_ALIASES = {"index.html": "/", "cluster.html": "/cluster"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(chat: Chat) -> web.Application:
    """Builds the node's web application: Socket.IO, the pages, and what the load balancer and the pages ask for.

    It starts and stops ``chat`` when it is itself started and stopped.
    """
    app = web.Application(client_max_size=1000)
    chat.sio.attach(app)

    async def ready(request: web.Request) -> web.Response:
        """``GET /readyz``, for the load balancer: whether to send clients to this node."""
        reasons = chat.cluster.not_ready
        return web.Response(status=503 if reasons else 200, text="".join(f"{r}\n" for r in reasons) or "ready\n")

    async def metrics(request: web.Request) -> web.Response:
        """``GET /metrics``, for Prometheus. The load balancer does not pass it on."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(chat.registry), headers={"Content-Type": content_type})

    async def cluster(request: web.Request) -> web.Response:
        """``GET /cluster.json``, for the cluster's page."""
        return web.json_response(await chat.cluster.snapshot(), headers=HEADERS)

    async def kill(request: web.Request) -> web.Response:
        """``POST /cluster/kill`` with ``{"node": name}``: only with ``DEMO=1``, and only from a page of this host."""
        if not chat.settings.demo:
            raise web.HTTPForbidden(text="nodes are killed from the page only if they were started with DEMO=1\n")
        if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            raise web.HTTPForbidden(text="this is for the page of the same host\n")
        try:
            node = (await request.json())["node"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise web.HTTPBadRequest(text='expected {"node": name}\n') from None
        if chat.cluster.last_reply is None or not isinstance(node, str) or node not in chat.cluster.last_reply.nodes:
            raise web.HTTPNotFound(text="no such node\n")
        try:
            await chat.store.order_kill(node)
        except UNAVAILABLE:
            raise web.HTTPServiceUnavailable(text="Redis does not answer\n") from None
        chat.journal("node.condemned", victim=node)
        return web.Response(status=202, text="it dies within a second\n")

    async def start(_: web.Application) -> None:
        await chat.start()

    async def stop(_: web.Application) -> None:
        await chat.stop()

    app.router.add_get("/healthz", up)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/cluster.json", cluster)
    app.router.add_post("/cluster/kill", kill)
    for path in sorted(WEB.rglob("*.*")):
        name = path.relative_to(WEB).as_posix()
        app.router.add_get(_ALIASES.get(name, f"/{name}"), file(path))
    app.router.add_get("/socket.io.js", file(chat.settings.client_js / CLIENT_FILE))
    app.on_startup.append(start)
    app.on_shutdown.append(stop)
    return app


async def up(request: web.Request) -> web.Response:
    """``GET /healthz``, for whatever supervises this process: the process is alive, even if Redis does not answer."""
    return web.Response(text="up\n")


def file(path: Path) -> Handler:
    """Returns a request handler that serves one file."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=HEADERS)

    return serve
