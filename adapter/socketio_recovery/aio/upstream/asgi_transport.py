"""The TCP transports of ASGI servers' WebSockets: how frames get past uvicorn, and how a connection is cut.

An ASGI application is handed ``receive`` and ``send``, and nothing of the network. uvicorn's ``send`` is a method of
the object that has the TCP transport. With each of its WebSocket implementations it writes a message as one frame, in
one write, before it returns. So while nobody is in ``send``, a whole frame that is written to the transport comes
behind all messages that were sent before, and into the middle of none.

The object must be of a class of :data:`~.table.ASGI_PROTOCOLS` and have the attributes there, and ``send`` must be its
own method. Otherwise this is another server, or something is in between that may count, hold or change what is sent.
Then all messages are queued, and python-engineio calls ``send`` for each.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from .table import ASGI_PROTOCOLS, TRANSPORT_METHODS, AsgiProtocol


class Wire(NamedTuple):
    """What is below a WebSocket.

    :param tcp: its TCP transport. With TLS it is the one that encrypts.
    :param is_open: tells whether messages may be written: the handshake is over, and nobody has begun to close.
    :param compresses: tells whether the client agreed to ``permessage-deflate``, once the handshake is over.
    """

    tcp: asyncio.Transport
    is_open: Callable[[], bool]
    compresses: Callable[[], bool]


def wire(websocket: Any) -> Wire | None:
    """What is below a WebSocket of python-engineio's ASGI driver; ``None`` unless that is certain."""
    send = getattr(websocket, "asgi_send", None)
    protocol: Any = getattr(send, "__self__", None)
    known = _known(type(protocol))
    if known is None or getattr(send, "__func__", None) is not vars(type(protocol)).get(known.send):
        return None
    state, busy, extensions = map(attrgetter, (known.state, known.busy, known.extensions))
    try:
        tcp, opened = protocol.transport, type(state(protocol)).OPEN
        busy(protocol), extensions(protocol)
    except AttributeError:  # a version that does it in another way
        return None
    if not all(callable(getattr(tcp, name, None)) for name in TRANSPORT_METHODS):
        return None
    return Wire(
        tcp,
        lambda: state(protocol) is opened and not busy(protocol),
        lambda: bool(extensions(protocol)),
    )


def _known(cls: type) -> AsgiProtocol | None:
    """The line of the table for a class. A subclass has none, since it may do anything."""
    for known in ASGI_PROTOCOLS:
        if cls is getattr(sys.modules.get(known.module), known.name, None):
            return known
    return None
