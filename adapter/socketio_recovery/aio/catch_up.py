"""Catching up: a client gets what it missed, in slices, and then goes live.

What the window does not hold comes from the stream (``look_back.py``), the rest from the window.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..connections import Connection, Flow, State
from ..delivery import Delivery
from ..errors import RecordDamaged, RedisUnavailable
from ..metrics import NO_METRICS, Metrics
from ..reasons import Ending
from .look_back import LookBack
from .upstream.engineio_transport import is_open

#: How long a client's first packets may wait for its replay, in seconds.
INLINE = 0.05
#: How long a replay waits for the writer before it goes the slower way, in seconds.
WRITTEN = 1.0


class CatchUp:
    """Replays what clients missed.

    :param close_transport: closes an Engine.IO socket so that its client comes back.
    :param start_disconnect: runs the ``disconnect`` handler of a session that the application has disconnected.
    :param damaged: notes that nobody can go on with a connection's session.
    """

    def __init__(
        self,
        delivery: Delivery,
        look_back: LookBack,
        close_transport: Callable[[Any], None],
        start_disconnect: Callable[[Connection], None],
        damaged: Callable[[Connection], Awaitable[None]],
        logger: logging.Logger,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self.delivery = delivery
        self.look_back = look_back
        self.metrics = metrics
        self.logger = logger
        self._close_transport = close_transport
        self._start_disconnect = start_disconnect
        self._damaged = damaged

    async def start(self, connection: Connection) -> None:
        """The client has its CONNECT: it gets what it missed, then what comes.

        While python-engineio waits for this, it reads nothing from the client, not even pongs. So when there is much to
        catch up on, the rest is sent in a task of its own.
        """
        connection.catching_up = task = asyncio.create_task(self._run(connection))
        await asyncio.wait([task], timeout=INLINE)
        connection.note("greeted")  # whatever becomes of the replay: the connect handler has run
        task.add_done_callback(lambda _: self._done(connection))

    async def over(self, connection: Connection) -> None:
        """Waits until a replay is over, if there is one."""
        if connection.catching_up is not None:
            await asyncio.wait([connection.catching_up])

    async def _run(self, connection: Connection) -> None:
        try:
            await self.replay(connection)
        except LookupError as error:
            raise RedisUnavailable(f"the log was trimmed past a client while it caught up: {error}") from None
        except RecordDamaged:
            await self._damaged(connection)
            raise
        if connection.recovered:
            self.metrics.caught_up(connection.missed, asyncio.get_running_loop().time() - connection.since)
            self.logger.info("%s caught up on %d events", connection.sid, connection.missed)

    async def replay(self, connection: Connection) -> None:
        """Sends what the connection is behind, each slice when the client has read most of the one before.

        Stops early, without making the connection live, when the transport closes or the session was disconnected.

        :raises LookupError: if the log lost it meanwhile.
        :raises RecordDamaged: if the session's record and the log do not agree on its rooms.
        """
        socket = connection.socket
        delivery = self.delivery
        if connection.recovered:
            # First the CONNECT: then what the client missed is one write, past the queue. On a slow link that is shared
            # with another namespace, the writer may always have something to do.
            await socket.queue.written(WRITTEN)
        while connection.flow is Flow.BEHIND and is_open(socket):
            if connection.after < delivery.partition.window.floor:
                await self.look_back.bring(connection)
            else:
                delivery.replay(connection)
            if connection.flow is Flow.BEHIND:
                await socket.queue.drained(delivery.slice // 2, delivery.slice_bytes // 2)
                await asyncio.sleep(0)

    def _done(self, connection: Connection) -> None:
        task, connection.catching_up = connection.catching_up, None
        if task.cancelled() or connection.state is State.GONE:
            return
        if error := task.exception():
            self.logger.warning("%s could not catch up, it will try again: %s", connection.sid, error)
            self._close_transport(connection.socket)
        elif connection.ending is Ending.DISCONNECTED:
            self._start_disconnect(connection)
