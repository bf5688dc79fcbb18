"""The library's own exceptions. Each is also one that an application already handles."""

from __future__ import annotations

from .reasons import Fate
from .redis.format import Formats


class RedisUnavailable(ConnectionError):
    """Redis can't be reached or can't serve just now (loading, failing over, read-only).

    It may have received what it was asked to do.
    """


class ReplyTooLarge(RedisUnavailable):
    """Internal: a reply had more bytes than its caller can take at once. Its connection was closed."""


class PublishTimeout(TimeoutError):
    """An entry was not stored, or not dispatched on this node, within ``publish_timeout`` seconds.

    ``fate`` says what became of it:

    - ``"withdrawn"``: it was never sent to Redis and won't be. It is safe to emit it again.
    - ``"unknown"``: it was sent and no reply came. The library goes on trying to store it, once. If Redis loses its
      data meanwhile, the library gives up (:class:`PublishAbandoned`).
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


class PublishAbandoned(PublishTimeout):
    """Redis lost its data while an entry was on its way: clients may have seen it, or nobody will.

    The entry is not sent again, because clients could then see it twice. ``fate`` is ``"unknown"``.
    """

    def __init__(self) -> None:
        TimeoutError.__init__(
            self, "Redis lost its data while the entry was on its way; its fate is unknown, and it is not sent again"
        )
        self.fate = Fate.UNKNOWN


class SessionGone(KeyError):
    """The session expired, was forgotten, or belongs to another connection now. Nothing was written.

    It is a ``KeyError``, as python-socketio raises for a ``sid`` that is not connected.
    """

    def __init__(self, sid: str) -> None:
        super().__init__(f"session {sid} is gone, or belongs to another connection now")


class RecordDamaged(Exception):
    """Internal: a session's record in Redis and the log do not agree on its rooms."""

    def __init__(self, sid: str) -> None:
        super().__init__(f"the record of session {sid} does not agree with the log: did Redis evict keys?")


class UnsupportedVersion(RuntimeError):
    """The installed python-socketio or python-engineio lacks something that this library relies on."""


class LogRefused(RuntimeError):
    """The log in Redis is not one that this process can follow, or write to."""


class OtherPartitions(LogRefused):
    """The cluster has another number of partitions than this process."""

    def __init__(self, cluster: int, here: int) -> None:
        super().__init__(
            f"the cluster has shards={cluster}, and this process has shards={here}: use the same number in all "
            "processes. To change it, see docs/partitions.md"
        )
        self.shards = cluster


class UnsupportedFormat(LogRefused):
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
