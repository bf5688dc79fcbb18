"""Appends to the log and follows it.  The log is one Redis Stream that decides what every client sees.

Writing.  One writer per node appends everything that is queued in one script call (``redis/lua/append.lua``): a *group
commit*. While a call is under way the next batch gathers, so a busier node makes larger batches. A batch whose reply
was lost is sent again as it was. The script skips what it has stored already, by (producer, sequence). So an entry is
stored once, or its fate is told. If a new epoch began meanwhile, what the producer had stored is lost, and the batch is
not sent again: clients may have seen it. An attempt takes a part of the time that callers wait, so that one connection
that hangs does not cost them all of it.

Reading.  One reader per node follows the stream from a known position, never from ``$``: what is appended between two
reads can't be missed. It hands whole batches to synchronous code and never waits for the application. A handler that
awaits ``emit`` would otherwise wait for the reader, which would wait for the handler.

The writer reads, too: with each batch it asks for what follows the last entry read, so that an entry is stored and
dispatched in one round trip, and the reader rests while the writer works. Where nobody else writes, it does not ask:
the script's reply shows that nothing is between the last entry read and those that it has just stored, which need not
be read back. What both have read is dispatched once: entries have ids, and those that are not behind the last one are
known already. Both ask for as many entries as fit into some bytes (``read_size.py``).

What a node concludes from what it reads is in ``log_cursor.py``.

Commands: https://redis.io/docs/latest/commands/xread/, xadd, xrevrange, xtrim.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ..entries import Entry, Position
from ..errors import (
    LogBroken,
    LogRefused,
    OtherPartitions,
    PublishAbandoned,
    PublishTimeout,
    RedisUnavailable,
    ReplyTooLarge,
    UnsupportedFormat,
)
from ..identity import Producer
from ..log_cursor import Restart, written
from ..metrics import NO_METRICS, Metrics
from ..partition import Partition
from ..read_size import ReadSize
from ..reasons import AppendResult, Fate, RestartReason
from ..redis.actions import NO_ACTION, Action, Appended, appended
from ..redis.format import SUPPORTED
from ..redis.keys import Keys
from ..redis.scripts import APPEND, RENEW, TAIL, Argument
from ..tracing import EmitTrace
from .redis_link import RedisLink, raised
from .tasks import Backoff

#: Entries in one append and one read, at most.
APPEND_COUNT = 512
READ_COUNT = 512
#: Bytes in one append and one read, roughly: a large batch keeps Redis, and this node, from serving others.
APPEND_BYTES = 1 << 20
READ_BYTES = 1 << 20
#: Attempts that a caller's time is enough for, if Redis is silent in each.
ATTEMPTS = 4
#: How long the writer's connection may be idle before the writer asks whether it still leads to Redis, in seconds.
PROBE = 10.0
#: How long the reader waits for a quiet stream before it looks whether the log is still the same, in seconds.
READ_BLOCK = 2.0
#: How long the reader leaves the reading to a busy writer, in seconds.
REST = 0.1
#: How long the reader leaves the reading to a writer that has nothing to write at the moment, in seconds.
LINGER = 0.002


class Follower(Protocol):
    """What a node does with the log that it follows. Both methods are synchronous."""

    def restart(self, position: Position, why: RestartReason) -> None:
        """Nothing is known of the log before ``position``."""

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """These are the next entries, in order and without a gap."""


class Answer(Protocol):
    """Who is to be told what became of an entry: a future, or what has as much of one."""

    def done(self) -> bool: ...

    def cancel(self) -> Any: ...

    def cancelled(self) -> bool: ...

    def set_result(self, result: AppendResult, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class Append:
    """An entry on its way into the log."""

    __slots__ = ("action", "deadline", "fields", "future", "left", "sent", "size", "stored", "trace")

    def __init__(
        self,
        head: str,
        data: Sequence[str | bytes] = (),
        action: Action = NO_ACTION,
        trace: EmitTrace | None = None,
    ) -> None:
        self.fields: Sequence[str | bytes] = ("head", head, *data)
        self.size = sum(map(len, self.fields))
        for argument in action.arguments:
            if isinstance(argument, str):
                argument.encode()  # what has no UTF-8 form is an error here, not of the whole batch
        self.action = action
        self.trace = trace
        self.sent = False
        self.stored = False
        #: The rooms, as JSON, in which the session that it ended is still counted.
        self.left: Sequence[str] = ()
        self.deadline = 0.0  # event loop time, seconds
        self.future: Answer

    def succeed(self, result: AppendResult) -> None:
        """Tells who waits."""
        self.future.set_result(result)
        if self.trace is not None:
            self.trace.told(None)

    def fail(self, error: Exception) -> None:
        """Tells who waits."""
        self.future.set_exception(error)
        if self.trace is not None:
            self.trace.told(error)


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
    :param shards: how many partitions the cluster has.
    :param first: the log of the first partition, if this is another: it says how many there are.
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
        shards: int = 1,
        first: Log | None = None,
    ) -> None:
        self.keys = keys
        self.shards = shards
        self._first = first
        self.partition = partition
        self.retention = retention
        self.max_length = max_length
        self.publish_timeout = publish_timeout
        self.metrics = metrics
        self.logger = logger
        self._link = link
        self.producer = producer or Producer()
        #: The epoch of the log as Redis last told it; ``None`` before.
        self._epoch: int | None = None
        self._read_size = ReadSize(READ_COUNT, READ_BYTES)
        self._reader: RedisLink | None = None
        self._queue: deque[Append] = deque()
        self._wake: asyncio.Event | None = None
        self._busy = False
        #: Set while nothing is queued or being stored.
        self._idle = asyncio.Event()
        self._idle.set()
        #: Set while the writer is idle or failing; the reader then reads.
        self._rests = asyncio.Event()
        self._rests.set()
        #: Whether nobody else wrote beside this process's last batch.
        self._alone = False
        #: Bytes of the batch that is being stored.
        self._batch_size = 0
        #: Appends that somebody waits for, in the order of their deadlines, and the timer for the first.
        self._unanswered: deque[Append] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the writer was cancelled, so that nothing is stored any more.
        self.ended = False
        self._follower: Follower | None = None
        #: Whether the reader is to look at the log: it was begun anew, perhaps because it is divided otherwise now.
        self._renewed = False
        self._checked = 0  # the number of the connection on which the writer has looked back
        self._pause = PROBE  # how long the writer last waited for work, in seconds
        #: The formats of a log that it knows.
        self.formats = SUPPORTED
        #: Why nothing is read or written, if the log is not one for this process.
        self.refusal: LogRefused | None = None
        #: Called when that is found.
        self.when_refused: list[Callable[[], None]] = []
        #: Whether the last append succeeded.
        self.appends = True
        #: When the reader last heard from Redis (event loop time, seconds); ``None`` before.
        self.read_at: float | None = None

    # -- writing ------------------------------------------------------------------------------------

    async def append(self, append: Append) -> AppendResult:
        """Stores an entry; returns once it is stored and, on a node that follows the log, dispatched.

        :returns: ``STORED``, or why an entry about a room was refused.
        :raises PublishTimeout: after ``publish_timeout`` seconds.
        :raises PublishAbandoned: if Redis lost its data while the entry was on its way.
        :raises RuntimeError: if Redis could not store this entry.
        """
        self.queue(append)
        return await self.answer(append)

    def queue(self, append: Append, answer: Answer | None = None) -> None:
        """Queues an entry. Entries are stored in the order in which they are queued; :meth:`answer` waits for one.

        :param answer: who is told, in place of those that :meth:`answer` serves.
        """
        loop = asyncio.get_running_loop()
        append.future = answer or loop.create_future()
        append.deadline = loop.time() + self.publish_timeout
        self._queue.append(append)
        self._idle.clear()
        self._unanswered.append(append)
        if self._timer is None:
            self._timer = loop.call_at(append.deadline, self._expire)
        if self._wake is not None:
            self._wake.set()

    async def answer(self, append: Append) -> AppendResult:
        """What became of an entry that is queued; see :meth:`append`."""
        assert isinstance(append.future, asyncio.Future)
        try:
            return await append.future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.abandon(append)
            raise

    def abandon(self, append: Append) -> None:
        """Nobody waits for an entry any more: it is withdrawn if it has not been sent."""
        append.future.cancel()
        if append.future.cancelled():
            if append.trace is not None:
                append.trace.told(asyncio.CancelledError())
            self.metrics.appended(Fate.UNKNOWN if append.sent else Fate.WITHDRAWN, 1)
        if not append.sent and append in self._queue:
            self._withdraw(append)

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
        append.fail(PublishTimeout(fate, self.publish_timeout))
        self.metrics.appended(fate, 1)

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
    def queued(self) -> int:
        """How many entries are queued and not sent yet."""
        return len(self._queue)

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
        link = self._link(self.publish_timeout / ATTEMPTS)
        backoff = Backoff()
        batch: list[Append] = []
        first: int | None = None  # the epoch in which the batch was first sent
        turns = 2
        try:
            while True:
                while turns and not self._queue:  # callers that waited for the last batch may append more
                    turns -= 1
                    await asyncio.sleep(0)
                while not self._queue and not batch:
                    await self._wait_for_work(link)
                try:
                    await self._prepare(link)
                    if not batch:
                        batch = self._take()
                    if batch:
                        # A thread takes longer than that, and would wait for the event loop meanwhile.
                        turns = 0 if len(batch) == 1 and not isinstance(batch[0].future, asyncio.Future) else 2
                        again, first = first, first or self._epoch
                        await self._store(link, batch, again)
                except LogRefused as error:
                    self._refuse(batch or self._take(), error)
                    batch, first = self._done()
                except ReplyTooLarge:
                    self._read_size.too_large()
                except RedisUnavailable as error:
                    self.producer.retried |= bool(batch)
                    self.appends = False
                    self._rests.set()
                    self.logger.warning("can't write to the log, will try again: %s", error)
                    await backoff.wait()
                else:
                    backoff.reset()
                    self.appends = True
                    batch, first = self._done()
        except asyncio.CancelledError:
            self._end()
            raise
        finally:
            self._busy = False
            self._note_idle()
            self._rests.set()
            await link.close()

    def _done(self) -> tuple[list[Append], None]:
        """Nothing is under way."""
        self._busy = False
        self._note_idle()
        return [], None

    def _refuse(self, batch: Sequence[Append], why: LogRefused) -> None:
        """A batch is not sent, or not again, because the log is not one for this process."""
        if self.producer.waiting:
            self.producer.renew()
        self._tell(batch, Fate.FAILED, lambda: why)

    async def _wait_for_work(self, link: RedisLink) -> None:
        """Waits until something is queued. Looks now and then whether the connection still leads to Redis.

        Where it did not, it looks whether there is one that does: nobody may append before the node is healthy again.

        If the last wait was short, this one will be: a thread emits one event after the other. The reader then goes on
        resting for a moment, since it would be woken for each entry beside the writer.
        """
        assert self._wake is not None
        self._wake.clear()
        loop = asyncio.get_running_loop()
        since = loop.time()
        timer = loop.call_later(PROBE, self._wake.set)
        resume: asyncio.TimerHandle | None = None
        if self._pause < LINGER and self.partition is not None:
            resume = loop.call_later(LINGER, self._rests.set)
        else:
            self._rests.set()
        await self._wake.wait()
        timer.cancel()
        if resume is not None:
            resume.cancel()
        self._pause = loop.time() - since
        if not self._queue and (link.connected or not self.appends):
            with suppress(Exception):  # if there is no answer, the next append opens another connection
                await link.call("TIME")
                self.appends = True

    async def _prepare(self, link: RedisLink) -> None:
        """Opens a connection if there is none. What is sent over a new one must be meant for the log as it is there."""
        await link.open()
        cursor = None if self.partition is None else self.partition.cursor
        try:
            if self._epoch is None or self.refusal is not None:
                await self.tail(link)
            if cursor is not None and cursor.at is not None and not cursor.broken and link.number != self._checked:
                await self._look_back(link)
                self._checked = link.number
        except LogBroken as error:
            assert cursor is not None
            cursor.break_(error)
        except (RedisUnavailable, LogRefused):
            raise
        except Exception as error:  # out of memory, no permission: the append says so to those who wait for it
            self.logger.warning("can't look at the log before writing to it: %s", error)

    def _take(self) -> list[Append]:
        batch: list[Append] = []
        self._busy = bool(self._queue)
        size = 0
        while self._queue and len(batch) < APPEND_COUNT and size < APPEND_BYTES:
            append = self._queue.popleft()
            append.sent = True
            if append.trace is not None:
                append.trace.sending()
            size += append.size
            batch.append(append)
        self._batch_size = size
        return batch

    async def _store(self, link: RedisLink, batch: Sequence[Append], again: int | None) -> None:
        """Stores a batch.

        :param again: if it may be stored already: the epoch in which it was first sent.
        """
        self.producer.waiting = True
        producer = self.keys.producer(self.producer.name)
        keys = [self.keys.log, self.keys.meta, producer, self.keys.closes, self.keys.closed]
        arguments = self.arguments(batch, keys, self.producer.sequence, again)
        try:
            reply = await self._write_and_read(link, batch, keys, arguments)
        except RedisUnavailable:
            raise
        except Exception as error:  # Redis refuses (out of memory, no permission): this time it stored nothing
            stored, remarks = await self._stored(link, producer) if again is not None else (0, b"")
            if stored < self.producer.sequence + len(batch) - 1:
                self._fail(batch, Fate.FAILED, partial(type(error), *error.args))
                return
            at, _ = await self.tail(link)  # an earlier try was stored, its reply lost
            reply = appended([*at, 0, *filter(None, remarks.split(b"\n"))])
        if reply.refused.get(0) == "shards":
            await self.tail(link)  # raises
        self._epoch = reply.last.epoch
        if reply.refused.get(0) == "epoch":
            self._fail(batch, Fate.ABANDONED, PublishAbandoned)
            return
        self.producer.stored(len(batch))
        self._settle(batch, reply)

    def arguments(self, batch: Sequence[Append], keys: list[str], sequence: int, again: int | None) -> list[Argument]:
        """The arguments of the script ``append``. The keys that the entries need are added to ``keys``."""
        epoch = "" if again is None else again
        arguments: list[Argument] = [sequence, epoch, self.retention, self.max_length, len(batch), self.shards]
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
        return arguments

    def _fail(self, batch: Sequence[Append], fate: Fate, error: Callable[[], Exception]) -> None:
        """Nobody will send this batch again. An earlier try that is still on its way must not be taken for the next."""
        self.producer.renew()
        self._tell(batch, fate, error)

    def _tell(self, batch: Sequence[Append], fate: Fate, error: Callable[[], Exception]) -> None:
        waiting = [append for append in batch if not append.future.done()]
        for append in waiting:
            append.fail(error())
        self.metrics.appended(fate, len(waiting))

    def _settle(self, batch: Sequence[Append], reply: Appended) -> None:
        """A batch is stored. Its callers are told once this node has dispatched the log up to its end then."""
        refused = reply.refused
        for i, left in reply.left.items():
            batch[i - 1].left = left
        for append in batch:
            append.stored = True
            if append.trace is not None:
                append.trace.stored()

        def tell() -> None:
            stored = 0
            for i, append in enumerate(batch, 1):
                if append.future.done():
                    continue
                why = refused.get(i)
                if why is None:
                    append.succeed(AppendResult.STORED)
                    stored += 1
                elif why.startswith("failed"):
                    append.fail(RuntimeError(f"Redis could not store the entry; it {why}"))
                    self.metrics.appended(Fate.FAILED, 1)
                else:
                    append.succeed(AppendResult(why))
                    self.metrics.appended(Fate.REFUSED, 1)
            self.metrics.appended(Fate.STORED, stored)
            while self._unanswered and self._unanswered[0].future.done():
                self._unanswered.popleft()

        size = self._batch_size - sum(batch[i - 1].size for i in refused)
        self.metrics.stored(len(batch) - len(refused), size)
        if self.partition is None:
            tell()
        else:
            self.partition.when(reply.last, tell)

    async def _write_and_read(
        self, link: RedisLink, batch: Sequence[Append], keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Appended:
        """Runs the append script and dispatches, after one round trip, what follows the last entry read.

        If that was only the batch itself the last time, it is not read back: the script's reply says whether it is so
        again. If it is not, the reader reads.
        """
        cursor = None if self.partition is None else self.partition.cursor
        if cursor is None or cursor.at is None or cursor.broken:
            return appended(await link.run(APPEND, keys, arguments))
        self._rests.clear()
        asked, since, restarts = cursor.at, cursor.id, cursor.restarts
        size = self._read_size
        read = () if self._alone else (("XREAD", "COUNT", size.count, "STREAMS", self.keys.log, since),)
        reply, *found = await link.run_many([(APPEND, keys, arguments)], *read, limit=size.limit)
        items = self._read(link, found[0]) if found and not isinstance(found[0], Exception) else ()
        if not isinstance(reply, Exception):
            reply = appended(reply)
            try:
                cursor.told(asked, reply.last)
            except LogBroken as error:
                self._suspect(error)
            stored = [append.fields for i, append in enumerate(batch, 1) if i not in reply.refused]
            own = written(asked, reply.last, reply.ms, stored)
            if self._alone:
                items = own or ()
                if own is None:
                    self._rests.set()
            self._alone = own is not None
        if cursor.restarts == restarts and not cursor.broken:
            try:
                self._take_in(items, since)
            except LogBroken as error:
                cursor.break_(error)
            except Exception:  # the supervised reader finds a hole in place of these entries
                self.logger.exception("what was read of the log could not be dispatched")
        return raised(reply)  # type: ignore[no-any-return]

    async def _stored(self, link: RedisLink, producer: str) -> tuple[int, bytes]:
        """The last sequence number that is stored, and what the script said of its batch."""
        try:
            sequence, remarks = await link.call("HMGET", producer, "sequence", "refused")
        except RedisUnavailable:
            raise
        except Exception as error:
            self.logger.error("can't ask what became of a batch: %s", error)
            return 0, b""
        return int(sequence or 0), remarks or b""

    # -- reading ------------------------------------------------------------------------------------

    async def tail(
        self, link: RedisLink, retention: int = 0, raise_format: bool = False, divide: bool = False
    ) -> tuple[Position, int]:
        """The position of the last entry, and its ms (Redis's time).

        :param retention: what this node needs, in milliseconds; 0 leaves the log's own.
        :param raise_format: raise the log's format to the newest that is known.
        :param divide: the cluster has as many partitions from now on as this process.
        :raises UnsupportedFormat: if the log has a format that is not known.
        :raises OtherPartitions: if the cluster has another number of partitions.
        """
        if self._epoch is None and self._first is not None and not divide:
            await self._first.look()
        says = 1 if divide else 0 if self.refusal is None else -1  # who is refused must not win if Redis is wiped
        arguments = [retention, *self.formats, int(raise_format), self.shards, says]
        epoch, n, ms, format, shards = await link.run(TAIL, [self.keys.log, self.keys.meta], arguments)
        before, self.refusal = self.refusal, self._refusal(int(format), int(shards))
        if self.refusal is not None:
            if str(self.refusal) != str(before):
                self.logger.error("%s", self.refusal)
                for tell in list(self.when_refused):
                    tell()
            raise self.refusal
        self._epoch = int(epoch)
        return Position(self._epoch, int(n)), int(ms)

    async def look(self, raise_format: bool = False) -> None:
        """Looks at the end of the log on a connection of its own; see :meth:`tail`."""
        link = self._link(self.publish_timeout)
        try:
            await self.tail(link, raise_format=raise_format)
        finally:
            await link.close()

    def witness(self) -> Callable[[Position, int], None]:
        """To be called before Redis is asked for something whose answer says where the log ends.

        :returns: what is to be called with that position, and the ms at which that entry was stored, or later (0 if
            that is not known: then nothing begins there). It raises :class:`RedisUnavailable` if the log ends before
            what this node had read when it asked: the log lost entries that clients have seen.
        """
        assert self.partition is not None
        cursor = self.partition.cursor
        asked = cursor.at

        def told(tail: Position, ms: int) -> None:
            if asked is not None:
                try:
                    cursor.told(asked, tail)
                except LogBroken as error:
                    self._suspect(error)
                    raise RedisUnavailable("Redis has just lost the end of the log") from None
            if ms:
                cursor.expect(tail, ms)

        return told

    def _suspect(self, error: LogBroken) -> None:
        """Has the reader look at once: it may be waiting for a quiet stream."""
        assert self.partition is not None
        self.partition.cursor.break_(error)
        if self._reader is not None:
            self._reader.abort()

    def _refusal(self, format: int, shards: int) -> LogRefused | None:
        if not self.formats.include(format):
            return UnsupportedFormat(format, self.formats)
        if not shards:  # nobody has said it since Redis was wiped
            return self.refusal
        return OtherPartitions(shards, self.shards) if shards != self.shards else None

    @property
    def refused(self) -> LogRefused | None:
        """Why this process can't use the log, as far as is known: because of it, or of the first partition's."""
        return self.refusal or (self._first.refusal if self._first is not None else None)

    async def ensure(self) -> None:
        """Looks at the log, unless this process has done so and was not refused.

        :raises LogRefused: if the log is not one for this process.
        """
        if self._epoch is None or self.refused is not None:
            await self.look()

    async def _renew(self, link: RedisLink, epoch: int) -> None:
        """Begins a new epoch, unless the log has one after ``epoch`` already."""
        await link.run(RENEW, [self.keys.log, self.keys.meta], [epoch])

    async def divide(self) -> None:
        """The cluster has as many partitions from now on as this process; a new epoch begins."""
        link = self._link(self.publish_timeout)
        try:
            position, _ = await self.tail(link, divide=True)
            await self._renew(link, position.epoch)
        finally:
            await link.close()

    async def follow(self, follower: Follower) -> None:
        """Reads the log, for ever. To be run as a task; run again, it goes on where it was.

        :param follower: is told what is read, and where nothing is known before it.
        """
        assert self.partition is not None
        self._follower = follower
        cursor = self.partition.cursor
        self._reader = link = self._link(self.publish_timeout / ATTEMPTS)
        backoff = Backoff()
        size = self._read_size
        try:
            while True:
                try:
                    if cursor.at is None:
                        await self._begin(link, RestartReason.BOOT)
                    elif (self._renewed or not link.connected) and not cursor.broken:
                        self._renewed = False
                        asked = cursor.at
                        cursor.told(asked, (await self.tail(link, self.retention))[0])
                        await self._look_back(link)
                    if cursor.broken:
                        assert cursor.at is not None
                        await self._renew(link, cursor.at.epoch)
                        await self._begin(link, RestartReason.EPOCH)
                    self.read_at = asyncio.get_running_loop().time()
                    await self._rest()
                    since = cursor.id
                    reply = await link.call(
                        *("XREAD", "COUNT", size.count, "BLOCK", int(READ_BLOCK * 1000)),
                        *("STREAMS", self.keys.log, since),
                        timeout=READ_BLOCK + self.publish_timeout / ATTEMPTS,
                        limit=size.limit,
                    )
                    if reply:
                        self._take_in(self._read(link, reply), since)
                    else:
                        await self._look_at_quiet_log(link)
                    backoff.reset()
                    await asyncio.sleep(0)  # let transports write before the next batch
                except LogBroken as error:
                    cursor.break_(error)
                except LogRefused:
                    await link.close()  # so that the next thing is to look again
                    await backoff.wait()
                except ReplyTooLarge:
                    size.too_large()
                except RedisUnavailable as error:
                    self.logger.warning("can't read the log, will try again: %s", error)
                    await backoff.wait()
        finally:
            self._reader = None
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
        self._epoch = verdict.position.epoch
        self._follower.restart(*verdict)

    def _read(self, link: RedisLink, reply: Any) -> Sequence[Any]:
        """The entries in a reply of ``XREAD``: pairs (id, fields)."""
        if not reply:
            return ()
        items: Sequence[Any] = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        self._read_size.read(items, link.received)
        return items

    def _take_in(self, items: Sequence[Any], since: str) -> None:
        """Dispatches what follows the id ``since``.

        :raises LogBroken: if it does not follow what was read before.
        """
        assert self.partition is not None
        assert self._follower is not None
        for verdict in self.partition.cursor.read(items, since):
            if isinstance(verdict, Restart):
                self._restart(verdict)
                self._renewed |= verdict.why is RestartReason.EPOCH
            else:
                self._follower.dispatch(verdict)

    async def _look_back(self, link: RedisLink) -> None:
        """Looks on a new connection whether the last entry read is still there."""
        assert self.partition is not None
        cursor = self.partition.cursor
        mark = cursor.mark()  # the other link may read on meanwhile
        ids = [mark.id] if mark.ahead is None else [mark.id, mark.ahead.id]
        found = await link.run_many([], *(("XREVRANGE", self.keys.log, id, "-", "COUNT", 1) for id in ids))
        cursor.look_back(mark, *map(raised, found))

    async def _look_at_quiet_log(self, link: RedisLink) -> None:
        """Looks whether a log in which nothing came for a while ends where this node stands."""
        assert self.partition is not None
        cursor = self.partition.cursor
        at = cursor.at
        assert at is not None
        verdict = cursor.quiet(at, *await self.tail(link, self.retention))
        if verdict is not None:
            self._restart(verdict)
