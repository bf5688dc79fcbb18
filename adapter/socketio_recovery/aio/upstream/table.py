"""The table of what this library uses of python-socketio and python-engineio beyond their documented interface.

Each line says what is relied on, with which parameters, what this library wraps around it, and why. :func:`verify`
checks the table against what is installed. What is used of uvicorn is below, in :data:`ASGI_PROTOCOLS`.
``tests/contract`` has a test for each behaviour that is relied on. ``docs/upstream.md`` says which hooks upstream could
offer instead.
"""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any, Final, NamedTuple

import engineio
import socketio
from engineio.async_socket import AsyncSocket
from engineio.packet import Packet as EngineIOPacket
from socketio.packet import Packet

from ...errors import UnsupportedVersion


class AsgiProtocol(NamedTuple):
    """A WebSocket implementation of uvicorn's, whose TCP transport is written to. ``asgi_transport.py`` says how.

    All of them have :data:`ASGI_ATTRIBUTES`, too.

    :param module: where its class is.
    :param name: the name of the class.
    :param send: its method that the application is handed as ``send``.
    :param state: the path of an attribute that is the member ``OPEN`` of an enumeration while messages may be sent.
    :param busy: an attribute that is true when no message may be sent although the state is ``OPEN``.
    :param extensions: the path of those that client and server agreed to, none or ``permessage-deflate``.
    """

    module: str
    name: str
    send: str
    state: str
    busy: str
    extensions: str


class Target(NamedTuple):
    """One thing of upstream's.

    :param owner: the class that has it.
    :param name: its name there.
    :param parameters: those that it is called with, or that are passed on; ``None`` if it is no function.
    :param why: what for.
    :param since: the version of its package that has it in this form, as far as it is known to matter.
    """

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str
    since: str = ""


def _server(name: str, parameters: tuple[str, ...], why: str, since: str = "") -> Target:
    return Target(socketio.AsyncServer, name, parameters, why, since)


#: Methods of a server that are wrapped: on the instance, each around the original, which still does its work.
HOOKS: Final = (
    _server(
        "_handle_connect",
        ("eio_sid", "namespace", "data"),
        "takes pid and offset out of auth; looks once more when the handshake is over",
        "5.18: calls manager.pre_connect and manager.connect",
    ),
    _server(
        "_handle_disconnect",
        ("eio_sid", "namespace", "reason"),
        "the client left on purpose: its session is forgotten before its handler runs",
    ),
    _server(
        "_handle_event",
        ("eio_sid", "namespace", "id", "data"),
        "refuses what is no event, or would run the connect or disconnect handler",
    ),
    _server(
        "_handle_eio_connect",
        ("eio_sid", "environ"),
        "watches the pings of the transport, and keeps hold of its WebSocket",
    ),
    _server("_handle_eio_message", ("eio_sid", "data"), "bounds what one binary packet may hold"),
    _server("_handle_eio_disconnect", ("eio_sid", "reason"), "tells a lost transport from a client that left"),
    _server(
        "_send_packet",
        ("eio_sid", "pkt"),
        "puts pid into CONNECT; forgets the session before DISCONNECT; sends an ACK after the replay",
    ),
    _server(
        "_trigger_event",
        ("event", "namespace", "args"),
        "leaves out the connect handler (skip_connect_handler), and a disconnect handler that another node ran; stores "
        "what a connect handler did to its client's rooms",
    ),
    _server(
        "disconnect",
        ("sid", "namespace", "ignore_queue"),
        "remembers which connection a sid means, since two may have it",
    ),
    _server("get_session", ("sid", "namespace"), "in a disconnect handler the transport may be gone"),
    _server("save_session", ("sid", "session", "namespace"), "stores the data in the session's record"),
    _server(
        "emit",
        ("event", "data", "to", "room", "skip_sid", "namespace", "callback", "ignore_queue"),
        "knows volatile",
    ),
)

#: What is wrapped or called of python-engineio, and called of python-socketio.
RELIED_ON: Final = (
    Target(engineio.AsyncServer, "create_queue", (), "makes a send queue for each socket"),
    Target(engineio.AsyncServer, "on", ("event", "handler"), "registers the three Engine.IO hooks"),
    Target(engineio.AsyncServer, "generate_id", (), "makes the sid of a new session"),
    Target(AsyncSocket, "send", ("pkt",), "each ping goes through it: notes what was sent before"),
    Target(
        AsyncSocket,
        "schedule_ping",
        (),
        "is called when a pong comes: everything sent before has arrived",
        "4.14: a pong clears last_ping",
    ),
    Target(AsyncSocket, "_websocket_handler", ("ws",), "when a WebSocket begins and ends, for the fast path"),
    Target(AsyncSocket, "poll", (), "takes packets by queue.get and get_nowait; None ends it"),
    Target(AsyncSocket, "close", ("wait", "abort", "reason"), "closes a transport so that its client comes back"),
    Target(EngineIOPacket, "encode", ("b64",), "what a shared message overrides"),
    Target(Packet, "data_is_binary", ("data",), "finds binary data in arguments"),
    Target(Packet, "deconstruct_binary", ("data",), "takes attachments out of arguments", "5.12: a class method"),
    Target(Packet, "reconstruct_binary", ("data", "attachments"), "puts attachments into arguments"),
)

#: Attributes of a server, and of its Engine.IO server.
ATTRIBUTES: Final = ("_binary_packet", "environ", "eio", "packet_class", "reason", "reserved_events")
ENGINEIO_ATTRIBUTES: Final = (
    *("handlers", "logger", "max_http_buffer_size", "ping_interval", "ping_interval_grace_period"),
    *("ping_timeout", "reason", "sockets"),
)

#: The classes of uvicorn's WebSocket implementations. Without them, and in a version that lacks something of this, all
#: messages go through the queue: so :func:`verify` does not ask for them.
ASGI_PROTOCOLS: Final = (
    AsgiProtocol(
        "uvicorn.protocols.websockets.websockets_sansio_impl",
        "WebSocketsSansIOProtocol",
        send="send",
        state="conn.state",
        busy="close_sent",
        extensions="conn.extensions",
    ),
    AsgiProtocol(
        "uvicorn.protocols.websockets.websockets_impl",
        "WebSocketProtocol",
        send="asgi_send",
        state="state",
        busy="_fragmented_message_waiter",
        extensions="extensions",
    ),
    AsgiProtocol(
        "uvicorn.protocols.websockets.wsproto_impl",
        "WSProtocol",
        send="send",
        state="conn.state",
        busy="close_sent",
        extensions="conn.connection._proto.extensions",
    ),
)
#: Further attributes of each of these classes.
ASGI_ATTRIBUTES: Final = ("transport",)
#: What is called of a TCP transport, whether it is asyncio's or uvloop's, with TLS or without.
TRANSPORT_METHODS: Final = ("write", "get_write_buffer_size", "is_closing", "abort")


def missing(targets: tuple[Target, ...]) -> list[str]:
    """The targets that are not there, or do not have the parameters that are relied on."""
    found = []
    for owner, name, parameters, *_ in targets:
        method = getattr(owner, name, None)
        if method is None:
            found.append(f"{owner.__module__}.{owner.__qualname__}.{name}")
        elif parameters is not None:
            has = inspect.signature(method).parameters
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values()):
                continue  # it takes anything: somebody has wrapped it
            if lacks := [parameter for parameter in parameters if parameter not in has]:
                found.append(f"{', '.join(lacks)} in {owner.__module__}.{owner.__qualname__}.{name}()")
    return found


def verify(server: Any) -> None:
    """Checks that the installed versions have everything that is relied on.

    :param server: a :class:`socketio.AsyncServer`.
    :raises UnsupportedVersion: names what is missing and the versions that work.
    """
    lacks = missing(HOOKS) + missing(RELIED_ON)
    lacks += [f"socketio.AsyncServer().{name}" for name in ATTRIBUTES if not hasattr(server, name)]
    eio = getattr(server, "eio", None)
    lacks += [f"engineio.AsyncServer().{name}" for name in ENGINEIO_ATTRIBUTES if not hasattr(eio, name)]
    refuse(lacks)


def refuse(lacks: list[str], *more: str) -> None:
    """Raises an error if something is lacking.

    :param more: packages whose versions the error names, beside python-socketio and python-engineio.
    :raises UnsupportedVersion: names what is missing and the versions that work.
    """
    if lacks:
        packages = ("python-socketio", "python-engineio", *more)
        installed = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
        raise UnsupportedVersion(
            f"socketio-recovery does not work with {installed}: it relies on {'; '.join(lacks)}. "
            f"Install versions that it is known to work with: {', '.join(supported())}."
        )


def supported() -> list[str]:
    """The versions of python-socketio and python-engineio that this library declares to work with."""
    try:
        requirements = metadata.requires("socketio-recovery") or []
    except metadata.PackageNotFoundError:  # not installed: a copy of the source on the path
        requirements = []
    return [r for r in requirements if r.startswith(("python-socketio", "python-engineio"))] or ["see pyproject.toml"]
