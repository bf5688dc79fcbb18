"""Entries of the inbox: events that other programs put into Redis, in any language.  No I/O.

What a program may write is documented in ``docs/emitters.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .outside_event import Malformed, log_fields, parsed_json, quoted
from .redis.keys import partition_of
from .streams_emitter import is_streams_emitter, read_streams_emitter

#: What an entry may have.
FIELDS: Final = ("event", "namespace", "rooms", "data", "args", "skip", "volatile")
#: What the absence of a field means.
_ABSENT: Final = {"rooms": "everybody", "skip": "nobody"}


def read_inbox(fields: Sequence[bytes], partition: int = 0, shards: int = 1) -> list[str | bytes]:
    """The fields of the log's entry for an entry of the inbox.

    :param fields: name, value, name, value, ...
    :param partition: the number of the partition whose inbox it is in.
    :param shards: how many partitions there are.
    :raises Malformed: if it is no event that clients could get.
    """
    try:
        said = _said(fields)
        namespace = said.get("namespace", said.get("nsp", "/"))
        if (number := partition_of(namespace, shards)) != partition:
            raise Malformed(f"the namespace {quoted(namespace)} belongs to partition {number}: use the inbox of that")
        return read_streams_emitter(said) if is_streams_emitter(said) else _event(said)
    except Malformed:
        raise
    except (ValueError, TypeError) as error:  # NaN; a text without a UTF-8 form; what JSON does not have
        raise Malformed(str(error)[:200]) from error
    except RecursionError:
        raise Malformed("its JSON is nested too deeply") from None


def _said(fields: Sequence[bytes]) -> dict[str, str]:
    said: dict[str, str] = {}
    for raw_name, raw in zip(fields[::2], fields[1::2], strict=True):
        try:
            name = raw_name.decode()
            value = raw.decode()
        except UnicodeDecodeError:
            raise Malformed(f"the field {quoted(raw_name)} is not UTF-8") from None
        if name in said:
            raise Malformed(f"it has two fields {quoted(name)}")
        said[name] = value
    return said


def _event(said: dict[str, str]) -> list[str | bytes]:
    for name in said:
        if name not in FIELDS:  # a typing error in "rooms" must not make an event for everybody
            raise Malformed(f"there is no field {quoted(name)}: the fields are {', '.join(FIELDS)}")
    if "event" not in said:
        raise Malformed("it has no field event, the name of the event")
    if "data" in said and "args" in said:
        raise Malformed("it has both data (one argument) and args (a list of arguments)")
    arguments: Any = []
    if "data" in said:
        arguments = [parsed_json("data", said["data"])]
    elif "args" in said:
        arguments = parsed_json("args", said["args"])
        if not isinstance(arguments, list):
            raise Malformed("args must be a JSON list of arguments; data takes one argument")
    return log_fields(
        said["event"],
        arguments,
        said.get("namespace", "/"),
        _listed("rooms", said["rooms"]) if "rooms" in said else (),
        _listed("skip", said["skip"]) if "skip" in said else (),
        _flag("volatile", said.get("volatile", "0")),
    )


def _listed(name: str, text: str) -> list[Any]:
    """A JSON list, or one name as it is."""
    if not text.startswith("["):
        if not text:
            raise Malformed(f"{name} is empty; leave it out if you mean {_ABSENT[name]}")
        return [text]
    value = parsed_json(name, text)
    if not value:
        raise Malformed(f"{name} is an empty list; leave it out if you mean {_ABSENT[name]}")
    return list(value)


def _flag(name: str, text: str) -> bool:
    if text.lower() in ("1", "true"):
        return True
    if text.lower() in ("0", "false", ""):
        return False
    raise Malformed(f"{name} must be 1 or 0, not {quoted(text)}")
