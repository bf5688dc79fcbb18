"""Callbacks of emitted events: kept until the client acknowledges the event, on whatever node the client is.

Where several are asked, their answers are gathered until all have come, or the time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from ..entries import Payload, Room, callback_head, payload_fields
from ..packets import Codec
from .gathering import Gathering
from .log import Append, Log
from .tasks import KeyedQueue

#: How long a client may take to acknowledge an event, in seconds. Older callbacks are dropped.
LIFETIME = 3600.0


class Callbacks:
    """The callbacks that this node waits for, and the answers that it passes on to other nodes.

    :param node: this node's name.
    """

    def __init__(self, node: str, log: Log, codec: Codec, tasks: KeyedQueue) -> None:
        self.node = node
        self.log = log
        self.codec = codec
        self.tasks = tasks
        self._ids = count(1)
        #: id -> (room that the event was emitted to, when, callback), the oldest first.
        self._kept: dict[int, tuple[Room, float, Callable[..., Any]]] = {}
        self._gathering: dict[int, Gathering] = {}

    def keep(self, room: Room, callback: Callable[..., Any]) -> int:
        """Keeps a callback; returns its id."""
        id = next(self._ids)
        self._kept[id] = (room, asyncio.get_running_loop().time(), callback)
        return id

    def drop(self, id: int) -> None:
        """Nobody will answer."""
        self._kept.pop(id, None)

    @contextmanager
    def gather(self) -> Iterator[tuple[int, Gathering]]:
        """Gathers the answers of several: an id, and what has come. What comes after the ``with`` is dropped."""
        id = next(self._ids)
        gathering = self._gathering[id] = Gathering()
        try:
            yield id, gathering
        finally:
            del self._gathering[id]

    def drop_old(self) -> None:
        """Drops callbacks that are older than :data:`LIFETIME`."""
        limit = asyncio.get_running_loop().time() - LIFETIME
        while self._kept:
            id, (_, since, _) = next(iter(self._kept.items()))
            if since > limit:
                break
            del self._kept[id]

    async def acknowledged(self, node: str, id: int, arguments: Sequence[Any], sid: str) -> None:
        """A client of this node has answered callback ``id`` of ``node``, which may be another one."""
        if node == self.node:
            await self._run(id, arguments, sid)
        else:
            payload = self.codec.encode(arguments)
            await self.log.append(Append(callback_head(node, id, payload, sid), payload_fields(payload)))

    def answered(self, id: int, payload: Payload, by: str) -> None:
        """A client of another node, or that node, has answered callback ``id`` of this one: starts to run it."""

        async def run() -> None:
            await self._run(id, self.codec.decode(payload), by)

        kept = self._kept.get(id)
        if kept is not None:
            self.tasks.start(("callback", kept[0]), run)
        elif id in self._gathering:
            self.tasks.start(("callback", id, by), run)

    async def _run(self, id: int, arguments: Sequence[Any], by: str) -> None:
        if (gathering := self._gathering.get(id)) is not None:
            gathering.add(by, arguments)
            return
        kept = self._kept.pop(id, None)
        if kept is not None:
            result = kept[2](*arguments)
            if asyncio.iscoroutine(result):
                await result
