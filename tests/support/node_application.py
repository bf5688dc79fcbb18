"""The application of a node under test: its handlers, and a record of what they have seen."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import socketio
from socketio_recovery import AsyncRedisStreamsManager, Participant

from .observed import Observed

NAMESPACES = ("/", "/other")


class NoRecovery:
    """What the programs of nodes ask their managers, for those of python-socketio."""

    healthy = True
    unhealthy_reasons: ClassVar[list[str]] = []
    log_lag = 0.0
    outcomes: ClassVar[dict[str, int]] = {}

    def recovered(self, sid: str, namespace: str) -> bool:
        return False

    def recovery_reason(self, sid: str, namespace: str) -> None:
        return None


class PubSubManager(NoRecovery, socketio.AsyncRedisManager):  # type: ignore[misc]
    """python-socketio's own manager, of an old node."""

    async def start(self) -> None:
        """It starts with the first client."""

    drain = close = start


class Application:
    """A server and its manager, with handlers for everything that tests make clients do.

    :param config: the configuration of the node's program; see :mod:`.node_program`.
    :param async_mode: python-socketio's name for what serves it.
    """

    def __init__(self, config: dict[str, Any], async_mode: str) -> None:
        self.config = config
        self.name: str = config["node"]
        verbose = config.get("verbose", False)
        self.observed = Observed(config)
        options = {**config.get("manager", {}), **self.observed.options}
        kind: Any = PubSubManager if config.get("pubsub") else AsyncRedisStreamsManager
        self.manager: AsyncRedisStreamsManager = kind(config["redis"], logger=logging.getLogger("recovery"), **options)
        logger = logging.getLogger("socketio.test")
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
        self.sio = socketio.AsyncServer(
            async_mode=async_mode,
            client_manager=self.manager,
            logger=logger,
            engineio_logger=logging.getLogger("engineio.test") if verbose else False,
            namespaces=config.get("namespaces", list(NAMESPACES)),
            cors_allowed_origins="*",
            **config.get("server", {}),
        )
        #: What handlers have seen, oldest first.
        self.seen: list[dict[str, Any]] = []
        for namespace in NAMESPACES:
            self._add_handlers(namespace)
        for room in config.get("watch", ()):
            self.manager.on_participants(room, observer=self._changed)
        if not config.get("pubsub"):
            self._add_server_side_handlers()
        if "instrument" in config:
            self.sio.instrument(**config["instrument"])

    async def start(self) -> None:
        """Follows the log, unless the configuration says ``"start": false``."""
        if self.config.get("start", True):
            await self.manager.start()

    async def stop(self) -> None:
        """Sends the clients elsewhere, and ends."""
        await self.manager.drain()
        await self.manager.close()

    async def _changed(self, change: str, participant: Participant) -> None:
        await asyncio.sleep(0)
        self.seen.append({"what": change, "sid": participant.sid, "state": participant.state, "node": participant.node})

    def _add_server_side_handlers(self) -> None:
        @self.manager.on_server_side("note")
        def note(*args: Any) -> None:
            self.seen.append({"what": "server side", "args": args})

        @self.manager.on_server_side("answer")
        async def answer(who: str, seconds: float = 0) -> str:
            """Takes its time on the node ``who``, and fails there if that is no time."""
            note(who)
            if who == self.name:
                if not seconds:
                    raise ValueError("it has no time")
                await asyncio.sleep(seconds)
            return f"{self.name} got {who}"

    def _add_handlers(self, namespace: str) -> None:
        sio, manager, config, seen = self.sio, self.manager, self.config, self.seen

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
                    if "ask" in auth:
                        found = await manager.participants(auth["ask"], namespace)
                        seen.append({"what": "asked", "sids": [participant.sid for participant in found]})
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
