"""Operations on many sessions: entries of the log for each, in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from ..entries import Room
from ..errors import RedisUnavailable
from .log import APPEND_COUNT
from .membership_log import MembershipLog
from .participants import STEP, Participants


async def move(
    membership: MembershipLog,
    kind: Literal["enter", "leave"],
    namespace: str,
    sids: Sequence[str],
    rooms: Sequence[Room],
) -> int:
    """Sessions enter or leave rooms. Those that have ended meanwhile are passed over.

    :returns: how many sessions entered, or left, at least one of the rooms.

    As many entries are queued at a time as one append takes: what others emit meanwhile waits no longer than for that.
    """
    moved = 0
    step = max(1, APPEND_COUNT // max(1, len(rooms)))
    for start in range(0, len(sids), step):
        moves = []
        for sid in sids[start : start + step]:  # a session is always in its own room
            moves += membership.move(kind, sid, namespace, [room for room in rooms if room != sid])
        moved += len(await membership.settle(moves, logging.DEBUG))
    return moved


async def disconnect(
    membership: MembershipLog, participants: Participants, namespace: str, sids: Sequence[str]
) -> None:
    """Sessions end now, wherever they are."""
    for start in range(0, len(sids), STEP):
        left = await membership.disconnect_all(sids[start : start + STEP], namespace)
        with suppress(RedisUnavailable):  # then they are counted in their rooms until their deadlines
            await asyncio.gather(*(participants.place(sid, namespace, rooms) for sid, rooms in left.items()))
