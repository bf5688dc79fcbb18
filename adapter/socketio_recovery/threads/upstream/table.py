"""The table of what is used of synchronous servers beyond their documented interface.

It is that of ``aio/upstream/table.py`` for the other classes: python-socketio's two servers have methods of the same
names, and so have python-engineio's. What is used of simple-websocket comes in addition.
"""

from __future__ import annotations

from typing import Final

import engineio
import socketio
from engineio.socket import Socket

from ...aio.upstream import table
from ...aio.upstream.table import Target, missing, refuse

#: Methods of a server that are wrapped.
HOOKS: Final = tuple(hook._replace(owner=socketio.Server) for hook in table.HOOKS)

#: What is wrapped or called of python-engineio.
RELIED_ON: Final = (
    Target(engineio.Server, "create_queue", (), "makes a send queue for each socket"),
    Target(engineio.Server, "get_queue_empty_exception", (), "what a queue raises when nothing came in time"),
    Target(engineio.Server, "on", ("event", "handler"), "registers the three Engine.IO hooks"),
    Target(Socket, "send", ("pkt",), "each ping goes through it: notes what was sent before"),
    Target(Socket, "schedule_ping", (), "is called when a pong comes", "4.14: a pong clears last_ping"),
    Target(Socket, "_websocket_handler", ("ws",), "when a WebSocket begins and ends, for the fast path"),
    Target(Socket, "poll", (), "takes packets by queue.get; None ends it"),
    Target(Socket, "close", ("wait", "abort", "reason"), "closes a transport so that its client comes back"),
)


def websocket_targets() -> tuple[Target, ...]:
    """What is called of simple-websocket, if it is installed."""
    try:
        from simple_websocket import Server
    except ImportError:
        return ()
    return (
        Target(Server, "send", ("data",), "is done in its place, because it may send a part only"),
        Target(Server, "close", ("reason", "message"), "ends a WebSocket"),
    )


def verify() -> None:
    """Checks that the installed versions have everything that is relied on.

    :raises UnsupportedVersion: names what is missing and the versions that work.
    """
    websocket = missing(websocket_targets())
    refuse(missing(HOOKS) + missing(RELIED_ON) + websocket, *(("simple-websocket",) if websocket else ()))
