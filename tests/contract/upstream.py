"""Servers of python-socketio and python-engineio without a network, and a journal of what they call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import engineio
import socketio
from engineio import packet as eio_packet
from socketio import packet

from tests.support.waiting import until

#: The lines of ``aio/upstream/table.py`` that tests stand for.
COVERED: set[str] = set()
Test = TypeVar("Test", bound=Callable[..., Any])


def relies_on(*lines: str) -> Callable[[Test], Test]:
    """Says which lines of the table a test stands for: ``"socketio.AsyncServer._handle_connect"``, ..."""
    COVERED.update(lines)
    return lambda test: test


class CallJournal:
    """Notes calls, in their order. A method is replaced on the instance, by one that calls the original.

    That is how this library wraps, too. So a call that is not noted here is one that its hooks would miss.
    """

    def __init__(self) -> None:
        #: Name, arguments and keyword arguments of each call.
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def watch(self, owner: Any, *names: str) -> None:
        for name in names:
            setattr(owner, name, self._noting(name, getattr(owner, name)))

    def _noting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return original(*args, **kwargs)

        return noted

    @property
    def steps(self) -> list[str]:
        """The names of what was called, with the kind of packet or of event."""
        return [step(name, args, kwargs) for name, args, kwargs in self.calls]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of one name."""
        return [args for called, args, _ in self.calls if called == name]


def step(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if name == "_send_packet":
        return str(packet.packet_names[args[1].packet_type])
    if name == "_trigger_event":
        return f"{args[0]} handler"
    if name == "send":
        return str(eio_packet.packet_names[args[0].packet_type])
    return f"manager.{name}"


#: What python-socketio asks its manager for when clients connect and leave.
ASKED = (
    *("pre_connect", "connect", "pre_disconnect", "disconnect", "can_disconnect", "is_connected"),
    *("get_namespaces", "sid_from_eio_sid"),
)
#: Without the questions.
DONE = ("pre_connect", "connect", "pre_disconnect", "disconnect")


def server(**options: Any) -> Any:
    """A :class:`socketio.AsyncServer` for the fakes."""
    made = socketio.AsyncServer(async_mode="asgi", monitor_clients=False, **options)
    made.eio._async = {**made.eio._async, **DRIVER}
    return made


def journal_of(server: Any, asked: tuple[str, ...] = DONE) -> CallJournal:
    """Notes the packets and events of a server, and what it asks its manager."""
    journal = CallJournal()
    journal.watch(server, "_send_packet", "_trigger_event")
    journal.watch(server.manager, *asked)
    return journal


class WebSocket:
    """A WebSocket, as the drivers of python-engineio hand it to a socket's handler."""

    def __init__(self, handler: Callable[[Any], Any], server: Any) -> None:
        self.handler = handler
        self.server = server
        self.environ: dict[str, Any] = {}
        self.sent: list[str | bytes] = []
        self.closed = False
        #: How often the server has begun to read.
        self.reads = 0
        #: Cleared while the network takes nothing.
        self.free = asyncio.Event()
        self.free.set()
        self._incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    async def __call__(self, environ: dict[str, Any]) -> Any:
        self.environ = environ
        environ["websockets"].append(self)
        await self.handler(self)
        return "closed"

    async def send(self, data: str | bytes) -> None:
        await self.free.wait()
        self.sent.append(data)

    async def wait(self) -> str | bytes:
        self.reads += 1
        data = await self._incoming.get()
        if data is None:
            raise OSError
        return data

    async def close(self) -> None:
        self.closed = True
        self._incoming.put_nowait(None)

    # -- the client's side --------------------------------------------------------------------------

    def client_sends(self, *messages: str | bytes) -> None:
        for message in messages:
            self._incoming.put_nowait(message)

    def client_goes(self) -> None:
        self._incoming.put_nowait(None)

    async def received(self, message: str | bytes) -> None:
        """Waits until the server has sent a message."""
        await until(lambda: message in self.sent, lambda: f"{message!r} among {self.sent}")


def _response(status: str, headers: object, body: bytes, environ: object) -> tuple[str, bytes]:
    return status, body


DRIVER = {"websocket": WebSocket, "translate_request": lambda environ: environ, "make_response": _response}


class Body:
    """The body of a request."""

    def __init__(self, content: str) -> None:
        self.content = content.encode()

    async def read(self, length: int) -> bytes:
        return self.content[:length]


def environ(query: str, body: str | None = None, upgrade: bool = False) -> dict[str, Any]:
    """The environ of a request."""
    found: dict[str, Any] = {
        "REQUEST_METHOD": "GET" if body is None else "POST",
        "QUERY_STRING": query,
        "HTTP_USER_AGENT": "Mozilla/5.0 (contract)",
    }
    found["websockets"] = []
    if body is not None:
        found |= {"CONTENT_LENGTH": str(len(body.encode())), "wsgi.input": Body(body)}
    if upgrade:
        found |= {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}
    return found


class Client:
    """A client with a WebSocket: the whole way through ``handle_request``."""

    def __init__(self, server: Any, websocket: WebSocket, task: asyncio.Task[Any], socket: Any) -> None:
        self.server = server
        self.websocket = websocket
        self.task = task
        #: The Engine.IO socket.
        self.socket = socket

    async def send(self, *messages: str | bytes) -> None:
        self.websocket.client_sends(*messages)

    async def leave(self) -> None:
        """The client closes its transport; returns when the server is done with it."""
        self.websocket.client_goes()
        await self.task


def eio_of(server: Any) -> Any:
    """The Engine.IO server of a server."""
    return server if isinstance(server, engineio.AsyncServer) else server.eio


async def open_websocket(server: Any) -> Client:
    """Opens a transport that is a WebSocket from the beginning, and waits until the server reads from it."""
    eio = eio_of(server)
    before = set(eio.sockets)
    request = environ("EIO=4&transport=websocket", upgrade=True)
    task = asyncio.create_task(eio.handle_request(request))
    await until(lambda: task.done() or (request["websockets"] and request["websockets"][0].reads), "a WebSocket")
    if task.done():
        raise AssertionError(f"refused: {task.result()}")
    [transport] = set(eio.sockets) - before
    return Client(server, request["websockets"][0], task, eio.sockets[transport])


async def open_polling(server: Any) -> Any:
    """Opens a transport by polling; returns its Engine.IO socket."""
    eio = eio_of(server)
    before = set(eio.sockets)
    status, _ = await eio.handle_request(environ("EIO=4&transport=polling"))
    assert status == "200 OK"
    [transport] = set(eio.sockets) - before
    return eio.sockets[transport]


async def poll(server: Any, transport: str) -> str:
    """One request of a client that polls."""
    _, body = await eio_of(server).handle_request(environ(f"transport=polling&EIO=4&sid={transport}"))
    text: str = body.decode()
    return text


async def upgrade(server: Any, transport: str) -> tuple[WebSocket, asyncio.Task[Any]]:
    """A client that polls opens a WebSocket; the server waits for its probe."""
    request = environ(f"transport=websocket&EIO=4&sid={transport}", upgrade=True)
    task = asyncio.create_task(eio_of(server).handle_request(request))
    await until(lambda: task.done() or (request["websockets"] and request["websockets"][0].reads), "a WebSocket")
    return request["websockets"][0], task
