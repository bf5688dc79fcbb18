"""The log: one Redis Stream that holds, in one order, everything that decides what a client sees.

Writing.  One writer per node appends whatever is queued in one script call (``lua/append.lua``): a *group
commit*. While a call is under way the next batch gathers, so the busier the node, the larger the batches.
A batch whose reply was lost is sent again as it was; the script skips what it has stored already, by
(producer, sequence). So an entry is stored once, or its fate is told.

Reading.  One reader per node follows the stream from a known position, never from ``$``: what is appended
between two reads can't be missed. It hands whole batches to a synchronous function and never waits for
application code; a handler that awaits ``emit`` would wait for the reader that waits for it.

The writer reads, too: with each batch it asks what follows the last entry read, so that an entry is stored and
dispatched in one round trip, and the reader rests while the writer is at work. What both have read counts once:
entries have ids, and what is not behind the last one is known already.

Holes.  Stream ids show that entries are in order, not that none is missing. Entries are numbered, without
gaps, within an *epoch*. Reading n where n - 1 was not the one before means:

* a later number: the log was trimmed past this node (it was frozen). Its own clients start from the log;
* another epoch: the log was begun anew (Redis was wiped). Nobody's position means anything any more;
* an earlier number: the log lost its tail (a failover) and what clients saw is not what it holds. One
  node begins a new epoch, with ``lua/renew.lua``, and so all learn of it.

Commands: https://redis.io/docs/latest/commands/xread/, xadd, xrevrange, xtrim.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from .codec import EPOCH, Entry, Position, parse_entry
from .connections import Argument, Backoff, Link, Script, raised
from .errors import LogBroken, PublishTimeout, RedisUnavailable

APPEND, TAIL, RENEW = Script("append"), Script("tail"), Script("renew")

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


#: Told where to go on reading from: position, its ms (Redis's time), why. See :meth:`Log.follow`.
Start = Callable[[Position, int, str], None]


class Keys:
    """The names of everything one manager keeps in Redis. One hash tag: scripts work on Redis Cluster."""

    def __init__(self, channel: str) -> None:
        tag = "{" + channel + "}"
        self.log = tag + ":log"
        self.meta = tag + ":meta"
        self.closes = tag + ":closes"
        self.owned = tag + ":owned"
        self._tag = tag

    def producer(self, name: str) -> str:
        return f"{self._tag}:producer:{name}"

    def session(self, sid: str) -> str:
        """The key of a session's record.

        :raises ValueError: for what no ``sid`` can be: text that has no UTF-8 form.
        """
        key = f"{self._tag}:session:{sid}"
        key.encode()
        return key


class Action(NamedTuple):
    """What an entry does to session records, in the same step. See ``lua/append.lua``."""

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
        self.future: asyncio.Future[str]


class Log:
    """Appends to the log and follows it.

    :param keys: where it is.
    :param link: makes a dedicated connection; called with its default timeout in seconds.
    :param retention: how long entries are kept, in milliseconds; 0 leaves it to the nodes.
    :param max_length: how many entries are kept at most, roughly; 0 for no such limit.
    :param publish_timeout: how long :meth:`append` waits, in seconds.
    :param logger: for what an operator should know.
    """

    def __init__(
        self,
        keys: Keys,
        link: Callable[[float], Link],
        retention: int,
        max_length: int,
        publish_timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.keys = keys
        self.retention = retention
        self.max_length = max_length
        self.publish_timeout = publish_timeout
        self.logger = logger
        self._link = link
        self._producer = uuid.uuid4().hex
        self._sequence = 1
        self._queue: deque[Append] = deque()
        self._wake: asyncio.Event | None = None
        self._busy = False
        #: Set while the writer has nothing to do, or no luck: what follows is for the reader to read.
        self._rests = asyncio.Event()
        self._rests.set()
        #: Who waits, in the order of their deadlines, and the timer for the first.
        self._waiting: deque[Append] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: Called with the position up to which a batch is stored, to hold its waiters back until this node
        #: has dispatched it. ``None`` when nothing is followed.
        self.when_dispatched: Callable[[Position, Callable[[], None]], None] | None = None
        self._start: Start
        self._dispatch: Callable[[Sequence[Entry]], None]
        self._at: Position | None = None
        self._id = ""
        self._starts = 0
        self._checked = 0  # the connection on which the writer looked whether the log is the same
        self._newest: Any = None  #: the entry with this id, as it was read
        #: The epoch in which the log lost entries that this node has read.
        self._broken: int | None = None
        #: Where this node stood when there was more in the log, though it had just read nothing.
        self._unread: Position | None = None
        #: Whether the last append went well.
        self.writes = True
        #: When the reader last heard from Redis (event loop time, seconds); ``None`` before.
        self.read_at: float | None = None

    # -- writing ------------------------------------------------------------------------------------

    async def append(self, append: Append) -> str:
        """Stores an entry; returns once it is stored and, on a node that follows, dispatched.

        :returns: ``""``, or why an entry about a room was refused: ``"unknown"`` (no such session),
            ``"sid"`` (the room is a session's own), ``"same"`` (nothing to change).
        :raises PublishTimeout: after ``publish_timeout`` seconds.
        :raises RuntimeError: if Redis could not store this entry.
        """
        loop = asyncio.get_running_loop()
        append.future = loop.create_future()
        append.deadline = loop.time() + self.publish_timeout
        self._queue.append(append)
        self._waiting.append(append)
        if self._timer is None:
            self._timer = loop.call_at(append.deadline, self._expire)
        if self._wake is not None:
            self._wake.set()
        try:
            return await append.future
        except asyncio.CancelledError:
            if not append.sent and append in self._queue:
                self._queue.remove(append)
            raise

    def _expire(self) -> None:
        """Tells who has waited for too long. All wait for equally long, so the first to come is the first to go."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting:
            append = self._waiting[0]
            if not append.future.done():
                if append.deadline > loop.time():
                    self._timer = loop.call_at(append.deadline, self._expire)
                    return
                fate = "stored" if append.stored else "unknown" if append.sent else "withdrawn"
                if fate == "withdrawn":
                    self._queue.remove(append)
                append.future.set_exception(PublishTimeout(fate, self.publish_timeout))
            self._waiting.popleft()

    async def write(self) -> None:
        """Stores what is queued, for ever. To be run as a task."""
        self._wake = asyncio.Event()
        self._checked = 0
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        try:
            while True:
                for _ in range(2):  # who waited for the last batch may have more
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
                        await self._store(link, batch, again)
                        break
                    except RedisUnavailable as error:
                        again = True
                        self.writes = False
                        self._rests.set()
                        self.logger.warning("can't write to the log, will try again: %s", error)
                        await backoff.wait()
                backoff.reset()
                self.writes = True
                self._busy = False
        finally:
            self._busy = False
            self._rests.set()
            await link.close()

    def _take(self) -> list[Append]:
        batch: list[Append] = []
        size = 0
        while self._queue and len(batch) < APPEND_COUNT and size < APPEND_BYTES:
            append = self._queue.popleft()
            append.sent = True
            size += append.size
            batch.append(append)
        return batch

    async def _store(self, link: Link, batch: Sequence[Append], again: bool) -> None:
        producer = self.keys.producer(self._producer)
        keys = [self.keys.log, self.keys.meta, producer, self.keys.closes]
        arguments: list[Argument] = [self._sequence, self.retention, self.max_length, len(batch)]
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
        except Exception as error:  # Redis says no (out of memory, no permission): it stored nothing, this time
            stored, refusals = await self._stored(link, producer) if again else (0, b"")
            if stored < self._sequence + len(batch) - 1:
                self._producer, self._sequence = uuid.uuid4().hex, 1  # whatever became of it, it is over
                for append in batch:
                    if not append.future.done():
                        append.future.set_exception(type(error)(*error.args))
                return
            at, _ = await self.tail(link)  # an earlier try was stored, its reply lost
            reply = [*at, *filter(None, refusals.split(b"\n"))]
        self._sequence += len(batch)
        self._settle(batch, Position(int(reply[0]), int(reply[1])), reply[2:])

    def _settle(self, batch: Sequence[Append], position: Position, refusals: Sequence[bytes]) -> None:
        """A batch is stored, up to ``position``; who waits is told once this node has dispatched that."""
        refused = {int(i): why.decode() for i, why in zip(refusals[::2], refusals[1::2], strict=True)}
        for append in batch:
            append.stored = True

        def tell() -> None:
            for i, append in enumerate(batch, 1):
                if append.future.done():
                    continue
                why = refused.get(i, "")
                if why.startswith("failed"):
                    append.future.set_exception(RuntimeError(f"Redis could not store the entry; it {why}"))
                else:
                    append.future.set_result(why)
            while self._waiting and self._waiting[0].future.done():
                self._waiting.popleft()

        if self.when_dispatched is None:
            tell()
        else:
            self.when_dispatched(position, tell)

    async def _write_and_read(self, link: Link, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Runs the append script and reads, in one round trip, what follows the last entry read."""
        if self._at is None or self._broken == self._at.epoch or not link.connected:
            return await link.run(APPEND, keys, arguments)
        if link.number != self._checked:
            try:
                await self._still_there(link)
            except LogBroken as error:
                self._break(error)
                return await link.run(APPEND, keys, arguments)
            self._checked = link.number
        self._rests.clear()
        since, starts = self._id, self._starts
        reply, found = await link.run_many(
            [(APPEND, keys, arguments)], ("XREAD", "COUNT", READ_COUNT, "STREAMS", self.keys.log, since)
        )
        if self._starts == starts and self._broken != self._at.epoch and not isinstance(found, Exception):
            try:
                self._take_in(found, since)
            except LogBroken as error:
                self._break(error)
            except Exception:  # the reader, which is looked after, finds a hole where this was to be
                self.logger.exception("what was read of the log could not be dispatched")
        return raised(reply)

    async def _stored(self, link: Link, producer: str) -> tuple[int, bytes]:
        """The last sequence number that is stored, and what was refused of its batch."""
        try:
            sequence, refusals = await link.call("HMGET", producer, "sequence", "refused")
        except RedisUnavailable:
            raise
        except Exception as error:
            self.logger.error("can't ask what became of a batch: %s", error)
            return 0, b""
        return int(sequence or 0), refusals or b""

    @property
    def idle(self) -> bool:
        """Whether everything queued is stored."""
        return not self._queue and not self._busy

    # -- reading ------------------------------------------------------------------------------------

    async def tail(self, link: Link, retention: int = 0) -> tuple[Position, int]:
        """The position of the last entry, and its ms (Redis's time).

        :param retention: what this node needs, in milliseconds; 0 leaves the log's own.
        """
        epoch, n, ms = await link.run(TAIL, [self.keys.log, self.keys.meta], [retention])
        return Position(int(epoch), int(n)), int(ms)

    async def follow(self, start: Start, dispatch: Callable[[Sequence[Entry]], None]) -> None:
        """Reads the log, for ever. To be run as a task; run again, it goes on where it was.

        :param start: called with a position to go on from, its ms (Redis's time), and why nothing is known
            before it: ``"boot"``, ``"epoch"`` or ``"trimmed"``.
        :param dispatch: called with each batch of entries, in order and without a gap.
        """
        self._start, self._dispatch = start, dispatch
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        try:
            while True:
                try:
                    if self._at is None:
                        self._go_on("boot", *await self.tail(link, self.retention))
                    elif not link.connected:
                        await self._still_there(link)
                    assert self._at is not None
                    if self._broken == self._at.epoch:
                        await link.run(RENEW, [self.keys.log, self.keys.meta], [self._at.epoch])
                        self._go_on("epoch", *await self.tail(link, self.retention))
                    await self._rest()
                    since = self._id
                    reply = await link.call(
                        *("XREAD", "COUNT", READ_COUNT, "BLOCK", int(READ_BLOCK * 1000)),
                        *("STREAMS", self.keys.log, since),
                        timeout=READ_BLOCK + self.publish_timeout,
                    )
                    if reply:
                        self._take_in(reply, since)
                    else:
                        await self._still_same(link)
                    self.read_at = asyncio.get_running_loop().time()
                    backoff.reset()
                    await asyncio.sleep(0)  # let transports write before the next batch
                except LogBroken as error:
                    self._break(error)
                except RedisUnavailable as error:
                    self.logger.warning("can't read the log, will try again: %s", error)
                    await backoff.wait()
        finally:
            await link.close()

    async def _rest(self) -> None:
        """Waits while the writer reads, but not for long: its connection may be the one that hangs."""
        if not self._rests.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(REST):
                    await self._rests.wait()

    def _break(self, error: LogBroken) -> None:
        """One link found it out; the other may have gone on to another epoch meanwhile, which is sound."""
        if self._at is not None and error.epoch == self._at.epoch:
            self.logger.error("the log lost entries that clients have seen; beginning a new epoch: %s", error)
            self._broken = error.epoch

    def _go_on(self, why: str, at: Position, ms: int) -> None:
        self._at, self._id, self._newest = at, f"{ms}-{at.n}", None
        self._starts += 1
        self._start(at, ms, why)

    def _take_in(self, reply: Any, since: str) -> None:
        """Dispatches what was read behind the id ``since``.

        :raises LogBroken: if it does not follow what was read before.
        """
        if not reply:
            return
        items = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        if since != self._id:  # reader and writer have both read
            items = items[bisect_right(items, _id(self._id.encode()), key=lambda item: _id(item[0])) :]
            if not items:
                return
        self._id = items[-1][0].decode()
        self._newest = None
        entries = []
        for item in items:
            try:
                entries.append(_stamped(item))
                self._newest = item
            except ValueError as error:  # its number, if it had one, shows as a hole
                self.logger.error("passing over an entry of the log: %s", error)
        while entries:
            entries = self._hand_on(entries)

    async def _still_there(self, link: Link) -> None:
        """A new connection may lead to a server that took over without the end of the log."""
        assert self._at is not None
        at, newest = self._at, self._newest  # the other link may read on meanwhile
        reply = await link.call("XREVRANGE", self.keys.log, self._id, "-", "COUNT", 1)
        try:
            found = _stamped(reply[0]) if reply else None
        except ValueError:  # not ours
            return
        if found is not None:  # else trimmed, or begun anew: what is read next tells
            same = (found.epoch, found.n) == at and (newest is None or newest == reply[0])
            if not same:
                raise LogBroken(at.epoch, f"it does not hold entry {at.n} as this node has read it")

    async def _still_same(self, link: Link) -> None:
        """Nothing was read for a while. A log begun anew with an earlier clock would look just like that."""
        assert self._at is not None
        at = self._at
        tail, ms = await self.tail(link, self.retention)
        if self._at is not at:  # the writer has read
            return
        if tail.epoch != at.epoch:
            self._go_on("epoch", tail, ms)
        elif tail.n < at.n:
            raise LogBroken(at.epoch, f"it ends at {tail.n}, this node has read {at.n}")
        elif tail.n > at.n and self._unread == at:
            raise LogBroken(at.epoch, f"it ends at {tail.n}, but nothing follows {at.n}: its clock went back")
        self._unread = at if tail.n > at.n else None

    def _hand_on(self, entries: list[Stamped]) -> list[Stamped]:
        """Dispatches the entries that follow without a hole; returns those that do not."""
        assert self._at is not None
        batch: list[Entry] = []
        epoch, last = self._at
        hole: Stamped | None = None
        for stamped in entries:
            if stamped.epoch != epoch or stamped.n != last + 1:
                hole = stamped
                break
            last = stamped.n
            batch.append(self._parse(stamped))
        if batch:
            self._dispatch(batch)
            self._at = Position(epoch, last)
        if hole is None:
            return []
        if hole.epoch == epoch and hole.n <= last:
            raise LogBroken(epoch, f"entry {hole.n} follows {last}")
        self._at = Position(hole.epoch, hole.n - 1)
        self._start(self._at, hole.ms, "trimmed" if hole.epoch == epoch else "epoch")
        return entries[len(batch) :]

    def _parse(self, stamped: Stamped) -> Entry:
        try:
            return parse_entry(stamped.n, stamped.ms, stamped.fields)
        except Exception as error:  # not ours; it must not stop what is
            self.logger.error("skipping an entry of the log that can't be read: %s", error)
            return Entry(EPOCH, stamped.n, stamped.ms)

    async def backwards(self, epoch: int, floor: int, ms: int, take: Callable[[list[Entry]], bool]) -> None:
        """Reads the entries up to ``floor``, backwards, as far as the epoch is stored.

        :param ms: when entry ``floor`` was stored, or later (Redis's time).
        :param take: called with each chunk, oldest first, that ends where the one before it began;
            returns whether to go on.
        :raises RedisUnavailable: if Redis does not answer.
        """
        link = self._link(self.publish_timeout)
        end = f"{ms}-{floor}"
        try:
            while floor > 0:
                reply = await link.call("XREVRANGE", self.keys.log, end, "-", "COUNT", EXTEND_COUNT)
                chunk: list[Entry] = []
                passed = False  # something was, that is not to be kept
                for item in reply:
                    try:
                        stamped = _stamped(item)
                    except ValueError:  # not ours
                        end, passed = f"({item[0].decode()}", True
                        continue
                    if stamped.n > floor:
                        end, passed = f"({stamped.ms}-{stamped.n}", True  # ``ms`` was later than that entry
                        continue
                    if stamped.epoch != epoch or stamped.n != floor - len(chunk):
                        passed = False
                        break
                    chunk.append(self._parse(stamped))
                    end = f"({stamped.ms}-{stamped.n}"
                if not chunk and not passed:
                    return
                floor -= len(chunk)
                chunk.reverse()
                if chunk and not take(chunk):
                    return
        finally:
            await link.close()


class Stamped(NamedTuple):
    """An entry as the stream has it."""

    epoch: int
    n: int
    ms: int
    fields: Sequence[bytes]


def _id(id: bytes) -> tuple[int, int]:
    ms, _, n = id.partition(b"-")
    return int(ms), int(n)


def _stamped(item: Any) -> Stamped:
    ms, n = _id(item[0])
    fields = item[1]
    if fields[0] != b"epoch":
        raise ValueError(f"entry {item[0].decode()} has no epoch: something else writes to this stream")
    return Stamped(int(fields[1]), n, ms, fields[2:])
