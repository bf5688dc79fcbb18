"""The event that all contestants send: the same bytes from each of them, except for the offset.

``contestant.mjs`` makes the same event.
"""

from __future__ import annotations

from typing import Any

#: The name of the event that receivers count.
NAME = "bench"
#: How that event begins in a packet.
MARK = b'["bench"'
#: The name of an event that no receiver gets: it stands for the other traffic in a cluster.
OTHER = "other"


def event_argument(size: int) -> dict[str, Any]:
    """Returns the argument of an event, which is ``size`` bytes long as JSON once ``t`` has its 15 digits.

    The sender sets ``t`` to the time in ns.
    """
    return {"t": 0, "text": "x" * (size - len('{"t":,"text":""}') - 15)}
