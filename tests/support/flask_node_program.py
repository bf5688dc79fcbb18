"""The program of a node of Flask-SocketIO under test.

    python -m tests.support.flask_node_program '{"server_kind": "flask-threading", ...}'

``"server_kind"`` is ``"flask-threading"`` or ``"flask-gevent"``, and ``"socketio"`` has options of
``flask_socketio.SocketIO``.
"""

from __future__ import annotations

import json
import sys

if json.loads(sys.argv[1])["server_kind"] == "flask-gevent":
    from gevent import monkey

    monkey.patch_all()

import datetime
import logging
import os
import signal
import threading
import time
from typing import Any

import flask
import flask_socketio
from socketio_recovery import RedisStreamsManager

MODE = json.loads(sys.argv[1])["server_kind"].removeprefix("flask-")
NAMESPACES = ("/", "/other")


class Events(flask_socketio.Namespace):  # type: ignore[misc]
    """The handlers of a namespace that is a class."""

    def on_disconnect(self, reason: str) -> None:
        SEEN.append({"what": "disconnect", "namespace": "/class", "session": dict(flask.session), "reason": reason})

    def on_set(self, key: str, value: Any) -> None:
        flask.session[key] = value


SEEN: list[dict[str, Any]] = []


def main() -> None:
    config = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format=f"{config['node']} %(levelname)s %(name)s: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    manager = RedisStreamsManager(config["redis"], logger=logging.getLogger("recovery"), **config.get("manager", {}))
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = "of tests"
    options = {"client_manager": manager, "async_mode": MODE, "cors_allowed_origins": "*", **config.get("socketio", {})}
    socketio = flask_socketio.SocketIO() if config.get("factory") else flask_socketio.SocketIO(app, **options)

    def handlers(namespace: str) -> None:
        def entry(what: str, **more: Any) -> dict[str, Any]:
            return {
                "what": what,
                "namespace": namespace,
                "sid": flask.request.sid,  # type: ignore[attr-defined]
                "rooms": sorted(flask_socketio.rooms()),
                "session": dict(flask.session),
                **more,
            }

        def recovered() -> bool:
            return manager.recovered(flask.request.sid, namespace)  # type: ignore[attr-defined]

        def connect(auth: Any = None) -> Any:
            SEEN.append(entry("connect", recovered=recovered()))
            auth = auth or {}
            if "session" in auth and not recovered():
                flask.session.update(auth["session"])
            if recovered() and auth.get("refuse") == "recovery":
                flask.session["refused"] = True
                return False
            if recovered() and "slow" in auth:
                time.sleep(auth["slow"])
            return None

        def disconnect(reason: str) -> None:
            flask.session["left"] = True
            SEEN.append(entry("disconnect", reason=reason, cookie=cookie()))

        def state() -> dict[str, Any]:
            return entry("state", node=config["node"], recovered=recovered())

        def set_(key: str, value: Any) -> dict[str, Any]:
            flask.session[key] = value
            return dict(flask.session)

        def pop(key: str) -> None:
            flask.session.pop(key)

        def fail(key: str, value: Any) -> None:
            flask.session[key] = value
            raise ValueError("the handler fails")

        def odd() -> str:
            flask.flash("a message")  # a tuple
            flask.session["when"] = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
            flask.session["bytes"] = b"\xff"
            flask.session["object"] = {"deep": [object()]}
            return "done"

        def odd_state() -> list[str]:
            return sorted(map(repr, flask.session.items()))

        def join(room: str) -> None:
            flask_socketio.join_room(room)

        def cookie() -> Any:
            return flask.request.cookies.get("name")

        for handler in (connect, disconnect, state, pop, fail, odd, odd_state, join, cookie):
            socketio.on(handler.__name__, namespace=namespace)(handler)
        socketio.on("set", namespace=namespace)(set_)

    for namespace in NAMESPACES:
        handlers(namespace)
    socketio.on_namespace(Events("/class"))
    if config.get("factory"):
        socketio.init_app(app, **options)

    @app.post("/do")
    def do() -> Any:
        body = flask.request.get_json()
        target = socketio.server if body.get("on", "sio") == "sio" else manager
        found = []
        for method, args, kwargs in body["calls"]:
            result = getattr(target, method)
            found.append({"result": result(*args, **kwargs) if callable(result) else result})
        return json.dumps(found, default=list), {"Content-Type": "application/json"}

    @app.get("/look")
    def look() -> Any:
        return flask.jsonify(seen=SEEN, outcomes=manager.outcomes, healthy=manager.healthy)

    @app.post("/reset")
    def reset() -> str:
        SEEN.clear()
        return ""

    def stop() -> None:
        manager.drain()
        manager.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
    manager.start()
    more = {"allow_unsafe_werkzeug": True} if MODE == "threading" else {}
    socketio.run(app, port=config["port"], **more)


if __name__ == "__main__":
    main()
