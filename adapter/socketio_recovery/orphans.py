"""Orphans: sessions whose node died.

When a node dies nobody runs the application's ``disconnect`` handler for its clients, and what the
application counts by ``connect`` and ``disconnect`` (who is online, say) rots. A client that recovers
needs none: it never left. For one that does not, its session's deadline passes; three more heartbeats do
not come either, nor three seconds later, for an owner that is just connecting to Redis again. Then one
living node adopts it and runs the handler, with :data:`NODE_LOST` as the reason.

Exactly one node does, once. If it dies itself while the handler runs, the session is adopted again. An
owner that was only frozen, or cut off from Redis, past the deadline finds out before it runs the handler
for its own connection: see ``Handshake.trigger_event``. It can't find out while it is still cut off.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from .errors import RedisUnavailable
from .sessions import Beat, Orphan, Sessions
from .tasks import Ordered

#: The reason that a ``disconnect`` handler gets for a client whose node died, and that did not come back.
NODE_LOST = "node lost"

#: Orphans that one node looks after at the same time.
MOST = 100
#: Sessions looked at in one step: a long script keeps Redis from serving others.
STEP = 1000


class Orphans:
    """Adopts the sessions of dead nodes.

    :param run: runs the ``disconnect`` handler for an orphan that ``token`` owns, and forgets the session.
    :param interval: how often to look for orphans, in seconds.
    """

    def __init__(
        self,
        sessions: Sessions,
        run: Callable[[Orphan, str], Awaitable[None]],
        tasks: Ordered,
        interval: float,
        logger: logging.Logger,
    ) -> None:
        self.sessions = sessions
        self.tasks = tasks
        self.interval = interval
        self.logger = logger
        self._run = run
        self._slots = asyncio.Semaphore(MOST)
        self.paused = False  # this node is about to stop
        self._here: set[str] = set()  # what waits for a slot, or runs
        self._tokens: dict[str, str] = {}  # of those whose handler runs, by sid

    @property
    def beats(self) -> list[Beat]:
        """Keeps those whose handler runs from being adopted by another node."""
        return [Beat(sid, token, None, ()) for sid, token in self._tokens.items()]

    async def watch(self) -> None:
        """Adopts orphans, for ever. To be run as a task."""
        while True:
            await asyncio.sleep(self.interval)
            try:
                more = not self.paused
                while more:
                    due, more = await self.sessions.due(STEP)
                    if due:
                        # Handlers that take long go on meanwhile; what waits for them too long is due elsewhere.
                        new = [self._start(sid) for sid in due if sid not in self._here]
                        if new:
                            await asyncio.wait(new, timeout=self.interval)
            except RedisUnavailable as error:
                self.logger.warning("can't look for sessions of dead nodes, will try again: %s", error)

    def _start(self, sid: str) -> asyncio.Task[None]:
        async def adopt() -> None:
            async with self._slots:
                token = uuid.uuid4().hex
                orphan = await self.sessions.adopt(sid, token)
                if orphan is None:
                    return  # it came back meanwhile
                self.logger.info("%s did not come back after its node was lost", sid)
                self._tokens[sid] = token
                try:
                    await self._run(orphan, token)
                finally:
                    del self._tokens[sid]

        self._here.add(sid)
        task = self.tasks.start(("orphan", sid), adopt)
        task.add_done_callback(lambda _: self._here.discard(sid))
        return task
