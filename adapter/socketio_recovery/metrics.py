"""What can be measured: a protocol that an application's metrics implement. The default does nothing."""

from __future__ import annotations

from typing import Final, Protocol

from .reasons import Ending, Outcome


class Metrics(Protocol):
    """Told what happens on this node. Methods are called on the event loop: they must not block or raise."""

    def connected(self, outcome: Outcome) -> None:
        """A client connected, with its session or with a new one."""

    def caught_up(self, events: int) -> None:
        """A client that recovered was sent everything it had missed, so many events."""

    def ended(self, ending: Ending | None) -> None:
        """A connection ended. ``None``: its handshake failed, or the ``connect`` handler refused it."""

    def stored(self, entries: int) -> None:
        """Redis took a batch of entries into the log."""

    def dispatched(self, entries: int) -> None:
        """A batch of entries was read from the log and dispatched to this node's clients."""

    def overflowed(self) -> None:
        """The transport of a client that does not read was closed: more than ``max_queue`` packets waited for it."""

    def failed(self, task: str) -> None:
        """A background task failed and is started again."""


class NoMetrics:
    """Does nothing."""

    def connected(self, outcome: Outcome) -> None: ...

    def caught_up(self, events: int) -> None: ...

    def ended(self, ending: Ending | None) -> None: ...

    def stored(self, entries: int) -> None: ...

    def dispatched(self, entries: int) -> None: ...

    def overflowed(self) -> None: ...

    def failed(self, task: str) -> None: ...


NO_METRICS: Final = NoMetrics()
