"""What ``@socket.io/redis-streams-emitter`` writes, the emitter of Socket.IO for Node.js.  No I/O.

It can write to the inbox: its option ``streamName`` is the name of its stream. Its entries have the fields ``uid``,
``nsp``, ``type`` (a number) and ``data``: JSON, or MessagePack in base64 where there is binary data. See
https://github.com/socketio/socket.io/tree/main/packages/socket.io-redis-streams-emitter/lib (0.1.1); the numbers are
those of ``MessageType`` in ``adapter-types.ts`` there.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final

from .outside_event import Malformed, log_fields, parsed_json, quoted

BROADCAST: Final = "3"
#: What else it writes. There are no such entries in the log.
UNSUPPORTED: Final = {
    "4": "socketsJoin()",
    "5": "socketsLeave()",
    "6": "disconnectSockets()",
    "9": "serverSideEmit()",
}
#: What python-socketio gives clients for an id (``generate_id()`` of python-engineio).
_SID: Final = re.compile(r"[A-Za-z0-9_-]{20}", re.ASCII)


def is_streams_emitter(said: dict[str, str]) -> bool:
    """Whether this emitter wrote an entry with these fields."""
    return "event" not in said and "nsp" in said and "type" in said


def read_streams_emitter(said: dict[str, str]) -> list[str | bytes]:
    """The fields of the log's entry.

    :raises Malformed: if it is no event, or an event that the log can't hold.
    """
    kind = said["type"]
    if kind != BROADCAST:
        raise Malformed(f"{UNSUPPORTED.get(kind, 'a message of type ' + quoted(kind))} is not supported here")
    data = _data(said.get("data", ""))
    try:
        packet, options = data["packet"], data["opts"]
        event, *arguments = packet["data"]
        rooms, skip = options["rooms"], options["except"]
        volatile = options.get("flags", {}).get("volatile") is True
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("it is not what redis-streams-emitter writes for an event") from None
    if "requestId" in data:
        raise Malformed("an event with an acknowledgement is not supported here")
    if not isinstance(rooms, list) or not isinstance(skip, list):
        raise Malformed("rooms and except must be lists")
    for name in skip:
        if not isinstance(name, str) or not _SID.fullmatch(name):
            raise Malformed(f"except({quoted(name)}): only the ids of clients can be left out, not rooms")
    return log_fields(event, arguments, said["nsp"], rooms, skip, volatile)


def _data(text: str) -> Any:
    if text.startswith("{"):
        return parsed_json("data", text)
    try:
        import msgpack  # an optional dependency
    except ImportError:
        raise Malformed("it has binary data, which needs msgpack: pip install socketio-recovery[msgpack]") from None
    try:
        return msgpack.unpackb(base64.b64decode(text, validate=True))
    except Exception as error:  # msgpack's errors have no common class
        raise Malformed(f"data is neither JSON nor MessagePack: {quoted(str(error))}") from None
