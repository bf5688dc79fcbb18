"""What can be measured: a protocol that an application's metrics implement. The default does nothing.

``prometheus.py`` implements it for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from .reasons import Ending, Fate, Outcome


class Reading(NamedTuple):
    """How a manager is at the moment. All that is of the log is ``None`` for a process that only writes."""

    healthy: bool  #: see :attr:`AsyncRedisStreamsManager.healthy`
    clients: int  #: connections of this node that get events as they come
    catching_up: int  #: connections of this node that still get what they missed
    queued: int  #: entries that wait to be sent to Redis
    log_lag: float | None  #: how far this node is behind the log, in seconds
    window_entries: int | None  #: entries in the window
    window_bytes: int | None  #: memory that they take, in bytes, roughly
    stream_retention: float | None  #: how far back the stream reaches, in seconds; see ``retention.py``
    window_retention: float | None  #: how far back the window reaches, in seconds
    max_disconnection: float  #: ``max_disconnection_duration``, in seconds


class Metrics(Protocol):
    """Told what happens in this process. Methods are called on the event loop: they must not block or raise.

    A class of an application's own derives from :class:`NoMetrics`, so that it need not have all methods.
    """

    def attached(self, read: Callable[[], Reading | None]) -> None:
        """A manager was made.

        :param read: tells how it is, at any time and in any thread; ``None`` if it is closed, or of another process.
        """

    def connected(self, outcome: Outcome) -> None:
        """A client connected, with its session or with a new one."""

    def caught_up(self, events: int, seconds: float) -> None:
        """A client that recovered was sent all ``events`` that it had missed, ``seconds`` after its CONNECT came."""

    def ended(self, ending: Ending | None) -> None:
        """A connection ended. ``None``: its handshake failed, or the ``connect`` handler refused it."""

    def stored(self, entries: int, size: int) -> None:
        """Redis took a batch of entries into the log, of ``size`` bytes."""

    def appended(self, fate: Fate, entries: int) -> None:
        """The callers of so many entries, possibly none, were told what became of them."""

    def dispatched(self, entries: int) -> None:
        """A batch of entries was read from the log and dispatched to this node's clients."""

    def delivered(self, events: int, size: int) -> None:
        """Events were sent to clients of this node: an event counts once for each recipient.

        :param size: the bytes of their payloads, counted alike.
        """

    def overflowed(self) -> None:
        """The transport of a client that does not read was closed: more than ``max_queue`` packets waited for it."""

    def adopted(self) -> None:
        """This node adopted the session of a dead node, to run its ``disconnect`` handler."""

    def heartbeat(self, seconds: float, succeeded: bool) -> None:
        """A heartbeat for all sessions of this node took so many seconds. If it failed, it is tried again."""

    def loop_delayed(self, seconds: float) -> None:
        """The event loop ran a timer so many seconds late. Called about twice a second."""

    def failed(self, task: str) -> None:
        """A background task failed and is started again."""


class NoMetrics:
    """Does nothing."""

    def attached(self, read: Callable[[], Reading | None]) -> None: ...

    def connected(self, outcome: Outcome) -> None: ...

    def caught_up(self, events: int, seconds: float) -> None: ...

    def ended(self, ending: Ending | None) -> None: ...

    def stored(self, entries: int, size: int) -> None: ...

    def appended(self, fate: Fate, entries: int) -> None: ...

    def dispatched(self, entries: int) -> None: ...

    def delivered(self, events: int, size: int) -> None: ...

    def overflowed(self) -> None: ...

    def adopted(self) -> None: ...

    def heartbeat(self, seconds: float, succeeded: bool) -> None: ...

    def loop_delayed(self, seconds: float) -> None: ...

    def failed(self, task: str) -> None: ...


#: With it, what is only for metrics is not counted at all.
NO_METRICS: Final = NoMetrics()
