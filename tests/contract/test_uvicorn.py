"""uvicorn's WebSocket implementations: how the fast path gets at the TCP transport, and when it may write to it.

``aio/upstream/asgi_transport.py`` is built on this. A new release of uvicorn, websockets or wsproto that does one of
these things in another way fails here.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
import struct
import sys
import warnings
from asyncio import selector_events, sslproto
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import engineio
import pytest
from engineio.async_drivers import asgi as driver
from socketio_recovery.aio.upstream.asgi_transport import Wire, wire
from socketio_recovery.aio.upstream.table import (
    ASGI_ATTRIBUTES,
    ASGI_PROTOCOLS,
    TRANSPORT_METHODS,
    AsgiProtocol,
)
from socketio_recovery.packets import Message

from tests.support.waiting import until

from .upstream import relies_on

uvicorn = pytest.importorskip("uvicorn")
from uvicorn.server import ServerState  # noqa: E402

#: One of the implementations is deprecated, as is what it is built on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n"
    b"connection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n"


def lines(*names: str) -> list[str]:
    """The lines of the table, for all implementations, that have these names or are these attributes."""
    return [
        f"uvicorn.{known.name}.{getattr(known, name, name)}" for known in ASGI_PROTOCOLS for name in names or ("send",)
    ]


class Tcp(asyncio.Transport):
    """A TCP transport that notes what is written."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def can_write_eof(self) -> bool:
        return False


def frame(opcode: int, payload: bytes) -> bytes:
    """A frame of a client: masked, by zeros."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


class Served:
    """A WebSocket of python-engineio's ASGI driver on one of uvicorn's implementations, without a network."""

    def __init__(self, known: AsgiProtocol, around: Callable[[Any], Any] = lambda send: send, **options: Any) -> None:
        self.around = around
        config = uvicorn.Config(self.application, interface="asgi3", lifespan="off", log_config=None, **options)
        config.load()
        self.protocol = implementation(known)(config=config, server_state=ServerState(), app_state={})
        self.tcp = Tcp(self.protocol)
        self.protocol.connection_made(self.tcp)
        self.websocket: Any = None
        self.wire: Wire | None = None
        self.ended = asyncio.Event()

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        environ = await driver.translate_request(scope, receive, self.around(send))
        self.websocket = driver.WebSocket(self.handler, None)
        await self.websocket(environ)

    async def handler(self, websocket: Any) -> None:
        self.wire = wire(websocket)
        try:
            while True:
                await websocket.wait()
        except OSError:
            self.ended.set()

    async def open(self, headers: bytes = b"") -> Served:
        """The client's handshake; returns when the server has answered it."""
        self.protocol.data_received(HANDSHAKE + headers + b"\r\n")
        await until(lambda: b"HTTP/1.1 101" in b"".join(self.tcp.written), "an answer")
        for _ in range(10):
            await asyncio.sleep(0)
        self.tcp.written.clear()
        return self

    def may_write(self) -> bool:
        """As the send queue asks."""
        assert self.wire is not None
        return not self.wire.tcp.is_closing() and self.wire.is_open()


def implementation(known: AsgiProtocol) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of them is deprecated
        try:
            return getattr(importlib.import_module(known.module), known.name)
        except ImportError as error:
            pytest.skip(f"not here: {error}")


@pytest.fixture(params=ASGI_PROTOCOLS, ids=lambda known: known.name)
def known(request: pytest.FixtureRequest) -> AsgiProtocol:
    found: AsgiProtocol = request.param
    implementation(found)
    return found


@pytest.fixture
async def serve(known: AsgiProtocol) -> AsyncIterator[Callable[..., Served]]:
    served: list[Served] = []

    def make(**options: Any) -> Served:
        served.append(Served(known, **options))
        return served[-1]

    yield make
    for one in served:
        one.tcp.close()
    for one in served:
        await until(one.ended.is_set, "the end")
    for _ in range(10):
        await asyncio.sleep(0)


Serve = Callable[..., Served]


# -- the driver ----------------------------------------------------------------------------------------


def test_the_driver_is_the_one_of_async_mode_asgi() -> None:
    eio = engineio.AsyncServer(async_mode="asgi", monitor_clients=False)
    assert eio._async["websocket"] is driver.WebSocket


async def test_the_driver_has_send_as_the_server_gave_it_and_calls_it_once_for_each_message() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def handler(websocket: Any) -> None:
        assert websocket.asgi_send is send
        assert [message["type"] for message in sent] == ["websocket.accept"]
        for data in ("4text", b"data"):
            sending = websocket.send(data)
            with pytest.raises(StopIteration):
                sending.send(None)

    await driver.WebSocket(handler, None)({"asgi.receive": None, "asgi.send": send})
    assert [(message.get("text"), message.get("bytes")) for message in sent[1:]] == [("4text", None), (None, b"data")]


# -- the TCP transport ---------------------------------------------------------------------------------


@relies_on(*lines("send", *ASGI_ATTRIBUTES))
async def test_send_is_a_method_of_the_object_that_has_the_tcp_transport(serve: Serve, known: AsgiProtocol) -> None:
    served = await serve().open()
    send = served.websocket.asgi_send
    assert send.__self__ is served.protocol
    assert send.__func__ is vars(type(served.protocol))[known.send]
    assert served.wire is not None
    assert served.wire.tcp is served.tcp


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 70_000, 200_000])
@pytest.mark.parametrize("kind", ["x", "ö", b"\0"])
@relies_on(*lines("send"))
async def test_a_message_is_one_frame_in_one_write_and_send_does_not_pause(
    serve: Serve, kind: str | bytes, size: int
) -> None:
    """So a frame that the fast path writes comes into the middle of none, and behind all that were sent."""
    served = await serve().open()
    message = Message(kind * size)
    sending = served.websocket.send(message.encode())
    with pytest.raises(StopIteration):
        sending.send(None)
    assert served.tcp.written == [message.frame]


@relies_on(*lines("send"))
async def test_while_the_network_takes_nothing_send_waits_after_at_most_one_message(serve: Serve) -> None:
    """Then python-engineio's writer does not wait for the queue, and everything is queued."""
    served = await serve().open()
    served.protocol.pause_writing()

    async def writer() -> None:
        for text in "123":
            await served.websocket.send(text)

    task = asyncio.create_task(writer())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    assert len(served.tcp.written) <= 1
    served.protocol.resume_writing()
    await task
    assert served.tcp.written == [b"\x81\x011", b"\x81\x012", b"\x81\x013"]


@pytest.mark.parametrize(
    ("headers", "options", "compresses"),
    [(b"", {}, False), (DEFLATE, {}, True), (DEFLATE, {"ws_per_message_deflate": False}, False)],
)
@relies_on(*lines("extensions"))
async def test_there_are_extensions_if_the_client_offers_to_compress_and_it_is_not_switched_off(
    serve: Serve, headers: bytes, options: dict[str, Any], compresses: bool
) -> None:
    served = await serve(**options).open(headers)
    assert served.wire is not None
    assert served.wire.compresses() is compresses
    await served.websocket.send("x" * 100)
    [written] = served.tcp.written
    assert (written == b"\x81\x64" + b"x" * 100) is not compresses


# -- when it may be written to -------------------------------------------------------------------------


@relies_on(*lines("state"))
async def test_it_is_open_when_the_handshake_is_over_and_not_before(serve: Serve) -> None:
    served = serve()
    seen: list[tuple[bool, bool]] = []
    write = served.tcp.write

    def note(data: Any) -> None:
        answered = b"HTTP/1.1 101" in b"".join(served.tcp.written)
        seen.append((answered, served.wire is not None and served.wire.is_open()))
        write(data)

    served.tcp.write = note  # type: ignore[method-assign]
    await served.open()
    assert (False, True) not in seen
    assert served.may_write()


async def client_closes(served: Served) -> None:
    served.protocol.data_received(frame(8, b"\x03\xe8"))


async def client_closes_without_a_reason(served: Served) -> None:
    served.protocol.data_received(frame(8, b""))


async def client_breaks_the_protocol(served: Served) -> None:
    served.protocol.data_received(frame(3, b"?"))


async def client_sends_what_is_no_text(served: Served) -> None:
    served.protocol.data_received(frame(1, b"\xff\xff"))


async def client_sends_too_much(served: Served) -> None:
    served.protocol.data_received(frame(1, b"x" * 100))


async def connection_is_lost(served: Served) -> None:
    served.tcp.closing = True  # as asyncio and uvloop do; see below
    served.protocol.connection_lost(ConnectionResetError())
    served.protocol.connection_lost = lambda exc: None


async def application_closes(served: Served) -> None:
    await served.websocket.close()


async def server_stops(served: Served) -> None:
    served.protocol.shutdown()


ENDS = (
    *(client_closes, client_closes_without_a_reason, client_breaks_the_protocol, client_sends_what_is_no_text),
    *(client_sends_too_much, connection_is_lost, application_closes, server_stops),
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@relies_on(*lines("state", "busy"))
async def test_it_is_not_open_once_one_side_closes(serve: Serve, end: Callable[[Served], Any]) -> None:
    """A frame behind the one that closes would break the protocol."""
    served = await serve(ws_max_size=50).open()
    assert served.may_write()
    wrong: list[bytes] = []
    write = served.tcp.write

    def note(data: Any) -> None:
        write(data)
        if bytes(data)[0] & 0x0F == 8:
            asyncio.get_running_loop().call_soon(lambda: wrong.append(data) if served.may_write() else None)

    served.tcp.write = note  # type: ignore[method-assign]
    task = asyncio.create_task(end(served))
    await until(lambda: not served.may_write(), "the end")
    await asyncio.sleep(0)
    assert wrong == []
    task.cancel()


async def test_it_is_not_open_once_a_ping_was_not_answered(serve: Serve) -> None:
    served = await serve(ws_ping_interval=0.05, ws_ping_timeout=0.05).open()
    await until(lambda: not served.may_write(), "the end")


async def test_a_ping_of_the_client_is_answered_by_one_write(serve: Serve) -> None:
    """It may come between two messages, but not into one."""
    served = await serve().open()
    served.protocol.data_received(frame(9, b"?"))
    await until(lambda: served.tcp.written, "a pong")
    assert served.tcp.written == [b"\x8a\x01?"]
    assert served.may_write()


@relies_on("uvicorn.WebSocketProtocol._fragmented_message_waiter")
async def test_websockets_does_not_send_while_a_fragmented_message_is_sent() -> None:
    """uvicorn sends none; ``websockets.broadcast`` looks at this, too."""
    (legacy,) = (known for known in ASGI_PROTOCOLS if known.busy == "_fragmented_message_waiter")
    implementation(legacy)
    served = await Served(legacy).open()
    assert served.may_write()
    gate = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "one"
        await gate.wait()

    task = asyncio.create_task(served.protocol.send(fragments()))
    await until(lambda: served.tcp.written == [b"\x01\x03one"], "a fragment")
    assert not served.may_write()
    gate.set()
    await task
    assert served.may_write()
    served.tcp.close()
    await until(served.ended.is_set, "the end")


# -- what is not certain -------------------------------------------------------------------------------


def counting(send: Any) -> Any:
    """A middleware."""

    async def counted(message: Any) -> None:
        await send(message)

    return counted


@pytest.mark.parametrize("around", [counting, functools.partial], ids=["middleware", "partial"])
async def test_nothing_is_written_past_what_is_around_send(serve: Serve, around: Callable[[Any], Any]) -> None:
    served = await serve(around=around).open()
    assert served.wire is None
    await served.websocket.send("1")
    assert served.tcp.written == [b"\x81\x011"]


@pytest.mark.parametrize("websocket", [SimpleNamespace(), SimpleNamespace(asgi_send=counting(None))])
def test_nothing_is_written_below_what_is_not_known(websocket: Any) -> None:
    assert wire(websocket) is None


async def test_nothing_is_written_below_a_subclass_or_another_method(serve: Serve, known: AsgiProtocol) -> None:
    served = await serve().open()
    cls = type(served.protocol)
    assert wire(SimpleNamespace(asgi_send=getattr(served.protocol, known.send))) is not None
    assert wire(SimpleNamespace(asgi_send=served.protocol.shutdown)) is None
    subclass = type(known.name, (cls,), {"__module__": known.module})
    served.protocol.__class__ = subclass
    assert wire(SimpleNamespace(asgi_send=getattr(served.protocol, known.send))) is None
    served.protocol.__class__ = cls


@pytest.mark.parametrize("attribute", ["state", "busy", "extensions", *ASGI_ATTRIBUTES])
async def test_nothing_is_written_where_an_attribute_is_missing(
    serve: Serve, known: AsgiProtocol, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve().open()
    name, _, rest = getattr(known, attribute, attribute).partition(".")
    with monkeypatch.context() as patch:
        if rest:
            patch.setattr(served.protocol, name, SimpleNamespace())
        else:
            patch.delattr(served.protocol, name)
        assert wire(served.websocket) is None


@pytest.mark.parametrize("method", TRANSPORT_METHODS)
async def test_nothing_is_written_to_a_transport_that_lacks_a_method(
    serve: Serve, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve().open()
    with monkeypatch.context() as patch:
        patch.setattr(served.tcp, method, None)
        assert wire(served.websocket) is None


@pytest.mark.parametrize("module", [selector_events, sslproto, "uvloop.loop"])
@pytest.mark.parametrize("name", ["_SelectorSocketTransport", "TCPTransport", "UnixTransport", "_SSLProtocolTransport"])
def test_the_transports_of_asyncio_and_uvloop_have_the_methods(module: Any, name: str) -> None:
    if isinstance(module, str):
        module = pytest.importorskip(module)
    if transport := getattr(module, name, None):
        assert [method for method in TRANSPORT_METHODS if not callable(getattr(transport, method, None))] == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_transport_is_closing_once_its_connection_is_lost(loop: str) -> None:
    """Also when the client has reset it, or has closed its side."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(self.transport.is_closing())

    lost: list[bool] = []

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
        for reset in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await until(lambda: len(lost) == 2, "the end of both")
        server.close()

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
    assert lost == [True, True]


def test_a_server_that_is_not_loaded_is_not_looked_for() -> None:
    """Without uvicorn nothing of it is imported."""
    before = set(sys.modules)
    assert wire(SimpleNamespace(asgi_send=asyncio.Event().wait)) is None
    assert set(sys.modules) == before
