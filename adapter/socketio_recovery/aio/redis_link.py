"""One dedicated connection to Redis.

Two habits of client libraries do harm here, so commands do not go through their connection pools:

* redis-py 8 repeats a command by itself when its reply is lost, which would store an entry twice;
* its default ``socket_timeout`` of 5 s would end a reader that waits for a quiet stream.

A :class:`RedisLink` is one connection that one task uses. It sends a command once. Only the caller knows whether a
retry is safe.

Time limits are for silence, not for completion: a large reply on a slow link takes its time. (Without hiredis 3.2 or
newer a reply has to be complete in that time.) A connection that died without a word is found out by the silence, and
by TCP's keepalive.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from ..errors import RedisUnavailable, ReplyTooLarge
from ..redis.scripts import Argument, Call, Script
from .redis_servers import RedisServers

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

#: hiredis before 3.2 has no push messages and can't pack commands.
_PUSH: Any = getattr(hiredis, "PushNotification", ())
_FAST = hasattr(hiredis, "pack_command")

#: How TCP finds out that the other end is gone: after 10 s without a word, three questions, 5 s apart.
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

#: Replies that mean "not now" rather than "no". Client libraries cut the code off where they have a class for it.
_NOT_NOW_CLASSES = {"BusyLoadingError", "ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError"}
_NOT_NOW_CODES = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "NOREPLICAS", "UNBLOCKED")
#: Replies of a cluster: the slot is on another server; it is being moved to another server.
_MOVED, _ASK = {"MovedError"}, {"AskError"}


class RedisLink:
    """A connection of its own to Redis.

    :param servers: makes the connections, and keeps this link and others on one server.
    :param timeout: how long Redis may be silent, in seconds.
    """

    def __init__(self, servers: RedisServers, timeout: float) -> None:
        self._servers = servers
        self._timeout = timeout
        self._connection: Any = None
        self._fast: RedisTransport | None = None
        self._aborting: asyncio.Task[None] | None = None
        #: Which server it leads to; ``None`` without a connection.
        self.server: str | None = None
        self._left = False
        #: How many connections it has opened so far.
        self.number = 0
        #: Bytes of the last replies; 0 if they are not known.
        self.received = 0

    @property
    def connected(self) -> bool:
        """Whether the next command goes where the last one went."""
        return self._connection is not None

    async def call(self, *command: Argument, timeout: float | None = None, limit: int = 0) -> Any:
        """One command and its reply, undecoded.

        :param timeout: how long Redis may be silent, in seconds, instead of what the link was made with.
        :param limit: how many bytes the reply may have; 0 for no limit.
        :raises RedisUnavailable: if there is no connection or no reply; the command may have been executed.
        :raises ReplyTooLarge: if the reply has more bytes.
        """
        return raised((await self._exchange([command], timeout or self._timeout, limit))[0])

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs a script, as :meth:`call`. See https://redis.io/docs/latest/commands/evalsha/."""
        return raised((await self.run_many([(script, keys, arguments)]))[0])

    async def run_many(self, calls: Sequence[Call], *more: Sequence[Argument], limit: int = 0) -> list[Any]:
        """Runs scripts one after the other, then ``more`` commands, in one round trip. Replies may be exceptions.

        A script that the server does not know is loaded and then run, after the others.
        """
        commands = [("EVALSHA", s.sha, len(keys), *keys, *arguments) for s, keys, arguments in calls]
        replies = await self._exchange([*commands, *more], self._timeout, limit)
        unknown = [i for i, reply in enumerate(replies) if _is(reply, {"NoScriptError"}, ("NOSCRIPT",))]
        if unknown:
            commands = [("EVAL", calls[i][0].source, *commands[i][2:]) for i in unknown]
            for i, reply in zip(unknown, await self._exchange(commands, self._timeout), strict=True):
                replies[i] = reply
        return replies

    async def _exchange(self, commands: Sequence[Sequence[Argument]], timeout: float, limit: int = 0) -> list[Any]:
        try:
            if self._left:
                raise ConnectionAbortedError("another server is the one to ask now")
            if self._connection is None:
                async with asyncio.timeout(timeout):
                    await self._connect(timeout)
            self._fast = self._fast or RedisTransport.take_over(self._connection)
            if not commands:
                return []
            packed = _packed(self._connection, commands)
            if self._fast is not None:
                replies = await self._fast.exchange(packed, len(commands), timeout, limit)
                self.received = self._fast.received
            else:
                async with asyncio.timeout(timeout):
                    replies = await self._talk(packed, len(commands))
        except BaseException as error:
            await self.close()
            self._servers.failed()
            if isinstance(error, TimeoutError):
                raise RedisUnavailable(f"Redis did not answer within {timeout:g} s") from error
            if isinstance(error, RedisUnavailable):
                raise
            if isinstance(error, OSError) or _is_library(error):
                raise RedisUnavailable(f"{type(error).__name__}: {error}") from error
            raise
        for reply in replies:
            gone = isinstance(reply, Exception) and not _is_reply(reply)  # no answer: "authenticate first", say
            if gone or _is(reply, _NOT_NOW_CLASSES | _ASK, _NOT_NOW_CODES):
                await self.close()  # perhaps another server is the one to ask now
                self._servers.failed()
                raise RedisUnavailable(f"{type(reply).__name__}: {reply}")
            if _is(reply, _MOVED, ("MOVED ",)):  # in old versions only clients for clusters have the class
                # Without a host it is that of the server which says it.
                host, port = getattr(reply, "host", "") or self._connection.host, getattr(reply, "port", 0)
                await self.close()
                raise RedisUnavailable(self._servers.moved(host, port))
        return replies

    async def _talk(self, packed: Any, count: int) -> list[Any]:
        connection = self._connection
        await connection.send_packed_command(packed, check_health=False)
        replies = []
        for _ in range(count):
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except Exception as error:
                if not _is_reply(error):
                    raise
                replies.append(error)
        return replies

    async def _connect(self, timeout: float) -> None:
        connection = await self._servers.connection(timeout)
        if getattr(connection, "retry", None) is not None:
            backoff = import_module(type(connection.retry).__module__.split(".")[0] + ".backoff").NoBackoff()
            connection.retry = type(connection.retry)(backoff, 0)
        connection.socket_timeout = None  # each exchange has its own
        if hasattr(connection, "socket_keepalive"):  # not on a Unix domain socket
            connection.socket_keepalive = True
            connection.socket_keepalive_options = connection.socket_keepalive_options or KEEPALIVE
        self.number += 1
        self._connection = connection  # closed by close(), also when it is cancelled on its way
        await connection.connect()
        if self._servers.reached(self, await self._identity()):
            await asyncio.sleep(0)  # tasks that have a reply of the other server make use of it first, if at all

    async def _identity(self) -> str:
        """Which server the connection leads to: its ``run_id``, or its address where ``INFO`` may not be asked for."""
        info = (await self._talk(self._connection.pack_commands([("INFO", "server")]), 1))[0]
        found = re.search(rb"run_id:(\w+)", info) if isinstance(info, bytes) else None
        if found is not None:
            return found[1].decode()
        return f"{self._connection.host}:{self._connection.port}" if hasattr(self._connection, "port") else ""

    async def open(self) -> None:
        """Opens a connection, if there is none.

        :raises RedisUnavailable: if that fails; nothing was sent.
        """
        if self._connection is None:
            await self._exchange([], self._timeout)

    def abort(self) -> None:
        """Ends the exchange that another task is waiting for: it raises :class:`RedisUnavailable`."""
        if self._fast is not None:
            self._fast.abort()
        elif self._connection is not None:
            self._aborting = asyncio.create_task(self._connection.disconnect(nowait=True))

    def leave(self) -> None:
        """Closes the connection, because another server is the one to ask now.

        The exchange that is under way raises :class:`RedisUnavailable`, or else the next one does: who uses the link
        has to look at the log anew.
        """
        self.server = None
        self._left = True
        self.abort()

    async def close(self) -> None:
        """Closes the connection; the next command opens another."""
        connection, self._connection = self._connection, None
        self._fast = self.server = None
        self._left = False
        if connection is not None:
            with suppress(Exception):  # it is of no further use either way
                await connection.disconnect(nowait=True)


class RedisTransport(asyncio.Protocol):
    """The transport of a connection that a client library has opened: it sends bytes and parses replies.

    The library connects, authenticates and speaks TLS. After that its streams, tasks and locks would cost several times
    as much as the command and its reply, so they are bypassed. hiredis parses replies when their bytes arrive.
    """

    def __init__(self, connection: Any, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reader = hiredis.Reader(replyError=connection._parser.parse_error)
        self._replies: list[Any] = []
        self._missing = 0
        self._done: asyncio.Future[list[Any]] | None = None
        #: Bytes of the replies so far, and how many they may have; 0 for no limit.
        self.received = 0
        self._limit = 0
        self._heard = 0.0  # when bytes came (event loop time, seconds)
        self._lost: Exception | None = None
        transport.set_protocol(self)

    @classmethod
    def take_over(cls, connection: Any) -> RedisTransport | None:
        """Takes over a connection's transport; ``None`` if that can't be done, and the library's streams go on."""
        writer = getattr(connection, "_writer", None)
        if not _FAST or not isinstance(writer, asyncio.StreamWriter) or not hasattr(connection, "_parser"):
            return None
        return cls(connection, writer.transport)  # type: ignore[arg-type]

    async def exchange(self, commands: bytes, count: int, timeout: float, limit: int = 0) -> list[Any]:
        """Sends ``count`` commands, and waits for as many replies.

        :raises TimeoutError: if nothing comes for so many seconds.
        :raises ReplyTooLarge: if more than ``limit`` bytes come.
        :raises OSError: if the connection is lost.
        """
        if self._lost is not None:
            raise self._lost
        if self._replies:
            raise ConnectionError("Redis replied to what it was not asked")
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        self._missing = count
        self.received, self._limit = 0, limit
        self._heard = loop.time()
        self._timer = loop.call_later(timeout, self._look_at_time, timeout)
        try:
            self._transport.write(commands)
            return await self._done
        finally:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._heard = asyncio.get_running_loop().time()
        if self._limit and self.received > self._limit:
            self._fail(ReplyTooLarge(f"a reply has more than {self._limit} bytes"))
            self._transport.abort()
            return
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, _PUSH):
                    continue
                self._replies.append(reply)
                if len(self._replies) == self._missing:
                    replies, self._replies = self._replies, []
                    if self._done is not None and not self._done.done():
                        self._done.set_result(replies)
        except hiredis.ProtocolError as error:
            self._fail(ConnectionError(f"not the Redis protocol: {error}"))
            self._transport.abort()

    def abort(self) -> None:
        """Ends the exchange and the connection."""
        self._fail(ConnectionAbortedError("given up"))
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc if isinstance(exc, OSError) else ConnectionError("Connection closed by server."))

    def _look_at_time(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if self._done is None or self._done.done():  # the reply came at the same time
            return
        rest = self._heard + timeout - loop.time()
        if rest > 0:
            self._timer = loop.call_later(rest, self._look_at_time, timeout)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        self._lost = error
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


def _packed(connection: Any, commands: Sequence[Sequence[Argument]]) -> Any:
    """Commands as bytes. redis-py's own packing, in Python, takes as long as all else that an ``emit`` does."""
    if not _FAST:
        return connection.pack_commands(commands)
    return b"".join([hiredis.pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]


def _is_library(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ("redis", "valkey")


def _is_reply(error: Exception) -> bool:
    """Whether the error is an answer of the server, so that the connection is still in step."""
    return _is_library(error) and any(c.__name__ == "ResponseError" for c in type(error).__mro__)


def _is(reply: Any, classes: set[str], codes: tuple[str, ...]) -> bool:
    return isinstance(reply, Exception) and (type(reply).__name__ in classes or str(reply).startswith(codes))


def raised(reply: Any) -> Any:
    """``reply``, unless it is an exception."""
    if isinstance(reply, Exception):
        raise reply
    return reply
