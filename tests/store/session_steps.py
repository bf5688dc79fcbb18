"""Steps that the tests of sessions share: to create a session, and to claim it."""

from __future__ import annotations

from socketio_recovery.aio.sessions import Sessions
from socketio_recovery.entries import Position
from socketio_recovery.session_record import Pid, Record, Refused


async def created(sessions: Sessions, sid: str = "s1", token: str = "t1", namespace: str = "/") -> tuple[Pid, Position]:
    """Creates a session; returns its pid, and the position at its birth."""
    pid = Pid.new(sid)
    return pid, await sessions.create(sid, pid, namespace, token, "transport-" + token)


async def claimed(sessions: Sessions, pid: Pid, token: str, namespace: str = "/") -> Record:
    """Claims a session, which must succeed; returns its record."""
    record = await sessions.claim(pid, namespace, token, "transport-" + token)
    assert isinstance(record, Record), record
    return record


async def refused(sessions: Sessions, pid: Pid, token: str = "t9", namespace: str = "/") -> str:
    """Claims a session, which must be refused; returns the reason."""
    record = await sessions.claim(pid, namespace, token, "transport-" + token)
    assert isinstance(record, Refused), record
    return record.outcome
