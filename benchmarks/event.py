"""What all contestants send: one event, the same bytes but for their offsets. ``contestant.mjs`` has it too."""

from __future__ import annotations

from typing import Any

#: The event that receivers count.
NAME = "bench"
#: How it begins in a packet.
MARK = b'["bench"'
#: An event that nobody gets: what else happens in a cluster.
OTHER = "other"


def event_argument(size: int) -> dict[str, Any]:
    """The argument of an event, ``size`` bytes long as JSON once ``t`` has its 15 digits."""
    return {"t": 0, "text": "x" * (size - len('{"t":,"text":""}') - 15)}
