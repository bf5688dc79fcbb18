"""The program of a node under test: a real server, which tests control by HTTP.

    python -m tests.support.node_program '{"port": ..., "redis": ..., "node": "a", "manager": {...}, "server": {...}}'

``"verbose": true`` logs everything, including what python-socketio and python-engineio log.
``"instrument": {...}`` calls ``sio.instrument()`` with these arguments, for the Socket.IO Admin UI.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import socketio
from aiohttp import web
from socketio_recovery import AsyncRedisStreamsManager

NAMESPACES = ("/", "/other")


def shift_clock(seconds: float) -> None:
    """Makes the wall clock of this process wrong by so many seconds. The monotonic clock stays right."""
    right = time.time
    time.time = lambda: right() + seconds


def main() -> None:
    config = json.loads(sys.argv[1])
    if "clock" in config:
        shift_clock(config["clock"])
    verbose = config.get("verbose", False)
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format=f"{config['node']} %(levelname)s %(name)s: %(message)s")
    manager = AsyncRedisStreamsManager(
        config["redis"], logger=logging.getLogger("recovery"), **config.get("manager", {})
    )
    sio = socketio.AsyncServer(
        async_mode="aiohttp",
        client_manager=manager,
        logger=logging.getLogger("socketio.test"),
        engineio_logger=logging.getLogger("engineio.test") if verbose else False,
        namespaces=config.get("namespaces", list(NAMESPACES)),
        cors_allowed_origins="*",
        **config.get("server", {}),
    )
    logging.getLogger("socketio.test").setLevel(logging.DEBUG if verbose else logging.WARNING)
    seen: list[dict[str, Any]] = []
    answers: list[list[Any]] = []

    def handlers(namespace: str) -> None:
        async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
            seen.append(
                {
                    "what": "connect",
                    "sid": sid,
                    "namespace": namespace,
                    "auth": auth,
                    "recovered": manager.recovered(sid, namespace),
                    "reason": manager.recovery_reason(sid, namespace),
                    "rooms": sio.rooms(sid, namespace),
                    "session": dict(await sio.get_session(sid, namespace)),
                }
            )
            if isinstance(auth, dict):
                if auth.get("refuse") == "recovery" and manager.recovered(sid, namespace):
                    raise socketio.exceptions.ConnectionRefusedError("not again")
                if auth.get("refuse") == "all":
                    return False
                if "slow" in auth and manager.recovered(sid, namespace):
                    await asyncio.sleep(auth["slow"])
                if auth.get("raise"):
                    raise ValueError("the connect handler fails")
                if "enter" in auth and not manager.recovered(sid, namespace):
                    for room in auth["enter"]:
                        await sio.enter_room(sid, room, namespace)
                    await sio.save_session(sid, {"name": auth["name"]}, namespace)
                    reason = manager.recovery_reason(sid, namespace)
                    hello = (f"hello.{sid}", {"reason": reason, "node": config["node"]})
                    await sio.emit("hello", hello, to=sid, namespace=namespace)
                if auth.get("greet"):
                    await sio.enter_room(sid, "greeted", namespace)
                    await sio.emit("greeting", "room", to="greeted", namespace=namespace)
                    await sio.emit("greeting", "sid", to=sid, namespace=namespace)
                    await sio.emit("greeting", "local", to=sid, namespace=namespace, ignore_queue=True)
                    await manager.emit("greeting", "volatile", namespace, room=sid, volatile=True)
            return None

        async def disconnect(sid: str, reason: str) -> None:
            entry: dict[str, Any] = {"what": "disconnect", "sid": sid, "namespace": namespace, "reason": reason}
            entry["session"] = dict(await sio.get_session(sid, namespace))
            entry["rooms"] = sio.rooms(sid, namespace)
            seen.append(entry)
            await asyncio.sleep(config.get("slow_disconnect", 0))
            if config.get("raise_disconnect"):
                raise ValueError("the disconnect handler fails")

        async def state(sid: str) -> dict[str, Any]:
            return {
                "node": config["node"],
                "sid": sid,
                "rooms": sorted(map(str, sio.rooms(sid, namespace))),
                "session": await sio.get_session(sid, namespace),
                "recovered": manager.recovered(sid, namespace),
                "reason": manager.recovery_reason(sid, namespace),
            }

        async def join(sid: str, room: Any) -> None:
            await sio.enter_room(sid, room, namespace)

        async def leave(sid: str, room: Any) -> None:
            await sio.leave_room(sid, room, namespace)

        async def save(sid: str, data: Any) -> None:
            await sio.save_session(sid, data, namespace)

        async def echo(sid: str, *args: Any) -> Any:
            return args

        async def work(sid: str, task: Any, seconds: float) -> str:
            seen.append({"what": "work", "sid": sid, "namespace": namespace, "task": task})
            await asyncio.sleep(seconds)
            return f"{config['node']} did {task}"

        async def script(sid: str, steps: list[list[Any]]) -> None:
            """Makes several calls in one handler, one after the other; "$me" stands for the client."""
            for method, args, kwargs in steps:
                args = [sid if a == "$me" else a for a in args]
                kwargs = {k: sid if v == "$me" else v for k, v in kwargs.items()}
                await getattr(sio, method)(*args, **kwargs)

        for handler in (connect, disconnect, state, join, leave, save, echo, work, script):
            sio.on(handler.__name__, handler, namespace=namespace)

    for namespace in NAMESPACES:
        handlers(namespace)
    if "instrument" in config:
        sio.instrument(**config["instrument"])

    async def do(request: web.Request) -> web.Response:
        """Makes the calls in the body: {"on": "sio" | "manager", "calls": [[method, args, kwargs], ...]}."""
        body = await request.json()
        target = sio if body.get("on", "sio") == "sio" else manager
        results = []
        for method, args, kwargs in body["calls"]:
            args = [_bytes(a) for a in args]
            if kwargs.get("callback") == "record":
                kwargs["callback"] = lambda *answer: answers.append(list(answer))
            try:
                result = getattr(target, method)
                if callable(result):
                    result = result(*args, **kwargs)
                if asyncio.iscoroutine(result):
                    result = await result
                results.append({"result": _plain(result)})
            except Exception as error:
                results.append({"error": f"{type(error).__name__}: {error}", "fate": getattr(error, "fate", None)})
        return web.json_response(results)

    async def clock(request: web.Request) -> web.Response:
        shift_clock(float(request.query["shift"]))
        return web.json_response(time.time())

    async def look(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "seen": seen,
                "answers": answers,
                "outcomes": manager.outcomes,
                "healthy": manager.healthy,
                "tasks": [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()],
            }
        )

    async def ready(request: web.Request) -> web.Response:
        return web.Response(status=200 if manager.healthy else 503)

    async def reset(request: web.Request) -> web.Response:
        """Forgets what the handlers have seen, for the next test that uses this node."""
        seen.clear()
        answers.clear()
        return web.Response()

    async def stop(app: web.Application) -> None:
        await manager.drain()
        await manager.close()

    app = web.Application()
    sio.attach(app)
    app.router.add_post("/do", do)
    app.router.add_get("/look", look)
    app.router.add_get("/readyz", ready)
    app.router.add_post("/clock", clock)
    app.router.add_post("/reset", reset)
    app.on_shutdown.append(stop)
    if config.get("start", True):

        async def start(app: web.Application) -> None:
            await manager.start()

        app.on_startup.append(start)
    web.run_app(app, host="127.0.0.1", port=config["port"], print=None, handle_signals=True, shutdown_timeout=1)


def _bytes(value: Any) -> Any:
    """Converts JSON to Python values: {"bytes": "00ff"} stands for bytes, {"tuple": [...]} for a tuple."""
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    if isinstance(value, dict) and set(value) == {"tuple"}:
        return tuple(value["tuple"])
    return [_bytes(v) for v in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Converts Python values to JSON; bytes become {"bytes": "00ff"}."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


if __name__ == "__main__":
    main()
