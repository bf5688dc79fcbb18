"""Flask-SocketIO's ``test_client()`` works with the manager, on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import flask_socketio
import pytest
from socketio_recovery import RedisStreamsManager, RedisUnavailable

from local.processes import die_with_parent
from local.redis_server import RedisServer


@pytest.fixture
def manager(redis_server: RedisServer, channel: str) -> Iterator[RedisStreamsManager]:
    manager = RedisStreamsManager(redis_server.url, channel=channel)
    yield manager
    manager.close()


def application(manager: RedisStreamsManager) -> tuple[flask.Flask, Any]:
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = "of tests"
    socketio = flask_socketio.SocketIO(app, client_manager=manager, async_mode="threading")

    @app.post("/login/<name>")
    def login(name: str) -> str:
        flask.session["user"] = name
        return ""

    @socketio.event
    def connect(auth: Any) -> bool:
        return bool(auth != "no")

    @socketio.event
    def say(text: str) -> str:
        flask_socketio.emit("said", f"{flask.session.get('user')}: {text}", to="all", include_self=True)
        flask.session["said"] = text
        return str(len(text))

    @socketio.event
    def join() -> list[Any]:
        flask_socketio.join_room("all")
        return sorted(flask_socketio.rooms())

    @socketio.event
    def file(data: bytes) -> None:
        flask_socketio.emit("file", {"data": data})

    @socketio.event
    def leave() -> None:
        flask_socketio.disconnect()

    return app, socketio


def test_it_emits_joins_and_reads_the_session(manager: RedisStreamsManager, caplog: pytest.LogCaptureFixture) -> None:
    app, socketio = application(manager)
    http = app.test_client()
    http.post("/login/ann")
    ann, bob = socketio.test_client(app, flask_test_client=http), socketio.test_client(app)
    assert ann.is_connected()
    assert bob.is_connected()
    for client in (ann, bob):
        assert "all" in client.emit("join", callback=True)
    assert ann.emit("say", "hello", callback=True) == "5"
    for client in (ann, bob):
        assert client.get_received() == [{"name": "said", "args": ["ann: hello"], "namespace": "/"}]
    ann.emit("file", b"\xff")
    assert ann.get_received() == [{"name": "file", "args": [{"data": b"\xff"}], "namespace": "/"}]
    socketio.emit("to all", 1)
    assert [event["name"] for event in bob.get_received()] == ["to all"]
    ann.disconnect()
    assert not ann.is_connected()
    bob.emit("leave")
    assert not bob.is_connected()
    assert not any(record.exc_info for record in caplog.records)


def test_an_event_whose_session_can_not_be_stored_is_not_answered(channel: str) -> None:
    server = RedisServer(preexec=die_with_parent)
    manager = RedisStreamsManager(server.url, channel=channel, handshake_timeout=3, publish_timeout=3)
    try:
        app, socketio = application(manager)
        client = socketio.test_client(app)
        socketio.on("set")(lambda value: flask.session.update(value=value))
        client.emit("set", 1)
        server.kill()
        client.emit("set", 1)  # it is stored already
        with pytest.raises(RedisUnavailable):
            client.emit("set", 2)
    finally:
        manager.close()
        server.stop()


def test_a_client_that_is_refused_is_not_connected(manager: RedisStreamsManager) -> None:
    app, socketio = application(manager)
    assert not socketio.test_client(app, auth="no").is_connected()
