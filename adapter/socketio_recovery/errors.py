"""The library's own exceptions. Each is also one that an application already handles."""

from __future__ import annotations


class RedisUnavailable(ConnectionError):
    """Redis can't be reached or can't serve just now (loading, failing over, read-only)."""


class PublishTimeout(TimeoutError):
    """An entry was not stored, or not dispatched on this node, within ``publish_timeout`` seconds.

    ``fate`` says what became of it:

    - ``"withdrawn"``: it was never sent to Redis and won't be; it is safe to emit it again.
    - ``"unknown"``: it was sent and no reply came; the library goes on trying to store it, once.
    - ``"stored"``: clients will receive it; only this node's own reader is behind.
    """

    def __init__(self, fate: str, seconds: float) -> None:
        self.fate = fate
        advice = {
            "withdrawn": "it was withdrawn: emit it again if it still matters",
            "unknown": "its fate is unknown: the library keeps trying to store it, once",
            "stored": "it is stored and will be delivered; this node's reader is behind",
        }[fate]
        super().__init__(f"Redis did not take the entry within publish_timeout={seconds:g} s; {advice}")


class SessionGone(KeyError):
    """The session expired, was forgotten, or belongs to another connection now; nothing was written.

    A ``KeyError``, as python-socketio raises for a ``sid`` that is not connected.
    """

    def __init__(self, sid: str) -> None:
        super().__init__(f"session {sid} is gone, or belongs to another connection now")


class LogBroken(Exception):
    """Internal: the log lost entries that this node had read, in this epoch."""

    def __init__(self, epoch: int, text: str) -> None:
        super().__init__(text)
        self.epoch = epoch
