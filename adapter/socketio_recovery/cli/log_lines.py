"""Entries of the log as a line of text, and as JSON.  No I/O.

The ids of transports, which some entries name, are left out: who knows one can act on it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..entries import EPOCH, EVENT, MSGPACK, Entry, Payload, parse_entry
from ..packets import JsonCodec, MsgpackCodec
from .text import printable, shortened, size


class Line(NamedTuple):
    """An entry as the command line shows it."""

    id: str
    epoch: int
    entry: Entry
    arguments: list[Any] | None  #: the name of an event first; ``None`` if there are none, or they can't be read
    problem: str  #: why it can't be read


def read_line(item: Any) -> Line:
    """The entry in what Redis returned: (id, fields)."""
    id, fields = item[0].decode(), item[1]
    ms, _, n = id.partition("-")
    try:
        if fields[0] != b"epoch":
            raise ValueError("something else than this library wrote it")
        epoch = int(fields[1])
        entry = parse_entry(int(n), int(ms), fields[2:])
        arguments, problem = (None, "") if entry.payload is None else _arguments(entry.payload)
        return Line(id, epoch, entry, arguments, problem)
    except Exception as error:  # whatever was planted there
        return Line(id, 0, Entry("unreadable", int(n), int(ms)), None, f"{type(error).__name__}: {error}")


def _arguments(payload: Payload) -> tuple[list[Any] | None, str]:
    try:
        if payload.format == MSGPACK:
            from socketio.msgpack_packet import MsgPackPacket

            return MsgpackCodec(MsgPackPacket).decode(payload), ""
        return JsonCodec().decode(payload), ""
    except ImportError:
        return None, "MessagePack, which needs msgpack here: pip install msgpack"
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def event_of(line: Line) -> str:
    """The name of an event, if it is one."""
    return str(line.arguments[0]) if line.entry.kind == EVENT and line.arguments else ""


def as_text(line: Line, width: int = 0) -> str:
    """One line: time, number, kind, namespace, to whom, and the rest.

    :param width: characters of an event's data, at most; 0 for all.
    """
    entry = line.entry
    time = datetime.fromtimestamp(entry.ms / 1000).strftime("%H:%M:%S.%f")[:-3]
    rest = [entry.namespace, *_whom(entry)]
    if line.problem:
        rest.append(f"can't be read: {line.problem}")
    elif line.arguments is not None:
        name, *arguments = line.arguments if entry.kind == EVENT else ("", *line.arguments)
        try:
            rest += [str(name), shortened(" ".join(map(_dumped, arguments)), width)]
        except RecursionError:
            rest.append("(nested too deeply to be shown)")
    if entry.size > 1000:
        rest.append(f"({size(entry.size)})")
    if entry.kind == EPOCH:
        rest.append(f"a new epoch begins: {line.epoch}")
    return printable(f"{time}  #{entry.n}  {entry.kind:10}  " + "  ".join(part for part in rest if part))


def _whom(entry: Entry) -> list[str]:
    if entry.kind == EVENT:
        whom = [f"to {', '.join(map(str, entry.rooms))}" if entry.rooms else "to all"]
        whom += [f"but {', '.join(entry.skip)}"] if entry.skip else []
        return [*whom, *(["volatile"] if entry.volatile else []), *(["with a callback"] if entry.callback else [])]
    return [entry.sid, "" if entry.room is None else f"room {entry.room}"]


def _dumped(value: Any) -> str:
    """A value as JSON, with binary data as a note in its place."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes {value[:16].hex()}{'...' if len(value) > 16 else ''}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_dumped, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_dumped(str(key))}: {_dumped(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, default=repr)


def _binary_json(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else repr(value)


def as_json(line: Line) -> str:
    """One JSON object. Binary data is ``{"base64": "..."}``."""
    entry = line.entry
    found: dict[str, Any] = {"id": line.id, "epoch": line.epoch, "n": entry.n, "ms": entry.ms, "kind": entry.kind}
    if entry.namespace:
        found["namespace"] = entry.namespace
    if entry.kind == EVENT:
        found |= {"rooms": list(entry.rooms), "skip": list(entry.skip), "volatile": entry.volatile}
    if entry.sid:
        found["sid"] = entry.sid
    if entry.room is not None:
        found["room"] = entry.room
    if line.arguments is not None and entry.kind == EVENT:
        found |= {"event": line.arguments[0], "args": line.arguments[1:]}
    elif line.arguments is not None:
        found["args"] = line.arguments
    if line.problem:
        found["problem"] = line.problem
    try:
        return json.dumps(found, default=_binary_json)
    except RecursionError:
        return json.dumps({**found, "args": None, "problem": "nested too deeply to be shown"})


def passes(
    line: Line, kinds: Sequence[str], namespaces: Sequence[str], rooms: Sequence[str], events: Sequence[str]
) -> bool:
    """Whether an entry passes filters; an empty one lets all pass."""
    entry = line.entry
    named = [*map(str, entry.rooms), *([] if entry.room is None else [str(entry.room)])]
    return (
        (not kinds or entry.kind in kinds)
        and (not namespaces or entry.namespace in namespaces)
        and (not rooms or any(room in named for room in rooms))
        and (not events or event_of(line) in events)
    )
