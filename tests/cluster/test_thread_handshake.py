"""How clients of a synchronous server come and go: python-socketio takes the steps in the client's own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import socketio
from engineio.socket import Socket
from socketio_recovery import RedisStreamsManager

from local.redis_server import RedisServer

from ..support.waiting import PATIENCE


class Served:
    """A server, and the transports of its clients, which are told nothing.

    :param calls: how often the event loop was called.
    """

    def __init__(self, redis: RedisServer, channel: str) -> None:
        self.manager = RedisStreamsManager(redis.url, channel=channel, can_recover=lambda environ: True)
        self.sio = socketio.Server(async_mode="threading", client_manager=self.manager, namespaces="*")
        self.ran: list[Any] = []
        self.manager.start()
        self.calls = 0
        bridge = self.manager._bridge
        post = bridge._post

        def counted(*arguments: Any) -> None:
            self.calls += 1
            post(*arguments)

        bridge._post = counted  # type: ignore[assignment, method-assign]

    def open(self, transport: str) -> Socket:
        """A transport opens."""
        socket = Socket(self.sio.eio, transport)
        self.sio.eio.sockets[transport] = socket
        self.sio._handle_eio_connect(transport, {"PATH_INFO": "/socket.io/"})
        self.calls = 0
        return socket

    def handler(self, event: str, namespace: str = "/", does: Callable[[str], Any] = lambda sid: None) -> None:
        """Adds a handler that notes its thread."""

        def handle(sid: str, *_: Any) -> Any:
            self.ran.append((event, namespace, threading.current_thread()))
            return does(sid)

        self.sio.on(event, handle, namespace)

    @property
    def connections(self) -> list[Any]:
        node = self.manager._core.node
        assert node is not None
        return list(node.connections)


@pytest.fixture
def served(redis_server: RedisServer, channel: str) -> Iterator[Served]:
    served = Served(redis_server, channel)
    yield served
    served.manager.close()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_handshake_calls_the_event_loop_twice_and_its_handler_runs_in_this_thread(served: Served) -> None:
    served.handler("connect")
    socket = served.open("t1")
    served.sio._handle_connect("t1", "/", None)
    assert served.ran == [("connect", "/", threading.current_thread())]
    assert '"pid":' in socket.queue.get(timeout=PATIENCE).encode()
    assert served.calls == 2  # a session is made; the client has its CONNECT
    (connection,) = served.connections
    assert (connection.state.value, connection.hold.value, connection.flow.value) == ("connected", "accepted", "live")


def test_rooms_that_its_handler_enters_are_stored_before_the_client_is_accepted(served: Served) -> None:
    served.handler("connect", does=lambda sid: served.sio.enter_room(sid, "r"))
    served.open("t1")
    served.sio._handle_connect("t1", "/", None)
    (connection,) = served.connections
    assert list(connection.rooms) == ["r"]
    assert served.calls == 4  # the room is entered; it is stored


def test_a_handler_that_refuses_its_client_leaves_nothing(served: Served) -> None:
    served.handler("connect", does=lambda sid: False)
    socket = served.open("t1")
    served.sio._handle_connect("t1", "/", None)
    assert socket.queue.get(timeout=PATIENCE).encode().startswith("44")  # CONNECT_ERROR
    assert served.connections == []


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_if_its_handler_raises_or_its_thread_is_told_to_end_the_client_is_to_try_again(
    served: Served, error: type[BaseException]
) -> None:
    def fails(sid: str) -> None:
        raise error("told")

    served.handler("connect", does=fails)
    socket = served.open("t1")
    with pytest.raises(error, match="told"):
        served.sio._handle_connect("t1", "/", None)
    until(lambda: socket.closed and not served.connections and "t1" not in served.sio.eio.sockets)


def test_a_client_whose_transport_is_lost_in_its_handshake_is_seen_off_when_that_is_over(served: Served) -> None:
    socket = None

    def lost(sid: str) -> None:
        assert socket is not None
        socket.close(wait=False, abort=True)  # tells the server
        assert served.ran == [("connect", "/", threading.current_thread())]

    served.handler("connect", does=lost)
    served.handler("disconnect")
    socket = served.open("t1")
    served.sio._handle_connect("t1", "/", None)
    assert [event for event, *_ in served.ran] == ["connect", "disconnect"]
    assert served.connections == []


def test_a_lost_transport_runs_all_handlers_in_this_thread_whatever_one_of_them_raises(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(sid: str) -> None:
        raise ValueError("a mistake of the application")

    for namespace in "/a", "/b":
        served.handler("disconnect", namespace, fails if namespace == "/a" else lambda sid: None)
    served.open("t1")
    for namespace in "/a", "/b":
        served.sio._handle_connect("t1", namespace, None)
    served.calls = 0
    served.sio._handle_eio_disconnect("t1", "transport close")
    here = threading.current_thread()
    assert served.ran == [("disconnect", "/a", here), ("disconnect", "/b", here)]
    assert served.connections == []
    assert served.calls == 5  # who is to be seen off; for each: it is about to leave, it has left
    assert "disconnect handler error in namespace /a" in caplog.text
