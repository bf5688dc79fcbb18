"""Draining before a server stops that would close all connections by itself."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manager import AsyncRedisStreamsManager

logger = logging.getLogger("socketio_recovery")


def drain_on_sigterm(manager: AsyncRedisStreamsManager, over: float = 0, timeout: float = 30) -> None:
    """Makes SIGTERM drain this node first. When that is done, the signal goes to who handled it before: the server.

    For servers that close all connections when SIGTERM comes, before they tell the application: uvicorn, and gunicorn
    with uvicorn's worker. Call it when the application starts (``lifespan``), since the server sets its own handler
    before that::

        @asynccontextmanager
        async def lifespan(app):
            await manager.start()
            drain_on_sigterm(manager, over=10)
            yield
            await manager.drain()  # what has not left: after Ctrl+C, or a second SIGTERM
            await manager.close()

    A second SIGTERM goes to the server at once. So does Ctrl+C.

    :param manager: the manager of this node.
    :param over: spreads the closing over this many seconds; see :meth:`AsyncRedisStreamsManager.drain`.
    :param timeout: how long to wait for handlers after that, in seconds.

    In another thread than the main one it does nothing, since no signal arrives there: an application may run so in
    its tests.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    tasks: set[asyncio.Task[None]] = set()  # the event loop itself does not keep them

    async def drain() -> None:
        try:
            await manager.drain(over, timeout)
        except Exception:
            logger.exception("draining failed; the node stops without it")
        finally:
            signal.raise_signal(signal.SIGTERM)

    def terminate(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL if before is None else before)
        if loop.is_closed():
            signal.raise_signal(number)
        else:
            loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(drain())))

    signal.signal(signal.SIGTERM, terminate)
