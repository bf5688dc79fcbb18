"""A network between a client and a server that fails when it is told to."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Passes bytes on, until told otherwise.

    Use it in an ``async with``; its port is :attr:`port`.

    :param target: the port of the server behind it.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        #: Clients' bytes are swallowed while this is clear.
        self.open = asyncio.Event()
        self.open.set()
        #: The reply to the next request that contains this is lost, and the connection with it.
        self.lose_reply_to: bytes | None = None
        self.lost = 0
        #: Clients' ends of connections on which nothing gets through any more, not even their end.
        self._silent: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await asyncio.sleep(0)  # who was let in just now is known after this
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
        """The connections of now go dead, without a word to either side; new ones are as before."""
        self._silent |= self._writers

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
                behind_writer.write(data)
                await behind_writer.drain()

        async def back() -> None:
            while data := await behind_reader.read(1 << 16):
                if losing:
                    self.lost += 1
                    return
                if writer in self._silent:
                    continue
                writer.write(data)
                await writer.drain()

        directions = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if writer in self._silent:
                await asyncio.Event().wait()  # until it is cut
        finally:
            behind_writer.close()  # first: a cut may come while the rest is awaited
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
