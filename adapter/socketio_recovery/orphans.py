"""Orphans: sessions whose node died.

When a node dies nobody runs the application's ``disconnect`` handler for its clients, and what the
application counts by ``connect`` and ``disconnect`` (who is online, say) rots. A client that recovers
needs none: it never left. For one that does not, its session's deadline passes, and one living node
adopts it and runs the handler, with :data:`NODE_LOST` as the reason.

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

#: Handlers for orphans that run at the same time on one node.
MOST = 100


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
        #: How many were adopted by this node.
        self.adopted = 0
        self._run = run
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
                while room := MOST - len(self._tokens):
                    due = await self.sessions.due(room)
                    await asyncio.gather(*map(self._adopt, due))
                    if len(due) < room:
                        break
                    await asyncio.sleep(0)  # handlers that do not wait are done
            except RedisUnavailable as error:
                self.logger.warning("can't look for sessions of dead nodes, will try again: %s", error)

    async def _adopt(self, sid: str) -> None:
        token = uuid.uuid4().hex
        orphan = await self.sessions.adopt(sid, token)
        if orphan is None:
            return  # it came back meanwhile
        self.adopted += 1
        self.logger.info("%s did not come back after its node was lost", sid)
        self._tokens[sid] = token

        async def run() -> None:
            try:
                await self._run(orphan, token)
            finally:
                del self._tokens[sid]

        self.tasks.start((orphan.namespace, sid), run)
