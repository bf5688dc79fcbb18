"""A TCP proxy between a client and a server, which fails when a test tells it to."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Passes bytes on in both directions, until a test makes it fail.

    Use it in an ``async with``. Clients connect to its :attr:`port`.

    :param target: the port of the server behind it.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        #: While this is clear, the proxy swallows what clients send.
        self.open = asyncio.Event()
        self.open.set()
        #: When a request contains this, its reply is lost and the connection ends. That happens once.
        self.lose_reply_to: bytes | None = None
        #: How many bytes per second get through in each direction, on all connections together; ``None`` for no limit.
        self.bandwidth: float | None = None
        #: When the link is free again, for what clients send and for what they receive (event loop time, seconds).
        self._free = [0.0, 0.0]
        #: How many replies were lost in this way.
        self.lost = 0
        #: Connections (their clients' ends) on which nothing gets through any more, not even that they end.
        self._silent: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await asyncio.sleep(0)  # a client that was just accepted is noted after this
        await self.cut()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def cut(self) -> None:
        """Ends all connections."""
        for writer in list(self._writers):
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # their sockets are closed by then

    def silence(self) -> None:
        """Makes the present connections go silent: neither side notices anything. New connections work."""
        self._silent |= self._writers

    async def _take_turn(self, direction: int, size: int) -> None:
        """Waits as long as so many bytes take on the link, after those that came before."""
        if self.bandwidth is not None:
            now = asyncio.get_running_loop().time()
            self._free[direction] = max(self._free[direction], now) + size / self.bandwidth
            await asyncio.sleep(self._free[direction] - now)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.CancelledError):
            await self._connect(reader, writer)
        self._tasks.discard(task)
        self._writers.discard(writer)
        self._silent.discard(writer)
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.create_task(asyncio.open_connection("127.0.0.1", self.target))
        try:
            behind_reader, behind_writer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            (await opening)[1].close()
            raise
        losing = False

        async def there() -> None:
            nonlocal losing
            while data := await reader.read(1 << 16):
                if not self.open.is_set() or writer in self._silent:
                    continue
                if self.lose_reply_to is not None and self.lose_reply_to in data:
                    self.lose_reply_to = None
                    losing = True
                await self._take_turn(0, len(data))
                behind_writer.write(data)
                await behind_writer.drain()

        async def back() -> None:
            while data := await behind_reader.read(1 << 16):
                if losing:
                    self.lost += 1
                    return
                if writer in self._silent:
                    continue
                await self._take_turn(1, len(data))
                writer.write(data)
                await writer.drain()

        directions = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if writer in self._silent:
                await asyncio.Event().wait()  # until :meth:`cut` is called
        finally:
            behind_writer.close()  # first, since :meth:`cut` may cancel this task during what follows
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
