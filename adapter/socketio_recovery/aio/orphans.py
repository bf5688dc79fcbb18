"""Orphans: sessions whose node died.

When a node dies, nobody runs the application's ``disconnect`` handler for its clients, and what the application counts
by ``connect`` and ``disconnect`` (who is online, for example) becomes wrong. A client that recovers needs no handler,
because it never left. If a client does not recover, its session's deadline passes. Its owner then has three more
heartbeats and three seconds, because it may just be connecting to Redis again. After that one living node adopts the
session and runs the handler, with :data:`NODE_LOST` as the reason.

Exactly one node does so, once. If that node dies while the handler runs, the session is adopted again. An owner that
was only frozen, or cut off from Redis, past the deadline finds out before it runs the handler for its own connection:
see :meth:`Leaving.handler_ran_elsewhere`. It can't find out while it is still cut off.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from ..errors import RedisUnavailable
from ..metrics import Metrics
from ..session_record import Heartbeat, Orphan
from .sessions import Sessions
from .tasks import KeyedQueue

#: Orphans that one node looks after at the same time.
MOST = 100
#: Sessions looked at in one step: a long script keeps Redis from serving others.
STEP = 1000


class Orphans:
    """Adopts the sessions of dead nodes.

    :param run: runs the ``disconnect`` handler for an orphan that ``token`` owns, and forgets the session.
    :param interval: how often to look for orphans, in seconds.
    :param may: whether this node may adopt any: one that can't use the log must not.
    """

    def __init__(
        self,
        sessions: Sessions,
        run: Callable[[Orphan, str], Awaitable[None]],
        tasks: KeyedQueue,
        interval: float,
        metrics: Metrics,
        logger: logging.Logger,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self.sessions = sessions
        self._may = may
        self.tasks = tasks
        self.interval = interval
        self.metrics = metrics
        self.logger = logger
        self._run = run
        self._slots = asyncio.Semaphore(MOST)
        self.paused = False  # this node is about to stop
        self._here: set[str] = set()  # sessions that wait for a slot, or whose handler runs
        self._tokens: dict[str, str] = {}  # the tokens of those whose handler runs, by sid

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """For the sessions whose handler runs here, so that no other node adopts them."""
        return [Heartbeat(sid, token, None, ()) for sid, token in self._tokens.items()]

    async def watch(self) -> None:
        """Adopts orphans, for ever. To be run as a task."""
        while True:
            await asyncio.sleep(self.interval)
            try:
                more = not self.paused and self._may()
                while more:
                    due, more = await self.sessions.due(STEP)
                    if due:
                        # Handlers that take long go on meanwhile. Orphans that wait too long for a slot are due
                        # elsewhere.
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
                self.metrics.adopted()
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
