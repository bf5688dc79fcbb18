"""May a client go on with the session that it had, and from where?  No I/O.

A client shows a ``pid`` and the offset of the last event that it saw. It may go on if the log still holds everything
that it missed. That is decided in steps. Each returns what the next one needs, or an :class:`Outcome` that says why the
client gets a new session instead:

1. :func:`requested`: does the client ask for a session at all, in a form that can be right?
2. The claim (``redis/lua/claim.lua``): does the session exist, does the client know its secret, is it in time? In the
   same step it is found out where the log begins, and whether it holds the entry at the client's offset.
3. :func:`start_of`: from which number on has the client missed everything, and does the log hold all of that?
4. :func:`resume`: is the session still there when this node has dispatched everything up to the claim?

Where a client goes on.  The offset that it sends may be old, if few events were for it, or missing, if none was. But
when a ping that was queued at number c has been answered, everything that was sent before the ping has arrived. Each
heartbeat stores the pair (c, the last offset that was sent before c) as ``confirmed`` and ``sent``. A client whose
offset is not older than ``sent`` and not newer than ``confirmed`` has missed nothing up to ``confirmed``.

A log that lost its tail.  The numbers up to an offset may have been lost in a failover and given to other entries
since, while no node was running that would have noticed. An offset therefore carries the time at which its entry was
stored. If the record alone does not confirm the offset, the log must hold the entry with that number and that time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .entries import Offset, Room
from .membership import Rooms, forward, rooms_at
from .reasons import Outcome
from .session_record import Pid, Record
from .window import Window

#: Where the environ that ``can_recover`` is given has the word ``recovery`` of the client's auth data.
ASKS = "socketio_recovery.asks"

#: The User-Agents of clients that use recovery: browsers (and Electron); and what the JavaScript client sends elsewhere
#: (Node.js, Bun, Deno), by XMLHttpRequest, fetch, or a WebSocket that names its runtime.
_KNOWN = re.compile(r"Mozilla/|node-XMLHttpRequest|node$|undici$|Bun/|Deno/")
_ASKED = re.compile(r"(?:^|&)recovery=(1|true|0|false)(?:&|$)")


def can_recover(environ: Mapping[str, Any]) -> bool:
    """Whether a client can use recovery, that is a ``pid`` and offsets: JavaScript clients, and those that ask for it.

    To other clients, an offset would be one argument too many for each event.

    :param environ: the WSGI environ of the client's first request. ``socketio_recovery.asks`` is ``recovery`` of the
        client's auth data, a ``bool``; ``None`` if that says nothing.

    A client asks for recovery by ``recovery: true`` in its auth data, or else by ``recovery=1`` in its query; it
    declines by ``false`` or ``0``. If it says neither, it is known by its User-Agent. The Node.js client, and Bun's,
    sends none with a WebSocket: it offers compression, and its query has ``EIO`` before ``transport``.

    A client that runs in a browser has the browser's User-Agent, whatever it is written in (Dart, Unity). React Native
    has the User-Agent of its platform, which others have as well. Such a client should say what it can do.
    """
    asks = environ.get(ASKS)
    if asks is not None:
        return bool(asks)
    query: str = environ.get("QUERY_STRING", "")
    asked = _ASKED.search(query)
    if asked is not None:
        return asked[1] in ("1", "true")
    agent: str = environ.get("HTTP_USER_AGENT", "")
    if agent:
        return _KNOWN.match(agent) is not None
    offered: str = environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")
    return "permessage-deflate" in offered and 0 <= query.find("EIO=") < query.find("transport=")


class Request(NamedTuple):
    """What a client asks for when it connects to a namespace."""

    pid: Pid | None = None
    offset: Offset | None = None
    outcome: Outcome = Outcome.NEW  #: why it gets a new session, if it shows no pid
    asks: bool | None = None  #: whether it asks for recovery, or declines it; see :func:`can_recover`

    def environ(self, environ: Mapping[str, Any]) -> Mapping[str, Any]:
        """The environ that ``can_recover`` is given: that of the client's transport, and what the client asks."""
        return {**environ, ASKS: self.asks}


def requested(auth: Any) -> tuple[Request, Any]:
    """Takes ``pid``, ``offset`` and ``recovery`` out of the authentication data that a client sent.

    :returns: the request, and what is left for the application; ``None`` if nothing is left.

    A ``pid`` of another form belongs to the application. It stays in the data, and so does ``offset``. So does a
    ``recovery`` that is no ``bool``. An ``offset`` that is ``None`` or empty counts as none.
    """
    if not isinstance(auth, dict):
        return Request(), auth
    asks = auth.get("recovery")
    if isinstance(asks, bool):
        auth = {key: value for key, value in auth.items() if key != "recovery"} or None
    else:
        asks = None
    if auth is None or auth.get("pid") is None:
        return Request(asks=asks), auth
    pid = Pid.parse(auth["pid"])
    if pid is None:
        return Request(outcome=Outcome.MALFORMED, asks=asks), auth
    rest = {key: value for key, value in auth.items() if key not in ("pid", "offset")} or None
    offset = None
    if auth.get("offset") not in (None, ""):
        offset = Offset.parse(auth["offset"])
        if offset is None:
            return Request(outcome=Outcome.MALFORMED, asks=asks), rest
    return Request(pid, offset, asks=asks), rest


class Start(NamedTuple):
    """Where a client goes on."""

    after: int  #: the client has missed everything after this number
    seen: int  #: the number of the last event that the client saw, or of the session's birth


def seen_by(record: Record, offset: Offset | None) -> int | None:
    """The number of the last event that the client saw, or the session's birth.

    :param offset: the one that the client sent; ``None`` if it has seen no event yet.
    :returns: ``None`` for an offset that no event in this log has had.
    """
    if offset is None or offset.position < (record.last.epoch, record.birth):
        # The JavaScript client keeps the offset of an earlier session beside the pid of a new one.
        return record.birth
    return offset.position.n if offset.position <= record.last else None


def start_of(record: Record, offset: Offset | None) -> Start | Outcome:
    """Where the client goes on, or why it can't: ``EPOCH``, ``OFFSET`` or ``TRIMMED``."""
    seen = seen_by(record, offset)
    if seen is None:
        assert offset is not None
        # An offset with a time was once handed out: the log has lost its entry.
        return Outcome.EPOCH if offset.ms else Outcome.OFFSET
    # What was confirmed needs no comparison: the record would have lost it together with the log.
    compare = offset is not None and offset.ms and record.confirmed < seen == offset.position.n
    if compare and not record.seen:
        return Outcome.TRIMMED if seen <= record.floor else Outcome.EPOCH
    after = record.confirmed if record.sent <= seen <= record.confirmed else seen
    return Start(after, seen) if after >= record.floor else Outcome.TRIMMED


class Resumption(NamedTuple):
    """A session that goes on."""

    rooms: Rooms  #: those it is in at the end of the window
    rooms_then: Rooms  #: those it was in where it goes on
    closed: list[Room]  #: those that were closed since it was claimed: its record does not say so yet


def resume(start: Start, record: Record, window: Window, namespace: str, sid: str) -> Resumption | Outcome:
    """The session as it goes on, or why it can't: ``UNKNOWN``.

    :param window: holds everything after ``record.last``.
    """
    rooms = rooms_at(record.stays, record.last.n)
    closed = forward(window, namespace, sid, rooms, record.last.n)
    if closed is None:
        return Outcome.UNKNOWN  # the application has disconnected the session since it was claimed
    return Resumption(rooms, rooms_at(record.stays, start.after), closed)
