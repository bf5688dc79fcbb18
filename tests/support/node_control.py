"""How tests control a node and look into it: HTTP on a port of its own, whatever serves the node's clients.

``POST /do`` calls methods of the server or its manager, ``GET /look`` tells what the node has seen, ``POST /reset``
forgets that, ``POST /clock`` sets the clock wrong.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from .node_application import Application


class Control:
    """The control endpoints of a node. They are served by the event loop of the node."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.answers: list[list[Any]] = []
        app = web.Application()
        app.router.add_post("/do", self._do)
        app.router.add_get("/look", self._look)
        app.router.add_post("/clock", self._clock)
        app.router.add_post("/reset", self._reset)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.application.config["control"]).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _do(self, request: web.Request) -> web.Response:
        """Makes the calls in the body: {"on": "sio" | "manager", "calls": [[method, args, kwargs], ...]}."""
        body = await request.json()
        target = self.application.sio if body.get("on", "sio") == "sio" else self.application.manager
        results = []
        for method, args, kwargs in body["calls"]:
            args = [from_json(a) for a in args]
            if kwargs.get("callback") == "record":
                kwargs["callback"] = lambda *answer: self.answers.append(list(answer))
            try:
                result = getattr(target, method)
                if callable(result):
                    result = result(*args, **kwargs)
                if asyncio.iscoroutine(result):
                    result = await result
                results.append({"result": to_json(result)})
            except Exception as error:
                results.append({"error": f"{type(error).__name__}: {error}", "fate": getattr(error, "fate", None)})
        return web.json_response(results)

    async def _clock(self, request: web.Request) -> web.Response:
        shift_clock(float(request.query["shift"]))
        return web.json_response(time.time())

    async def _look(self, request: web.Request) -> web.Response:
        manager = self.application.manager
        return web.json_response(
            {
                "seen": self.application.seen,
                "answers": self.answers,
                "outcomes": manager.outcomes,
                "healthy": manager.healthy,
                "unhealthy": manager.unhealthy_reasons,
                "lag": manager.log_lag,
                **self.application.observed.look(),
                "tasks": [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()],
            }
        )

    async def _reset(self, request: web.Request) -> web.Response:
        """Forgets what the handlers have seen, for the next test that uses this node."""
        self.application.seen.clear()
        self.answers.clear()
        return web.Response()


def shift_clock(seconds: float) -> None:
    """Makes the wall clock of this process wrong by so many seconds. The monotonic clock stays right."""
    right = time.time
    time.time = lambda: right() + seconds


def from_json(value: Any) -> Any:
    """Converts JSON to Python values: {"bytes": "00ff"} stands for bytes, {"tuple": [...]} for a tuple."""
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    if isinstance(value, dict) and set(value) == {"tuple"}:
        return tuple(value["tuple"])
    return [from_json(v) for v in value] if isinstance(value, list) else value


def to_json(value: Any) -> Any:
    """Converts Python values to JSON; bytes become {"bytes": "00ff"}."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value
