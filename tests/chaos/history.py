"""What happened in a run: what was emitted, what the log holds, what each client saw. No I/O.

Times are in seconds since 1970, by this machine's clock. Each event has an id, which no other event has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Room = str | int
Fate = Literal["stored", "unknown", "withdrawn"]


@dataclass(frozen=True)
class Emit:
    """An event that was emitted, and the fate that the library told its emitter.

    :param rooms: the rooms it is for; empty for everybody.
    :param skip: sessions that do not get it.
    :param size: the length of its padding, in characters or bytes.
    :param start: when it was handed to the library; ``end`` is when the library answered.
    """

    id: str
    emitter: str
    rooms: tuple[Room, ...] = ()
    skip: tuple[str, ...] = ()
    start: float = 0.0
    end: float = 0.0
    fate: Fate = "stored"
    size: int = 0


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of the log, as the runner's own reader found it: ``event``, ``enter``, ``leave``, ``close``, ...

    :param at: when it was stored.
    """

    epoch: int
    n: int
    at: float
    kind: str
    id: str = ""
    rooms: tuple[Room, ...] = ()
    skip: tuple[str, ...] = ()
    sid: str = ""
    room: Room | None = None
    volatile: bool = False


@dataclass(frozen=True)
class Connected:
    """The client connected: it has a new session, or the one it had before (``recovered``)."""

    at: float
    sid: str
    recovered: bool


@dataclass(frozen=True)
class Received:
    """The client received an event.

    :param position: epoch and number, as the event's offset says.
    """

    at: float
    id: str
    position: tuple[int, int]
    reason: str | None = None  #: a greeting says why the session is a new one
    size: int = 0  #: the length of its padding, in characters or bytes


@dataclass(frozen=True)
class Lost:
    """The client noticed that it lost its connection."""

    at: float
    reason: str = ""


Step = Connected | Received | Lost


@dataclass(frozen=True)
class ReportedState:
    """What the server said about the client's session at the end of the run."""

    sid: str
    rooms: frozenset[str]
    data: object


@dataclass
class ClientHistory:
    """What happened to one client, step by step.

    :param witness: the client is on a node without faults, is in every room and should never drop. All other clients
        are compared with it.
    """

    name: str
    steps: list[Step] = field(default_factory=list)
    witness: bool = False
    state: ReportedState | None = None


@dataclass
class FaultMark:
    """A fault, and when it began and ended."""

    text: str
    start: float
    end: float | None = None


def greeting(sid: str) -> str:
    """Returns the id of a session's greeting, an event that the ``connect`` handler sends to each new session.

    The session is owed all events after its greeting.
    """
    return f"hello.{sid}"


@dataclass
class RunHistory:
    """What happened in one run.

    :param log: all entries, in the order in which the runner's own reader found them.
    :param end: the id of the event to everybody that ends the run; all events before it are owed.
    :param losses: the times, from and to, in which the scenario made the log lose entries.
    :param max_disconnection: how long a session waits for its client, in seconds.
    """

    emits: Sequence[Emit]
    log: Sequence[Logged]
    clients: Sequence[ClientHistory]
    end: str
    max_disconnection: float
    losses: Sequence[tuple[float, float]] = ()
