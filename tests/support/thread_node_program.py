"""The program of a synchronous node under test: like :mod:`.node_program`, with threads or greenlets.

    python -m tests.support.thread_node_program '{"server_kind": "threading", ...}'

``"server_kind"`` is ``"threading"`` (werkzeug) or ``"gevent"`` (gevent's WSGI server, with a patched standard library).
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__" and json.loads(sys.argv[1])["server_kind"] == "gevent":
    from gevent import monkey

    monkey.patch_all()

import gc
import logging
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import socketio
from socketio_recovery import Participant, RedisStreamsManager

from .node_application import NAMESPACES, NoRecovery
from .node_control import from_json, shift_clock, to_json
from .observed import Observed


class PubSubManager(NoRecovery, socketio.RedisManager):  # type: ignore[misc]
    """python-socketio's own manager, of an old node."""

    def start(self) -> None:
        """It starts with the first client."""

    drain = close = start


def background_tasks(server_kind: str) -> list[str]:
    """The names of the functions that threads, or greenlets, run."""
    if server_kind != "gevent":
        return [thread.name.partition("(")[2].rstrip(")") for thread in threading.enumerate()]
    from gevent import Greenlet

    greenlets = [thing for thing in gc.get_objects() if isinstance(thing, Greenlet) and not thing.dead]
    return [getattr(greenlet._run, "__name__", "") for greenlet in greenlets]


def run(config: dict[str, Any]) -> None:
    """Runs a node until a signal ends it."""
    if "clock" in config:
        shift_clock(config["clock"])
    verbose = config.get("verbose", False)
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format=f"{config['node']} %(levelname)s %(name)s: %(message)s")
    observed = Observed(config)
    options = {**config.get("manager", {}), **observed.options}
    kind: Any = PubSubManager if config.get("pubsub") else RedisStreamsManager
    manager: RedisStreamsManager = kind(config["redis"], logger=logging.getLogger("recovery"), **options)
    sio = socketio.Server(
        async_mode=config["server_kind"],
        client_manager=manager,
        logger=logging.getLogger("socketio.test"),
        engineio_logger=logging.getLogger("engineio.test") if verbose else False,
        namespaces=config.get("namespaces", list(NAMESPACES)),
        cors_allowed_origins="*",
        **config.get("server", {}),
    )
    logging.getLogger("socketio.test").setLevel(logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    seen: list[dict[str, Any]] = []
    answers: list[list[Any]] = []

    def handlers(namespace: str) -> None:
        def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
            seen.append(
                {
                    "what": "connect",
                    "sid": sid,
                    "namespace": namespace,
                    "auth": auth,
                    "recovered": manager.recovered(sid, namespace),
                    "reason": manager.recovery_reason(sid, namespace),
                    "rooms": sio.rooms(sid, namespace),
                    "session": dict(sio.get_session(sid, namespace)),
                }
            )
            if isinstance(auth, dict):
                if auth.get("refuse") == "recovery" and manager.recovered(sid, namespace):
                    raise socketio.exceptions.ConnectionRefusedError("not again")
                if auth.get("refuse") == "all":
                    return False
                if "slow" in auth and manager.recovered(sid, namespace):
                    time.sleep(auth["slow"])
                if auth.get("raise"):
                    raise ValueError("the connect handler fails")
                if "enter" in auth and not manager.recovered(sid, namespace):
                    for room in auth["enter"]:
                        sio.enter_room(sid, room, namespace)
                    if "ask" in auth:
                        found = manager.participants(auth["ask"], namespace)
                        seen.append({"what": "asked", "sids": [participant.sid for participant in found]})
                    sio.save_session(sid, {"name": auth["name"]}, namespace)
                    reason = manager.recovery_reason(sid, namespace)
                    hello = (f"hello.{sid}", {"reason": reason, "node": config["node"]})
                    sio.emit("hello", hello, to=sid, namespace=namespace)
                if auth.get("greet"):
                    sio.enter_room(sid, "greeted", namespace)
                    sio.emit("greeting", "room", to="greeted", namespace=namespace)
                    sio.emit("greeting", "sid", to=sid, namespace=namespace)
                    sio.emit("greeting", "local", to=sid, namespace=namespace, ignore_queue=True)
                    manager.emit("greeting", "volatile", namespace, room=sid, volatile=True)
            return None

        def disconnect(sid: str, reason: str) -> None:
            entry: dict[str, Any] = {"what": "disconnect", "sid": sid, "namespace": namespace, "reason": reason}
            entry["session"] = dict(sio.get_session(sid, namespace))
            entry["rooms"] = sio.rooms(sid, namespace)
            seen.append(entry)
            time.sleep(config.get("slow_disconnect", 0))
            if config.get("raise_disconnect"):
                raise ValueError("the disconnect handler fails")

        def state(sid: str) -> dict[str, Any]:
            return {
                "node": config["node"],
                "sid": sid,
                "rooms": sorted(map(str, sio.rooms(sid, namespace))),
                "session": sio.get_session(sid, namespace),
                "recovered": manager.recovered(sid, namespace),
                "reason": manager.recovery_reason(sid, namespace),
            }

        def join(sid: str, room: Any) -> None:
            sio.enter_room(sid, room, namespace)

        def leave(sid: str, room: Any) -> None:
            sio.leave_room(sid, room, namespace)

        def save(sid: str, data: Any) -> None:
            sio.save_session(sid, data, namespace)

        def echo(sid: str, *args: Any) -> Any:
            return args

        def work(sid: str, task: Any, seconds: float) -> str:
            seen.append({"what": "work", "sid": sid, "namespace": namespace, "task": task})
            time.sleep(seconds)
            return f"{config['node']} did {task}"

        def script(sid: str, steps: list[list[Any]]) -> None:
            """Makes several calls in one handler, one after the other; "$me" stands for the client."""
            for method, args, kwargs in steps:
                args = [sid if a == "$me" else a for a in args]
                kwargs = {k: sid if v == "$me" else v for k, v in kwargs.items()}
                getattr(sio, method)(*args, **kwargs)

        for handler in (connect, disconnect, state, join, leave, save, echo, work, script):
            sio.on(handler.__name__, handler, namespace=namespace)

    for namespace in NAMESPACES:
        handlers(namespace)
    for room in config.get("watch", ()):

        @manager.on_participants(room)
        def changed(change: str, participant: Participant) -> None:
            seen.append({"what": change, "sid": participant.sid, "state": participant.state, "node": participant.node})

    def note(*args: Any) -> None:
        seen.append({"what": "server side", "args": args})

    def answer(who: str, seconds: float = 0) -> str:
        """Takes its time on the node ``who``, and fails there if that is no time."""
        note(who)
        if who == config["node"]:
            if not seconds:
                raise ValueError("it has no time")
            time.sleep(seconds)
        return f"{config['node']} got {who}"

    if not config.get("pubsub"):
        for handler in (note, answer):
            manager.on_server_side(handler.__name__, handler)
    if "instrument" in config:
        sio.instrument(**config["instrument"])

    def do(body: dict[str, Any]) -> list[dict[str, Any]]:
        """Makes the calls in the body: {"on": "sio" | "manager", "calls": [[method, args, kwargs], ...]}."""
        target = sio if body.get("on", "sio") == "sio" else manager
        results = []
        for method, args, kwargs in body["calls"]:
            args = [from_json(a) for a in args]
            if kwargs.get("callback") == "record":
                kwargs["callback"] = lambda *answer: answers.append(list(answer))
            try:
                result = getattr(target, method)
                if callable(result):
                    result = result(*args, **kwargs)
                results.append({"result": to_json(result)})
            except Exception as error:
                results.append({"error": f"{type(error).__name__}: {error}", "fate": getattr(error, "fate", None)})
        return results

    def control(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, status = environ["PATH_INFO"], "200 OK"
        found: Any = None
        if path == "/do":
            found = do(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        elif path == "/look":
            found = {
                "seen": seen,
                "answers": answers,
                "outcomes": manager.outcomes,
                "healthy": manager.healthy,
                "unhealthy": manager.unhealthy_reasons,
                "lag": manager.log_lag,
                **observed.look(),
                "tasks": background_tasks(config["server_kind"]),
            }
        elif path == "/readyz":
            status = "200 OK" if manager.healthy else "503 Service Unavailable"
        elif path == "/clock":
            shift_clock(float(parse_qs(environ["QUERY_STRING"])["shift"][0]))
            found = time.time()
        elif path == "/reset":
            seen.clear()
            answers.clear()
        else:
            status = "404 Not Found"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(found).encode()]

    app = socketio.WSGIApp(sio, control)
    if config["server_kind"] == "gevent":
        import gevent
        from gevent import pywsgi

        server: Any = pywsgi.WSGIServer(("127.0.0.1", config["port"]), app, log=None)
        stop_serving = server.stop
    else:
        from werkzeug.serving import make_server

        server = make_server("127.0.0.1", config["port"], app, threaded=True)
        server.daemon_threads = True
        stop_serving = server.shutdown

    def stop() -> None:
        manager.drain()
        manager.close()
        stop_serving()

    if config["server_kind"] == "gevent":
        gevent.signal_handler(signal.SIGTERM, stop)  # in a greenlet of its own: what waits can't run in the hub
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
    if config.get("start", True):
        manager.start()
    server.serve_forever()


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
