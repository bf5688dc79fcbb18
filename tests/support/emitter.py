"""Emits numbered events while a test does something else."""

from __future__ import annotations

import asyncio
from types import TracebackType

from .node_process import NodeProcess


class Emitter:
    """Emits ``tick`` events with the numbers from ``first`` on, in an ``async with`` block, and ends with the block.

    :param node: the node that emits them.
    :param to: the room or session that gets them; ``None`` for everybody.
    """

    def __init__(self, node: NodeProcess, to: str | None, first: int = 0) -> None:
        self.node = node
        self.to = to
        #: The number of the next event.
        self.sent = first
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def _emit(self) -> None:
        while not self._stopping:
            await self.node.emit("tick", self.sent, to=self.to)
            self.sent += 1
            await asyncio.sleep(0.01)  # for the client's sake, it reports each event

    async def __aenter__(self) -> Emitter:
        self._task = asyncio.create_task(self._emit())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        assert self._task is not None
        self._stopping = True
        await self._task
