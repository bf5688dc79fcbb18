"""What tests append to the log: each function returns one entry that :meth:`Log.append` takes."""

from __future__ import annotations

from socketio_recovery.aio.log import Append, Log
from socketio_recovery.entries import (
    CLOSE,
    DISCONNECT,
    JSON,
    Payload,
    Room,
    control_head,
    event_head,
    payload_fields,
)
from socketio_recovery.redis import actions


def event(name: str, *attachments: bytes) -> Append:
    """An event to everybody, with this name, and with binary attachments."""
    payload = Payload(JSON, f'["{name}"]'.encode(), attachments, 0)
    return Append(event_head("/", [], [], payload), payload_fields(payload))


def moves(log: Log, kind: str, sid: str, room: Room, namespace: str = "/") -> Append:
    """A session enters or leaves a room: what the manager's ``enter_room`` and ``leave_room`` append.

    :param kind: ``ENTER`` or ``LEAVE``.
    """
    return Append(control_head(kind, namespace, sid, room), (), actions.moves(kind, log.keys, namespace, sid, room))


def closes(log: Log, room: Room, namespace: str = "/") -> Append:
    """A room is closed: what the manager's ``close_room`` appends."""
    return Append(control_head(CLOSE, namespace, room), (), actions.closes(log.keys, namespace, room))


def forgets(log: Log, sid: str) -> Append:
    """A session is ended: what the manager's ``disconnect`` appends."""
    return Append(control_head(DISCONNECT, "/", sid), (), actions.ends(log.keys, "/", sid))
