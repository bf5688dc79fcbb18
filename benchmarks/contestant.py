"""A contestant in Python: a server process that reads commands from standard input and answers, each in a line of JSON.

python -m benchmarks.contestant '{"kind": "recovery", "redis": ..., "port": ..., ...}'

``kind`` is ``recovery`` (this library), ``redis`` (python-socketio's ``AsyncRedisManager``), ``uvicorn`` or
``redis-uvicorn`` (the same two on uvicorn instead of aiohttp), ``writer`` (this library's manager without a server,
which only emits) or ``bare`` (aiohttp WebSockets and nothing else). ``contestant.mjs`` does the same with Node's
Socket.IO.

``"namespaces": [...]`` are those that events go to, in turn; the default is ``/`` alone.

uvicorn runs with what ``uvicorn[standard]`` installs for it. ``"uvicorn": {...}`` has further options of
:class:`uvicorn.Config`, such as ``ws``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any, Protocol

import socketio
import uvicorn
from aiohttp import WSMsgType, web
from socketio_recovery import AsyncRedisStreamsManager, tuning

from .event import NAME, event_argument


class Contestant(Protocol):
    """What every contestant can do."""

    async def emit(self, name: str, data: dict[str, Any], room: str | None) -> None: ...


class SocketIO:
    """A Socket.IO server with this library or with ``AsyncRedisManager``. The application is the same."""

    def __init__(self, config: dict[str, Any]) -> None:
        options = config.get("manager", {})
        self._namespaces = cycle(config.get("namespaces", ["/"]))
        self.manager: Any
        if config["kind"] in ("recovery", "uvicorn"):
            self.manager = AsyncRedisStreamsManager(config["redis"], channel=config["channel"], **options)
        else:
            self.manager = socketio.AsyncRedisManager(config["redis"], channel=config["channel"])
        self.asgi = "uvicorn" in config["kind"]
        self.sio = socketio.AsyncServer(
            async_mode="asgi" if self.asgi else "aiohttp",
            client_manager=self.manager,
            cors_allowed_origins="*",
            **config.get("server", {}),
        )

        @self.sio.event  # type: ignore[untyped-decorator]
        async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
            if isinstance(self.manager, AsyncRedisStreamsManager) and self.manager.recovered(sid):
                return
            for room in (auth or {}).get("rooms", ()):
                await self.sio.enter_room(sid, room)

    async def emit(self, name: str, data: dict[str, Any], room: str | None) -> None:
        await self.sio.emit(name, data, to=room, namespace=next(self._namespaces))

    async def prepare(self) -> None:
        if isinstance(self.manager, AsyncRedisStreamsManager):
            await self.manager.start()
        else:
            self.sio.manager_initialized = True  # else the server would do it again with the first client
            self.manager.initialize()


class Writer:
    """This library's manager without a server, as a process outside the cluster has it."""

    def __init__(self, config: dict[str, Any]) -> None:
        options = config.get("manager", {})
        self._namespaces = cycle(config.get("namespaces", ["/"]))
        self.manager = AsyncRedisStreamsManager(config["redis"], channel=config["channel"], write_only=True, **options)

    async def emit(self, name: str, data: dict[str, Any], room: str | None) -> None:
        await self.manager.emit(name, data, room=room, namespace=next(self._namespaces))

    async def prepare(self) -> None:
        pass


class Bare:
    """A server that can only send the same bytes to all its WebSockets. It shows the limit of what is possible."""

    def __init__(self, config: dict[str, Any], app: web.Application) -> None:
        self.requests: dict[web.WebSocketResponse, web.Request] = {}
        app.router.add_get("/socket.io/", self._socket)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('0{"sid":"bare"}')
        async for message in socket:
            if message.type == WSMsgType.TEXT and message.data.startswith("40"):
                await socket.send_str('40{"sid":"bare"}')
                self.requests[socket] = request
        self.requests.pop(socket, None)
        return socket

    async def emit(self, name: str, data: dict[str, Any], room: str | None) -> None:
        # With an offset, so that the packet is as long as the one that this library sends.
        text = f'42["{name}",{json.dumps(data, separators=(",", ":"))},"19a1b2c3d4e-1f2-19a1b2c3d4e"]'
        for socket in self.requests:
            await socket.send_str(text)
        await asyncio.sleep(0)

    async def prepare(self) -> None:
        pass

    async def blast(self, count: int, size: int) -> dict[str, float]:
        """Writes ``count`` events to each receiver with as little work as possible: a hundred of them at a time."""
        text = json.dumps(event_argument(size) | {"t": time.monotonic_ns()}, separators=(",", ":"))
        body = f'42["{NAME}",{text}]'.encode()
        frames = (b"\x81\x7e" + len(body).to_bytes(2, "big") + body) * 100
        start = time.monotonic()
        for _ in range(0, count, 100):
            for request in self.requests.values():
                assert request.transport is not None
                request.transport.write(frames)
                await request.writer.drain()
        return {"start": start}


async def emit(
    contestant: Contestant, room: str | None, count: int, in_flight: int, size: int, rate: float, name: str, rooms: int
) -> dict[str, float]:
    """Emits events; :meth:`benchmarks.processes.BenchNode.emit` explains the parameters.

    :returns: when the first emit began and when all were done, by :func:`time.monotonic`.
    """
    data = event_argument(size)
    numbers = iter(range(count))
    start = time.monotonic()

    async def work() -> None:
        for i in numbers:
            if rate and (wait := start + i / rate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            where = f"room{i % rooms}" if rooms else room
            await contestant.emit(name, {**data, "t": time.monotonic_ns()}, where)

    await asyncio.gather(*(work() for _ in range(in_flight)))
    return {"start": start, "end": time.monotonic()}


async def serve_uvicorn(app: Any, config: dict[str, Any]) -> None:
    """Starts uvicorn in this event loop, and returns when it listens."""
    options: dict[str, Any] = {"host": "127.0.0.1", "port": config["port"], "backlog": 4096}
    # The receivers answer the pings of Engine.IO, and not those that uvicorn sends besides.
    options |= {"lifespan": "off", "log_level": "warning", "ws_ping_interval": None}
    server = uvicorn.Server(uvicorn.Config(app, **options, **config.get("uvicorn", {})))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if serving.done():
        raise RuntimeError(f"uvicorn ended: {serving.exception()!r}")


async def main(config: dict[str, Any]) -> None:
    if config.get("tuned"):
        tuning.collect_less()
    app = web.Application()
    contestant: Bare | Writer | SocketIO
    if config["kind"] == "bare":
        contestant = Bare(config, app)
    elif config["kind"] == "writer":
        contestant = Writer(config)
    else:
        contestant = SocketIO(config)
        if not contestant.asgi:
            contestant.sio.attach(app)
    if isinstance(contestant, SocketIO) and contestant.asgi:
        await serve_uvicorn(socketio.ASGIApp(contestant.sio), config)
    else:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", config["port"], backlog=4096).start()
    await contestant.prepare()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await lines.readline():
        command = json.loads(line)
        do = command.pop("do")
        answer: dict[str, Any] = {}
        if do == "emit":
            answer = await emit(contestant, **command)
        elif do == "blast" and isinstance(contestant, Bare):
            answer = await contestant.blast(**command)
        elif do == "outcomes" and isinstance(contestant, SocketIO):
            answer = dict(contestant.manager.outcomes)
        elif do == "gc":
            gc.collect()
        print(json.dumps(answer), flush=True)


def loop_factory(config: dict[str, Any]) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop that uvicorn would choose for itself; asyncio's own for the other contestants."""
    if "uvicorn" not in config["kind"]:
        return None
    return uvicorn.Config(None, **config.get("uvicorn", {})).get_loop_factory()  # type: ignore[arg-type]


if __name__ == "__main__":
    config = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
        runner.run(main(config))
