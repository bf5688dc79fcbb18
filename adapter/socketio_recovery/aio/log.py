"""Appends to the log and follows it.  The log is one Redis Stream that decides what every client sees.

Writing.  One writer per node appends everything that is queued in one script call (``redis/lua/append.lua``): a *group
commit*. While a call is under way the next batch gathers, so a busier node makes larger batches. A batch whose reply
was lost is sent again as it was. The script skips what it has stored already, by (producer, sequence). So an entry is
stored once, or its fate is told.

Reading.  One reader per node follows the stream from a known position, never from ``$``: what is appended between two
reads can't be missed. It hands whole batches to synchronous code and never waits for the application. A handler that
awaits ``emit`` would otherwise wait for the reader, which would wait for the handler.

The writer reads, too: with each batch it asks for what follows the last entry read, so that an entry is stored and
dispatched in one round trip, and the reader rests while the writer works. What both have read is dispatched once:
entries have ids, and those that are not behind the last one are known already.

What a node concludes from what it reads is in ``log_cursor.py``.

Commands: https://redis.io/docs/latest/commands/xread/, xadd, xrevrange, xtrim.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from ..entries import Entry, Position
from ..errors import LogBroken, PublishTimeout, RedisUnavailable, UnsupportedFormat
from ..identity import Producer
from ..log_cursor import Backwards, Restart
from ..metrics import NO_METRICS, Metrics
from ..partition import Partition
from ..reasons import AppendResult, Fate, RestartReason
from ..redis.format import SUPPORTED
from ..redis.keys import Keys
from ..redis.scripts import APPEND, RENEW, TAIL, Argument
from .redis_link import RedisLink, raised
from .tasks import Backoff

#: Entries in one append, one read, one step backwards.
APPEND_COUNT = 512
READ_COUNT = 512
EXTEND_COUNT = 2000
#: Bytes in one append, roughly: a large batch keeps Redis from serving others.
APPEND_BYTES = 1 << 20
#: How long the reader waits for a quiet stream before it looks whether the log is still the same, in seconds.
READ_BLOCK = 2.0
#: How long the reader leaves the reading to a busy writer, in seconds.
REST = 0.1


class Follower(Protocol):
    """What a node does with the log that it follows. Both methods are synchronous."""

    def restart(self, position: Position, ms: int, why: RestartReason) -> None:
        """Nothing is known of the log before ``position``, which was stored at ``ms`` (Redis's time) or before."""

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """These are the next entries, in order and without a gap."""


class Action(NamedTuple):
    """What an entry does to session records, in the same step. See ``redis/lua/append.lua``."""

    name: str = ""
    #: Script arguments; a ``(key,)`` stands for that key's index, ``None`` for no key.
    arguments: tuple[str | tuple[str] | None, ...] = ()


NO_ACTION = Action()


class Append:
    """An entry on its way into the log."""

    __slots__ = ("action", "deadline", "fields", "future", "sent", "size", "stored")

    def __init__(self, head: str, data: Sequence[str | bytes] = (), action: Action = NO_ACTION) -> None:
        self.fields: Sequence[str | bytes] = ("head", head, *data)
        self.size = sum(map(len, self.fields))
        for argument in action.arguments:
            if isinstance(argument, str):
                argument.encode()  # what has no UTF-8 form is an error here, not of the whole batch
        self.action = action
        self.sent = False
        self.stored = False
        self.deadline = 0.0  # event loop time, seconds
        self.future: asyncio.Future[AppendResult]


class Log:
    """Appends to one log and follows it.

    :param keys: where it is in Redis.
    :param link: makes a dedicated connection; called with its default timeout in seconds.
    :param partition: the log as this node has it; ``None`` for a process that only writes.
    :param retention: how long entries are kept, in milliseconds; 0 leaves it to the nodes.
    :param max_length: how many entries are kept at most, roughly; 0 for no such limit.
    :param publish_timeout: how long :meth:`append` waits, in seconds.
    :param logger: for what an operator should know.
    :param producer: under whose name it appends, if that is to outlive this object.
    """

    def __init__(
        self,
        keys: Keys,
        link: Callable[[float], RedisLink],
        partition: Partition | None,
        retention: int,
        max_length: int,
        publish_timeout: float,
        logger: logging.Logger,
        metrics: Metrics = NO_METRICS,
        producer: Producer | None = None,
    ) -> None:
        self.keys = keys
        self.partition = partition
        self.retention = retention
        self.max_length = max_length
        self.publish_timeout = publish_timeout
        self.metrics = metrics
        self.logger = logger
        self._link = link
        self.producer = producer or Producer()
        self._queue: deque[Append] = deque()
        self._wake: asyncio.Event | None = None
        self._busy = False
        #: Set while nothing is queued or being stored.
        self._idle = asyncio.Event()
        self._idle.set()
        #: Set while the writer is idle or failing; the reader then reads.
        self._rests = asyncio.Event()
        self._rests.set()
        #: Appends that somebody waits for, in the order of their deadlines, and the timer for the first.
        self._unanswered: deque[Append] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the writer was cancelled, so that nothing is stored any more.
        self.ended = False
        self._follower: Follower | None = None
        self._checked = 0  # the number of the connection on which the writer has looked back
        #: The formats of a log that it knows.
        self.formats = SUPPORTED
        #: The log's format, if it is none of these. Nothing is read or written then.
        self.unknown_format: int | None = None
        #: Called when that is found.
        self.when_refused: Callable[[], None] = lambda: None
        #: Whether the last append succeeded.
        self.appends = True
        #: When the reader last heard from Redis (event loop time, seconds); ``None`` before.
        self.read_at: float | None = None

    # -- writing ------------------------------------------------------------------------------------

    async def append(self, append: Append) -> AppendResult:
        """Stores an entry; returns once it is stored and, on a node that follows the log, dispatched.

        :returns: ``STORED``, or why an entry about a room was refused.
        :raises PublishTimeout: after ``publish_timeout`` seconds.
        :raises RuntimeError: if Redis could not store this entry.
        """
        loop = asyncio.get_running_loop()
        append.future = loop.create_future()
        append.deadline = loop.time() + self.publish_timeout
        self._queue.append(append)
        self._idle.clear()
        self._unanswered.append(append)
        if self._timer is None:
            self._timer = loop.call_at(append.deadline, self._expire)
        if self._wake is not None:
            self._wake.set()
        try:
            return await append.future
        except asyncio.CancelledError:
            if not append.sent and append in self._queue:
                self._withdraw(append)
            raise

    def _expire(self) -> None:
        """Tells callers that have waited for too long. All wait equally long, so the first to come is the first."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._unanswered:
            append = self._unanswered[0]
            if not append.future.done():
                if append.deadline > loop.time():
                    self._timer = loop.call_at(append.deadline, self._expire)
                    return
                self._give_up(append)
            self._unanswered.popleft()

    def _give_up(self, append: Append) -> None:
        fate = Fate.STORED if append.stored else Fate.UNKNOWN if append.sent else Fate.WITHDRAWN
        if fate is Fate.WITHDRAWN:
            self._withdraw(append)
        append.future.set_exception(PublishTimeout(fate, self.publish_timeout))

    def _end(self) -> None:
        """The writer was cancelled: who still waits would wait in vain."""
        self.ended = True
        for append in self._unanswered:
            if not append.future.done():
                self._give_up(append)

    def _withdraw(self, append: Append) -> None:
        self._queue.remove(append)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._queue and not self._busy:
            self._idle.set()

    @property
    def idle(self) -> bool:
        """Whether everything that was queued is stored."""
        return self._idle.is_set()

    async def flushed(self) -> None:
        """Waits until everything that is queued is stored."""
        await self._idle.wait()

    async def write(self) -> None:
        """Stores what is queued, for ever. To be run as a task."""
        self._wake = asyncio.Event()
        self._checked = 0
        self.ended = False
        self.producer.begin()
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        looked = False
        try:
            while True:
                for _ in range(2):  # callers that waited for the last batch may append more
                    if not self._queue:
                        await asyncio.sleep(0)
                while not self._queue:
                    self._rests.set()
                    self._wake.clear()
                    await self._wake.wait()
                batch = self._take()
                self._busy = True
                again = False
                while True:
                    try:
                        if not looked or self.unknown_format is not None:
                            await self.tail(link)
                            looked = True
                        await self._store(link, batch, again)
                        break
                    except UnsupportedFormat:
                        self._refuse(batch)
                        break
                    except RedisUnavailable as error:
                        again = self.producer.retried = True
                        self.appends = False
                        self._rests.set()
                        self.logger.warning("can't write to the log, will try again: %s", error)
                        await backoff.wait()
                backoff.reset()
                self.appends = True
                self._busy = False
                self._note_idle()
        except asyncio.CancelledError:
            self._end()
            raise
        finally:
            self._busy = False
            self._note_idle()
            self._rests.set()
            await link.close()

    def _refuse(self, batch: Sequence[Append]) -> None:
        """A batch is not sent, or not again, because the log's format is unknown."""
        if self.producer.waiting:
            self.producer.renew()
        for append in batch:
            if not append.future.done():
                append.future.set_exception(self._unsupported())

    def _take(self) -> list[Append]:
        batch: list[Append] = []
        size = 0
        while self._queue and len(batch) < APPEND_COUNT and size < APPEND_BYTES:
            append = self._queue.popleft()
            append.sent = True
            size += append.size
            batch.append(append)
        return batch

    async def _store(self, link: RedisLink, batch: Sequence[Append], again: bool) -> None:
        self.producer.waiting = True
        producer = self.keys.producer(self.producer.name)
        keys = [self.keys.log, self.keys.meta, producer, self.keys.closes]
        arguments: list[Argument] = [self.producer.sequence, self.retention, self.max_length, len(batch)]
        for append in batch:
            arguments.append(len(append.fields))
            arguments += append.fields
            arguments.append(append.action.name)
            for argument in append.action.arguments:
                if isinstance(argument, tuple):
                    keys.append(argument[0])
                    arguments.append(len(keys))
                else:
                    arguments.append(0 if argument is None else argument)
        try:
            reply = await self._write_and_read(link, keys, arguments)
        except RedisUnavailable:
            raise
        except Exception as error:  # Redis refuses (out of memory, no permission): this time it stored nothing
            stored, refusals = await self._stored(link, producer) if again else (0, b"")
            if stored < self.producer.sequence + len(batch) - 1:
                self.producer.renew()  # nobody will send this batch again
                for append in batch:
                    if not append.future.done():
                        append.future.set_exception(type(error)(*error.args))
                return
            at, _ = await self.tail(link)  # an earlier try was stored, its reply lost
            reply = [*at, *filter(None, refusals.split(b"\n"))]
        self.producer.stored(len(batch))
        self._settle(batch, Position(int(reply[0]), int(reply[1])), reply[2:])

    def _settle(self, batch: Sequence[Append], position: Position, refusals: Sequence[bytes]) -> None:
        """A batch is stored, up to ``position``. Its callers are told once this node has dispatched that."""
        refused = {int(i): why.decode() for i, why in zip(refusals[::2], refusals[1::2], strict=True)}
        for append in batch:
            append.stored = True

        def tell() -> None:
            for i, append in enumerate(batch, 1):
                if append.future.done():
                    continue
                why = refused.get(i)
                if why is None:
                    append.future.set_result(AppendResult.STORED)
                elif why.startswith("failed"):
                    append.future.set_exception(RuntimeError(f"Redis could not store the entry; it {why}"))
                else:
                    append.future.set_result(AppendResult(why))
            while self._unanswered and self._unanswered[0].future.done():
                self._unanswered.popleft()

        self.metrics.stored(len(batch) - len(refused))
        if self.partition is None:
            tell()
        else:
            self.partition.when(position, tell)

    async def _write_and_read(self, link: RedisLink, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs the append script and reads, in one round trip, what follows the last entry read."""
        cursor = None if self.partition is None else self.partition.cursor
        if cursor is None or cursor.at is None or cursor.broken or not link.connected:
            return await link.run(APPEND, keys, arguments)
        if link.number != self._checked:
            try:
                await self._look_back(link)
            except LogBroken as error:
                cursor.break_(error)
                return await link.run(APPEND, keys, arguments)
            self._checked = link.number
        self._rests.clear()
        since, restarts = cursor.id, cursor.restarts
        reply, found = await link.run_many(
            [(APPEND, keys, arguments)], ("XREAD", "COUNT", READ_COUNT, "STREAMS", self.keys.log, since)
        )
        if cursor.restarts == restarts and not cursor.broken and not isinstance(found, Exception):
            try:
                self._take_in(found, since)
            except LogBroken as error:
                cursor.break_(error)
            except Exception:  # the supervised reader finds a hole in place of these entries
                self.logger.exception("what was read of the log could not be dispatched")
        return raised(reply)

    async def _stored(self, link: RedisLink, producer: str) -> tuple[int, bytes]:
        """The last sequence number that is stored, and what was refused of its batch."""
        try:
            sequence, refusals = await link.call("HMGET", producer, "sequence", "refused")
        except RedisUnavailable:
            raise
        except Exception as error:
            self.logger.error("can't ask what became of a batch: %s", error)
            return 0, b""
        return int(sequence or 0), refusals or b""

    # -- reading ------------------------------------------------------------------------------------

    async def tail(self, link: RedisLink, retention: int = 0, raise_format: bool = False) -> tuple[Position, int]:
        """The position of the last entry, and its ms (Redis's time).

        :param retention: what this node needs, in milliseconds; 0 leaves the log's own.
        :param raise_format: raise the log's format to the newest that is known.
        :raises UnsupportedFormat: if the log has a format that is not known.
        """
        arguments = [retention, *self.formats, int(raise_format)]
        epoch, n, ms, said = await link.run(TAIL, [self.keys.log, self.keys.meta], arguments)
        known, format = self.unknown_format, int(said)
        self.unknown_format = None if self.formats.include(format) else format
        if self.unknown_format is not None:
            error = self._unsupported()
            if format != known:
                self.logger.error("%s", error)
                self.when_refused()
            raise error
        return Position(int(epoch), int(n)), int(ms)

    def _unsupported(self) -> UnsupportedFormat:
        assert self.unknown_format is not None
        return UnsupportedFormat(self.unknown_format, self.formats)

    async def follow(self, follower: Follower) -> None:
        """Reads the log, for ever. To be run as a task; run again, it goes on where it was.

        :param follower: is told what is read, and where nothing is known before it.
        """
        assert self.partition is not None
        self._follower = follower
        cursor = self.partition.cursor
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        try:
            while True:
                try:
                    if cursor.at is None:
                        await self._begin(link, RestartReason.BOOT)
                    elif not link.connected:
                        await self.tail(link, self.retention)
                        await self._look_back(link)
                    if cursor.broken:
                        assert cursor.at is not None
                        await link.run(RENEW, [self.keys.log, self.keys.meta], [cursor.at.epoch])
                        await self._begin(link, RestartReason.EPOCH)
                    await self._rest()
                    since = cursor.id
                    reply = await link.call(
                        *("XREAD", "COUNT", READ_COUNT, "BLOCK", int(READ_BLOCK * 1000)),
                        *("STREAMS", self.keys.log, since),
                        timeout=READ_BLOCK + self.publish_timeout,
                    )
                    if reply:
                        self._take_in(reply, since)
                    else:
                        await self._look_at_quiet_log(link)
                    self.read_at = asyncio.get_running_loop().time()
                    backoff.reset()
                    await asyncio.sleep(0)  # let transports write before the next batch
                except LogBroken as error:
                    cursor.break_(error)
                except UnsupportedFormat:
                    await link.close()  # so that the next thing is to look again
                    await backoff.wait()
                except RedisUnavailable as error:
                    self.logger.warning("can't read the log, will try again: %s", error)
                    await backoff.wait()
        finally:
            await link.close()

    async def _begin(self, link: RedisLink, why: RestartReason) -> None:
        """Goes on from the end of the log."""
        assert self.partition is not None
        at, ms = await self.tail(link, self.retention)
        self._restart(self.partition.cursor.begin(why, at, ms))

    async def _rest(self) -> None:
        """Waits while the writer reads, but not for long: its connection may be the one that hangs."""
        if not self._rests.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(REST):
                    await self._rests.wait()

    def _restart(self, verdict: Restart) -> None:
        assert self._follower is not None
        self._follower.restart(*verdict)

    def _take_in(self, reply: Any, since: str) -> None:
        """Dispatches what was read behind the id ``since``.

        :raises LogBroken: if it does not follow what was read before.
        """
        if not reply:
            return
        assert self.partition is not None
        assert self._follower is not None
        items = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        for verdict in self.partition.cursor.read(items, since):
            if isinstance(verdict, Restart):
                self._restart(verdict)
            else:
                self._follower.dispatch(verdict)

    async def _look_back(self, link: RedisLink) -> None:
        """Looks on a new connection whether the last entry read is still there."""
        assert self.partition is not None
        cursor = self.partition.cursor
        mark = cursor.mark()  # the other link may read on meanwhile
        cursor.look_back(mark, await link.call("XREVRANGE", self.keys.log, mark.id, "-", "COUNT", 1))

    async def _look_at_quiet_log(self, link: RedisLink) -> None:
        """Looks whether a log in which nothing came for a while ends where this node stands."""
        assert self.partition is not None
        cursor = self.partition.cursor
        at = cursor.at
        assert at is not None
        verdict = cursor.quiet(at, *await self.tail(link, self.retention))
        if verdict is not None:
            self._restart(verdict)

    async def backwards(self, epoch: int, floor: int, ms: int, take: Callable[[list[Entry]], bool]) -> None:
        """Reads the entries up to ``floor``, backwards, as far as the epoch is stored.

        :param ms: when entry ``floor`` was stored, or later (Redis's time).
        :param take: called with each chunk, oldest first, that ends where the one before it began; returns whether to
            go on.
        :raises RedisUnavailable: if Redis does not answer.
        """
        link = self._link(self.publish_timeout)
        reading = Backwards(epoch, floor, ms, self.logger)
        try:
            while reading.more:
                items = await link.call("XREVRANGE", self.keys.log, reading.end, "-", "COUNT", EXTEND_COUNT)
                chunk = reading.chunk(items)
                if chunk and not take(chunk):
                    return
        finally:
            await link.close()
