"""Events of other programs, looked at as strictly as what an application passes to ``emit``.  No I/O.

What passes is an event that each node can deliver and each client can parse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from .entries import Room, check_event, event_head, payload_fields
from .packets import Codec, JsonCodec

#: Binary attachments of one event, at most: a script can't take more arguments at once.
MOST_ATTACHMENTS: Final = 1000
#: Characters of what is wrong that a reason quotes, at most.
QUOTED: Final = 80


class Malformed(ValueError):
    """What another program wrote is no event that clients could get. Its text is the reason."""


def log_fields(
    event: Any,
    arguments: Sequence[Any],
    namespace: Any,
    rooms: Sequence[Any],
    skip: Sequence[Any],
    volatile: bool,
    callback: tuple[str, int] | None = None,
) -> list[str | bytes]:
    """The fields of the log's entry for an event.

    :param rooms: nothing in it is everybody.
    :param callback: who waits for the acknowledgement, as in :class:`Entry`.
    :raises Malformed: if there can be no such event.
    """
    check_event(event)
    if not isinstance(event, str) or not event:
        raise Malformed(f"event must be a name, not {quoted(event)}")
    if not isinstance(namespace, str) or not namespace.startswith("/"):
        raise Malformed(f"namespace must begin with /, not {quoted(namespace)}")
    for room in rooms:
        if type(room) not in (str, int):
            raise Malformed(f"a room must be a name or a whole number, not {quoted(room)}")
    for sid in skip:
        if type(sid) is not str:
            raise Malformed(f"skip must name clients by their ids, not {quoted(sid)}")
    for text in (namespace, *rooms, *skip):
        str(text).encode()  # a text without a UTF-8 form can't be stored
    payload = _CODEC.encode((event, *arguments))
    if b"\\ud" in payload.data.lower():
        json.dumps(
            json.loads(payload.data), ensure_ascii=False
        ).encode()  # half of a surrogate pair: not for MessagePack
    if len(payload.attachments) > MOST_ATTACHMENTS:
        raise Malformed(f"it has more than {MOST_ATTACHMENTS} binary attachments")
    if payload.attachments and payload.data.count(b'"_placeholder":true') != len(payload.attachments):
        raise Malformed("it has _placeholder, which the protocol has for binary data")
    names: list[Room] = list(dict.fromkeys(rooms))
    return ["head", event_head(namespace, names, list(skip), payload, volatile, callback), *payload_fields(payload)]


#: Entries of the inbox are stored as JSON. Nodes convert it for clients that have another serialisation.
_CODEC: Final[Codec] = JsonCodec()


def parsed_json(name: str, text: str) -> Any:
    """What the JSON in a field says.

    :raises Malformed: if it is none, or has what browsers can't parse (``NaN``).
    """
    try:
        return _loads(text)
    except Malformed as error:
        raise Malformed(f"{name} {error}") from None
    except ValueError as error:
        hint = f'; text must be in quotes, as in "{name}" \'"text"\'' if text[:1] not in '[{"' else ""
        raise Malformed(f"{name} is not JSON: {quoted(str(error))}{hint}") from None


def _no_constant(name: str) -> Any:
    raise Malformed(f"has {name}, which is not JSON: browsers can't parse it")


_loads: Callable[[str], Any] = json.JSONDecoder(parse_constant=_no_constant).decode


def quoted(value: object) -> str:
    """A value in a reason, shortened."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= QUOTED else text[:QUOTED] + "..."
    return text.encode(errors="backslashreplace").decode().replace("\n", " ")
