"""The words for why something happened, as enums: how clients connect, how connections end, what became of an entry.

All but :class:`Ending` are also strings, so that they can be logged, compared with and sent as they are.
"""

from __future__ import annotations

from enum import Enum, StrEnum

#: The reason that a ``disconnect`` handler gets for a client whose node died, and that did not come back.
NODE_LOST = "node lost"


class Outcome(StrEnum):
    """How a client connected: with the session it had, or else why it was given a new one."""

    RECOVERED = "recovered"
    #: It did not ask for a session that it had.
    NEW = "new"
    #: It can't use recovery, see :func:`can_recover`.
    CLIENT = "client"
    #: There is no such session, or the client does not know its secret: the session was forgotten by a disconnect, it
    #: expired long ago, or Redis was wiped.
    UNKNOWN = "unknown"
    #: The client came back later than ``max_disconnection_duration``.
    EXPIRED = "expired"
    #: Redis lost the end of the log since then, in a failover or a crash.
    EPOCH = "epoch"
    #: The log no longer holds everything that the client missed.
    TRIMMED = "trimmed"
    #: The client names an offset that no event has had.
    OFFSET = "offset"
    #: The session's record in Redis is not as this library writes it.
    DAMAGED = "damaged"
    #: The client's ``pid`` or offset does not have the form that this library gives them.
    MALFORMED = "malformed"


class Ending(Enum):
    """How a connection ends. It decides what becomes of its session."""

    #: The client disconnected on purpose: the session is forgotten.
    LEFT = "left"
    #: The application disconnected the client: the session is forgotten.
    DISCONNECTED = "disconnected"
    #: The transport was lost: the session is kept until the client comes back or its time is over.
    LOST = "lost"


class Fate(StrEnum):
    """What became of an entry, as the caller was told. The first three are those of :class:`PublishTimeout`."""

    #: It was never sent, and will not be.
    WITHDRAWN = "withdrawn"
    #: It was sent, and nobody knows whether it is stored.
    UNKNOWN = "unknown"
    STORED = "stored"
    #: Redis lost its data while it was on its way: :class:`PublishAbandoned`.
    ABANDONED = "abandoned"
    #: The script refused a change of rooms; see :class:`AppendResult`.
    REFUSED = "refused"
    #: Redis could not store it.
    FAILED = "failed"


class AppendResult(StrEnum):
    """What the append script did with an entry. The values are those of ``redis/lua/append.lua``."""

    STORED = "stored"
    #: Refused: there is no such session.
    UNKNOWN_SESSION = "unknown"
    #: Refused: the room is another session's own.
    SID_ROOM = "sid"
    #: Refused: there is nothing to change.
    UNCHANGED = "same"


class RestartReason(StrEnum):
    """Why a node knows nothing of the log before some position."""

    #: It has just begun to follow the log.
    BOOT = "boot"
    #: The log was begun anew.
    EPOCH = "epoch"
    #: The log was trimmed past this node.
    TRIMMED = "trimmed"
