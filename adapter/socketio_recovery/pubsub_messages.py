"""What python-socketio's own Redis managers publish to each other, to and from entries of the log.  No I/O.

They publish JSON (since python-socketio 5.14; before it was pickle, which is never read here): objects with a
``method``, see ``async_pubsub_manager.py`` there. Messages of this library have a field :data:`OURS`, which those
managers do not look at; and entries that were made from a message say so, so that nothing goes round in circles.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from socketio.packet import Packet

from .entries import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EVENT,
    LEAVE,
    Entry,
    Payload,
    audience,
    callback_head,
    check_namespace,
    check_room,
    control_head,
    dump,
    payload_fields,
    skipped,
)
from .outside_event import Malformed, log_fields
from .packets import JsonCodec
from .redis.actions import NO_ACTION, Action, closes, ends, moves
from .redis.keys import Keys

#: The field that messages of this library have.
OURS: Final = "socketio_recovery"
#: Characters of a mark, at most.
MARK: Final = 64
#: In place of a node's name: who waits for an acknowledgement is a process with python-socketio's own manager.
_ELSEWHERE: Final = "pubsub:"
#: In place of a process's name in a message: who waits is a node.
_NODE: Final = "recovery:"
_CODEC: Final = JsonCodec()


class Crossing(NamedTuple):
    """An entry for the log."""

    head: str
    data: Sequence[str | bytes]
    action: Action = NO_ACTION


def read_message(raw: bytes) -> dict[str, Any]:
    """What was published.

    :raises Malformed: if it is no message of python-socketio's managers.
    """
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed("it is not JSON; python-socketio before 5.14 publishes pickled data") from None
    if not isinstance(message, dict):
        raise Malformed("it is no JSON object")
    return message


def mark_message(mark: str) -> str:
    """A message that says where a node began to listen, for all that listen."""
    return dump({OURS: {"mark": mark}})


def mark_of(message: dict[str, Any]) -> str | None:
    """The mark, if the message is one."""
    ours = message.get(OURS)
    mark = ours.get("mark") if isinstance(ours, dict) else None
    return mark if isinstance(mark, str) and 0 < len(mark) <= MARK else None


def entry_of(message: dict[str, Any], keys: Keys) -> Crossing | None:
    """The entry that a message becomes; ``None`` if the log has nothing to do with it.

    :raises Malformed: if the message is not as python-socketio's managers write it.
    """
    method = message.get("method")
    crossing = _FROM.get(method) if isinstance(method, str) else None
    if crossing is None:
        return None
    try:
        return crossing(message, keys)
    except Malformed:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {str(error)[:200]}") from None


def _emitted(message: dict[str, Any], keys: Keys) -> Crossing | None:
    rooms = audience(message.get("room"))
    if rooms is None:
        return None
    data = message["data"]
    if message.get("binary"):
        data = Packet.reconstruct_binary(data[0], [base64.b64decode(text) for text in data[1:]])
    arguments = data if isinstance(data, list) else [data]
    if arguments == [None]:
        arguments = []
    waits = None
    if message.get("callback") is not None:
        room, namespace, id = message["callback"]
        if type(id) is not int:
            raise Malformed("the number of its callback is none")
        waits = (_ELSEWHERE + dump([message["host_id"], room, namespace]), id)
    fields = log_fields(
        *(message["event"], arguments, message.get("namespace") or "/", rooms, skipped(message.get("skip_sid"))),
        *(False, waits),
    )
    return Crossing(_marked(str(fields[1])), fields[2:])


def _marked(head: str) -> str:
    """The head of an event that came from a message."""
    kind, namespace, *rest = json.loads(head)
    rooms: list[Any] = rest[0] if rest else []
    skip: list[Any] = rest[1] if len(rest) > 1 else []
    options: dict[str, Any] = rest[2] if len(rest) > 2 else {}
    return dump([kind, namespace, rooms, skip, {**options, "b": 1}])


def _moved(message: dict[str, Any], keys: Keys) -> Crossing:
    kind = ENTER if message["method"] == "enter_room" else LEAVE
    namespace, sid, room = check_namespace(message["namespace"]), str(message["sid"]), check_room(message["room"])
    return Crossing(control_head(kind, namespace, sid, room), _CONTROL, moves(kind, keys, namespace, sid, room))


def _closed(message: dict[str, Any], keys: Keys) -> Crossing:
    namespace, room = check_namespace(message["namespace"]), check_room(message["room"])
    return Crossing(control_head(CLOSE, namespace, room), _CONTROL, closes(keys, namespace, room))


def _disconnected(message: dict[str, Any], keys: Keys) -> Crossing:
    namespace, sid = check_namespace(message["namespace"]), str(message["sid"])
    return Crossing(control_head(DISCONNECT, namespace, sid), _CONTROL, ends(keys, namespace, sid))


def _answered(message: dict[str, Any], keys: Keys) -> Crossing | None:
    host, id = message["host_id"], message["id"]
    if not isinstance(host, str) or not host.startswith(_NODE) or type(id) is not int:
        return None
    payload = _CODEC.encode(list(message["args"]))
    return Crossing(callback_head(host.removeprefix(_NODE), id, payload), payload_fields(payload))


#: What entries that are no events have if they came from a message.
_CONTROL: Final = ("bridge", "1")
_FROM: Final[dict[str, Callable[[dict[str, Any], Keys], Crossing | None]]] = {
    "emit": _emitted,
    "enter_room": _moved,
    "leave_room": _moved,
    "close_room": _closed,
    "disconnect": _disconnected,
    "callback": _answered,
}


def came_from_message(fields: Sequence[bytes]) -> bool:
    """Whether an entry was made from a message.

    :param fields: name, value, name, value, ... of the entry, without the epoch.
    """
    head = json.loads(fields[1])
    if head[0] == EVENT:
        return len(head) > 4 and "b" in head[4]
    return bytes(_CONTROL[0], "ascii") in fields[2::2]


def message_of(entry: Entry, as_json: Callable[[Payload], Payload]) -> str | None:
    """The message that an entry becomes; ``None`` if python-socketio's managers have nothing to do with it.

    :param as_json: converts a payload of another serialisation.
    """
    if entry.kind == EVENT:
        return _event_message(entry, as_json)
    if entry.kind == CALLBACK:
        return _answer_message(entry, as_json)
    if entry.kind == CLOSE:
        return _message("close_room", namespace=entry.namespace, room=entry.room)
    if entry.kind == DISCONNECT:
        return _message("disconnect", namespace=entry.namespace, sid=entry.sid)
    return None


def move_message(kind: str, sid: str, namespace: str, room: object) -> str:
    """The message by which a client of a process with python-socketio's own manager enters or leaves a room."""
    return _message(f"{kind}_room", sid=sid, namespace=namespace, room=room)


def _event_message(entry: Entry, as_json: Callable[[Payload], Payload]) -> str:
    assert entry.payload is not None
    payload = as_json(entry.payload)
    event, *arguments = json.loads(payload.data)
    data: list[Any] = arguments
    if payload.attachments:
        data = [arguments, *[base64.b64encode(attachment).decode() for attachment in payload.attachments]]
    host, callback = "", None
    if entry.callback is not None:
        host, callback = _NODE + entry.callback[0], [entry.rooms[0], entry.namespace, entry.callback[1]]
    return _message(
        "emit",
        event=event,
        data=data,
        binary=bool(payload.attachments),
        namespace=entry.namespace,
        room=list(entry.rooms) or None,
        skip_sid=list(entry.skip) or None,
        callback=callback,
        host_id=host,
    )


def _answer_message(entry: Entry, as_json: Callable[[Payload], Payload]) -> str | None:
    assert entry.payload is not None
    assert entry.callback is not None
    node, id = entry.callback
    if not node.startswith(_ELSEWHERE):
        return None
    host, room, namespace = json.loads(node.removeprefix(_ELSEWHERE))
    payload = as_json(entry.payload)
    if payload.attachments:  # python-socketio can't send these either
        return None
    arguments = json.loads(payload.data)
    return _message("callback", host_id=host, sid=room, namespace=namespace, id=id, args=arguments)


def _message(method: str, **values: Any) -> str:
    return dump({"method": method, "host_id": "", **values, OURS: {}})
