"""What serves a node under test: each server that python-socketio works with, as its own documentation has it.

Each function runs a node until a signal ends it. ``/readyz`` is on the port of the clients, for load balancers.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import socketio
from aiohttp import web
from socketio_recovery import drain_on_sigterm

from .node_application import Application
from .node_control import Control

HOST = "127.0.0.1"


class Node:
    """A node with its control endpoints: what all servers start and stop."""

    def __init__(self, config: dict[str, Any], async_mode: str) -> None:
        self.application = Application(config, async_mode)
        self.control = Control(self.application)
        self.sio, self.manager = self.application.sio, self.application.manager
        self.port: int = config["port"]

    async def start(self) -> None:
        await self.control.start()
        await self.application.start()

    async def stop(self) -> None:
        await self.application.stop()
        await self.control.stop()

    @property
    def ready(self) -> int:
        """The status that ``/readyz`` has."""
        return 200 if self.manager.healthy else 503


def aiohttp(config: dict[str, Any]) -> None:
    node = Node(config, "aiohttp")
    app = web.Application()
    node.sio.attach(app)

    async def ready(request: web.Request) -> web.Response:
        return web.Response(status=node.ready)

    async def start(app: web.Application) -> None:
        await node.start()

    async def stop(app: web.Application) -> None:
        await node.stop()

    app.router.add_get("/readyz", ready)
    app.on_startup.append(start)
    app.on_shutdown.append(stop)
    web.run_app(app, host=HOST, port=node.port, print=None, shutdown_timeout=1)


def _asgi(node: Node, start: Callable[[], Any]) -> socketio.ASGIApp:
    async def ready(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": node.ready, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return socketio.ASGIApp(node.sio, ready, on_startup=start, on_shutdown=node.stop)


def uvicorn(config: dict[str, Any]) -> None:
    import uvicorn

    node = Node(config, "asgi")

    async def start() -> None:
        await node.start()
        drain_on_sigterm(node.manager)

    options: dict[str, Any] = {"http": "httptools", "loop": "uvloop", "log_config": None, "access_log": False}
    uvicorn.run(_asgi(node, start), host=HOST, port=node.port, **options)


def hypercorn(config: dict[str, Any]) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    node = Node(config, "asgi")
    settings = Config.from_mapping(bind=f"{HOST}:{node.port}", errorlog=None)

    async def run() -> None:
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)

        async def drained() -> None:
            await terminated.wait()
            await node.manager.drain()

        await serve(_asgi(node, node.start), settings, shutdown_trigger=drained)

    asyncio.run(run())


def tornado(config: dict[str, Any]) -> None:
    import tornado.httpserver
    import tornado.web

    node = Node(config, "tornado")

    class Ready(tornado.web.RequestHandler):
        def get(self) -> None:
            self.set_status(node.ready)

    async def run() -> None:
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
        await node.start()
        handlers: Any = [("/socket.io/", socketio.get_tornado_handler(node.sio)), ("/readyz", Ready)]
        server = tornado.httpserver.HTTPServer(tornado.web.Application(handlers))
        server.listen(node.port, HOST)
        await terminated.wait()
        await node.manager.drain()
        server.stop()
        await server.close_all_connections()
        await node.stop()

    asyncio.run(run())


def sanic(config: dict[str, Any]) -> None:
    import sanic
    import sanic.response

    node = Node(config, "sanic")
    app = sanic.Sanic("node", configure_logging=False)
    node.sio.attach(app)

    async def ready(request: Any) -> Any:
        return sanic.response.empty(node.ready)

    async def start(app: Any) -> None:
        await node.start()

    async def stop(app: Any) -> None:
        await node.stop()

    app.add_route(ready, "/readyz")
    app.register_listener(start, "before_server_start")
    app.register_listener(stop, "before_server_stop")
    app.run(host=HOST, port=node.port, single_process=True, access_log=False, motd=False)


#: All kinds: name -> what runs a node with it.
SERVERS: dict[str, Callable[[dict[str, Any]], None]] = {
    function.__name__: function for function in (aiohttp, uvicorn, hypercorn, tornado, sanic)
}
