"""The library's own exceptions. Each is also one that an application already handles."""

from __future__ import annotations

from .reasons import Fate
from .redis.format import Formats


class RedisUnavailable(ConnectionError):
    """Redis can't be reached or can't serve just now (loading, failing over, read-only)."""


class PublishTimeout(TimeoutError):
    """An entry was not stored, or not dispatched on this node, within ``publish_timeout`` seconds.

    ``fate`` says what became of it:

    - ``"withdrawn"``: it was never sent to Redis and won't be. It is safe to emit it again.
    - ``"unknown"``: it was sent and no reply came. The library goes on trying to store it, once.
    - ``"stored"``: clients will receive it. Only this node's own reader is behind.
    """

    def __init__(self, fate: Fate, seconds: float) -> None:
        self.fate = fate
        advice = {
            Fate.WITHDRAWN: "it was withdrawn: emit it again if it still matters",
            Fate.UNKNOWN: "its fate is unknown: the library keeps trying to store it, once",
            Fate.STORED: "it is stored and will be delivered; this node's reader is behind",
        }[fate]
        super().__init__(f"Redis did not take the entry within publish_timeout={seconds:g} s; {advice}")


class SessionGone(KeyError):
    """The session expired, was forgotten, or belongs to another connection now. Nothing was written.

    It is a ``KeyError``, as python-socketio raises for a ``sid`` that is not connected.
    """

    def __init__(self, sid: str) -> None:
        super().__init__(f"session {sid} is gone, or belongs to another connection now")


class UnsupportedVersion(RuntimeError):
    """The installed python-socketio or python-engineio lacks something that this library relies on."""


class UnsupportedFormat(RuntimeError):
    """The log in Redis has a format that this version does not know. The process does not follow it or write to it."""

    def __init__(self, format: int, known: Formats) -> None:
        if format > known.newest:
            advice = "install the version that the other processes of this cluster have"
        else:
            advice = (
                f"first run a version that knows both {format} and {known.oldest} in all processes, and call "
                "raise_format() there"
            )
        versions = "format " + " to ".join(map(str, sorted(set(known))))
        super().__init__(
            f"the log in Redis has format {format}, and this version of socketio-recovery knows {versions}: {advice}"
        )
        self.format = format


class HooksReplaced(RuntimeError):
    """Something put python-socketio's own methods back where this library had wrapped them: recovery can't work."""


class LogBroken(Exception):
    """Internal: the log lost entries that this node had read, in this epoch."""

    def __init__(self, epoch: int, text: str) -> None:
        super().__init__(text)
        self.epoch = epoch
