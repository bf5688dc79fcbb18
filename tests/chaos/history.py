"""What happened in a run: what was emitted, what the log holds, what each client saw. No I/O.

Times are in seconds since 1970, by this machine's clock. Events are known by their ids, each used once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Room = str | int
Fate = Literal["stored", "unknown", "withdrawn"]


@dataclass(frozen=True)
class Emit:
    """An event that was emitted, and what the emitter was told of its fate.

    :param rooms: to whom; empty for everybody.
    :param skip: sessions left out.
    :param start: when it was handed to the library; ``end`` is when the library answered.
    """

    id: str
    emitter: str
    rooms: tuple[Room, ...] = ()
    skip: tuple[str, ...] = ()
    start: float = 0.0
    end: float = 0.0
    fate: Fate = "stored"


@dataclass(frozen=True)
class Logged:
    """An entry of the log, as a reader of its own found it: ``event``, ``enter``, ``leave``, ``close``, ...

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
    """The client has a connection: a session of its own, or the one it had (``recovered``)."""

    at: float
    sid: str
    recovered: bool


@dataclass(frozen=True)
class Received:
    """The client got an event.

    :param position: epoch and number, as its offset says.
    """

    at: float
    id: str
    position: tuple[int, int]
    reason: str | None = None  #: a greeting says why the session is a new one


@dataclass(frozen=True)
class Lost:
    """The client noticed that its connection is gone."""

    at: float
    reason: str = ""


Step = Connected | Received | Lost


@dataclass(frozen=True)
class State:
    """What the server said of the client's session when all was over."""

    sid: str
    rooms: frozenset[str]
    data: object


@dataclass
class Client:
    """One client's steps, in order.

    :param witness: it is on a node without faults and in every room, and should never drop: a twin of all others.
    """

    name: str
    steps: list[Step] = field(default_factory=list)
    witness: bool = False
    state: State | None = None


@dataclass
class Mark:
    """A fault, from when to when."""

    text: str
    start: float
    end: float | None = None


def greeting(sid: str) -> str:
    """The id of the event that the ``connect`` handler sends to each new session: what comes after it is owed."""
    return f"hello.{sid}"


@dataclass
class History:
    """A run.

    :param log: all entries, in the order in which a reader of its own found them.
    :param end: the id of the event to everybody that ends the run; what comes before it is owed.
    :param losses: from when to when the log is known to have lost entries, because the scenario made it.
    :param max_disconnection: how long a session waits for its client, in seconds.
    """

    emits: Sequence[Emit]
    log: Sequence[Logged]
    clients: Sequence[Client]
    end: str
    max_disconnection: float
    losses: Sequence[tuple[float, float]] = ()
