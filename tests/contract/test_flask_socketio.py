"""What is relied on of Flask-SocketIO, and of Flask, one test for each fact: ``threads/upstream/flask_socketio.py``."""

from __future__ import annotations

from typing import Any

import flask
import flask_socketio
import pytest
import socketio
from flask.json.tag import TaggedJSONSerializer
from flask.testing import EnvironBuilder


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = "of tests"
    return app


def served(app: flask.Flask, environ: dict[str, Any] | None, **options: Any) -> tuple[Any, list[Any]]:
    """A ``SocketIO`` whose server has an environ for each client, and the questions that it is asked."""
    asked: list[Any] = []

    def get_environ(sid: str, namespace: str | None = None) -> Any:
        asked.append((sid, namespace))
        return environ

    extension = flask_socketio.SocketIO(app, async_mode="threading", **options)
    extension.server.get_environ = get_environ
    return extension, asked


def environ_of(app: flask.Flask, **more: Any) -> dict[str, Any]:
    return {**EnvironBuilder(app, "/socket.io/").get_environ(), "flask.app": app, **more}


def test_a_handler_has_the_environ_that_the_server_gives(app: flask.Flask) -> None:
    environ = environ_of(app)
    extension, asked = served(app, environ)
    extension.on("e", namespace="/n")(lambda: flask.request.environ is environ)
    assert extension.server._trigger_event("e", "/n", "s1") is True
    assert asked == [("s1", "/n")]


@pytest.mark.parametrize("event", ["disconnect", "e"])
def test_without_one_it_does_not_run(app: flask.Flask, event: str) -> None:
    extension, _ = served(app, None)
    ran: list[Any] = []
    extension.on(event)(lambda *arguments: ran.append(arguments))
    assert extension.server._trigger_event(event, "/", "s1", "reason") == ("", 400)
    assert ran == []


def test_the_environ_of_a_request_has_the_application(app: flask.Flask) -> None:
    extension, _ = served(app, None)
    seen: list[Any] = []

    def handle_request(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["flask.app"])
        return []

    extension.server.handle_request = handle_request
    wsgi_app: Any = app.wsgi_app
    wsgi_app(EnvironBuilder(app, "/socket.io/").get_environ(), None)
    assert seen == [app]


def test_its_session_is_a_copy_that_it_keeps_in_the_environ(app: flask.Flask) -> None:
    environ = environ_of(app)
    extension, _ = served(app, environ)

    @extension.on("e")
    def handler() -> Any:
        flask.session["n"] = flask.session.get("n", 0) + 1
        return flask.session["n"]

    assert [extension.server._trigger_event("e", "/", "s1") for _ in range(2)] == [1, 2]
    assert type(environ["saved_session"]) is flask_socketio._ManagedSession
    assert environ["saved_session"] == {"n": 2}


def test_it_goes_on_with_a_session_that_is_there(app: flask.Flask) -> None:
    session = flask_socketio._ManagedSession({"user": "ann"})
    extension, _ = served(app, environ_of(app, saved_session=session))

    @extension.on("e")
    def handler() -> None:
        flask.session["more"] = flask.session["user"]

    extension.server._trigger_event("e", "/", "s1")
    assert session == {"user": "ann", "more": "ann"}


def test_without_managed_sessions_the_environ_has_none(app: flask.Flask) -> None:
    environ = environ_of(app)
    extension, _ = served(app, environ, manage_session=False)
    extension.on("e")(lambda: flask.session.get("user"))
    extension.server._trigger_event("e", "/", "s1")
    assert "saved_session" not in environ


@pytest.mark.parametrize("how", ["on", "event", "on_event", "namespace"])
@pytest.mark.parametrize("late", [False, True])
def test_the_application_is_found_from_its_handlers(app: flask.Flask, how: str, late: bool) -> None:
    from inspect import getclosurevars

    extension = flask_socketio.SocketIO() if late else flask_socketio.SocketIO(app, async_mode="threading")

    def handler() -> None: ...

    if how == "on":
        extension.on("handler")(handler)
    elif how == "event":
        extension.event(handler)
    elif how == "on_event":
        extension.on_event("handler", handler)
    else:
        extension.on_namespace(flask_socketio.Namespace("/n"))
    if late:
        extension.init_app(app, async_mode="threading")
    if how == "namespace":
        assert extension.server.namespace_handlers["/n"].socketio is extension
    else:
        assert getclosurevars(extension.server.handlers["/"]["handler"]).nonlocals["self"] is extension
    assert isinstance(extension, flask_socketio.SocketIO)
    assert extension.sockio_mw.flask_app is app


def test_a_client_manager_is_preferred_to_a_message_queue(app: flask.Flask) -> None:
    manager = socketio.Manager()
    extension = flask_socketio.SocketIO(app, client_manager=manager, message_queue="redis://nowhere")
    assert extension.server.manager is manager


def test_its_test_client_is_known_by_its_transport_before_it_connects(app: flask.Flask) -> None:
    extension = flask_socketio.SocketIO(app, async_mode="threading")
    opened: list[Any] = []
    handle = extension.server._handle_eio_connect

    def opens(transport: str, environ: dict[str, Any]) -> Any:
        opened.append(flask_socketio.SocketIOTestClient.clients[transport])
        return handle(transport, environ)

    extension.server._handle_eio_connect = opens
    client = extension.test_client(app)
    assert opened == [client]


def test_its_test_client_takes_packets_as_the_engineio_server_would(app: flask.Flask) -> None:
    from engineio.packet import MESSAGE, Packet

    extension = flask_socketio.SocketIO(app, async_mode="threading")
    client = extension.test_client(app)
    extension.server._send_eio_packet(client.eio_sid, Packet(MESSAGE, '2["e",1]'))
    assert client.get_received() == [{"name": "e", "args": [1], "namespace": "/"}]


def test_flask_has_the_serializer_of_its_cookies(app: flask.Flask) -> None:
    serializer = app.session_interface.serializer  # type: ignore[attr-defined]
    assert isinstance(serializer, TaggedJSONSerializer)
    value = {"_flashes": [("message", "text")], "b": b"\xff"}
    assert serializer.loads(serializer.dumps(value)) == value
