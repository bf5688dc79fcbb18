"""The log: one Redis Stream that holds, in one order, everything that decides what a client sees.

Writing.  One writer per node appends whatever is queued in one script call (``lua/append.lua``): a *group
commit*. While a call is under way the next batch gathers, so the busier the node, the larger the batches.
A batch whose reply was lost is sent again as it was; the script skips what it has stored already, by
(producer, sequence). So an entry is stored once, or its fate is told.

Reading.  One reader per node follows the stream from a known position, never from ``$``: what is appended
between two reads can't be missed. It hands whole batches to a synchronous function and never waits for
application code; a handler that awaits ``emit`` would wait for the reader that waits for it.

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
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .codec import EPOCH, Entry, Position, parse_entry
from .connections import Argument, Backoff, Link, Script
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

    __slots__ = ("action", "fields", "future", "sent", "size")

    def __init__(self, head: str, data: Sequence[str | bytes] = (), action: Action = NO_ACTION) -> None:
        self.fields: Sequence[str | bytes] = ("head", head, *data)
        self.size = sum(map(len, self.fields))
        for argument in action.arguments:
            if isinstance(argument, str):
                argument.encode()  # what has no UTF-8 form is an error here, not of the whole batch
        self.action = action
        self.sent = False
        self.future: asyncio.Future[tuple[Position, str]] | None = None


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
        #: Called with the position up to which a batch is stored, to hold its waiters back until this node
        #: has dispatched it. ``None`` when nothing is followed.
        self.when_dispatched: Callable[[Position, Callable[[], None]], None] | None = None
        self._at: Position | None = None
        self._id = ""
        self._newest: Any = None  #: the entry with this id, as it was read
        self._broken = False
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
        append.future = asyncio.get_running_loop().create_future()
        self._queue.append(append)
        if self._wake is not None:
            self._wake.set()
        stored = False
        try:
            async with asyncio.timeout(self.publish_timeout):
                position, refused = await append.future
                stored = True
                if self.when_dispatched is not None:
                    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self.when_dispatched(position, lambda: None if done.done() else done.set_result(None))
                    await done
                return refused
        except TimeoutError:
            if stored:
                raise PublishTimeout("stored", self.publish_timeout) from None
            if append.sent:
                raise PublishTimeout("unknown", self.publish_timeout) from None
            self._queue.remove(append)
            raise PublishTimeout("withdrawn", self.publish_timeout) from None
        except asyncio.CancelledError:
            if not append.sent and append in self._queue:
                self._queue.remove(append)
            raise

    async def write(self) -> None:
        """Stores what is queued, for ever. To be run as a task."""
        self._wake = asyncio.Event()
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        try:
            while True:
                while not self._queue:
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
                        self.logger.warning("can't write to the log, will try again: %s", error)
                        await backoff.wait()
                backoff.reset()
                self.writes = True
                self._busy = False
        finally:
            self._busy = False
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
            reply = await link.run(APPEND, keys, arguments)
        except RedisUnavailable:
            raise
        except Exception as error:  # Redis says no (out of memory, no permission): it stored nothing, this time
            stored, refusals = await self._stored(link, producer) if again else (0, b"")
            if stored < self._sequence + len(batch) - 1:
                self._producer, self._sequence = uuid.uuid4().hex, 1  # whatever became of it, it is over
                for append in batch:
                    if append.future and not append.future.done():
                        append.future.set_exception(type(error)(*error.args))
                return
            at, _ = await self.tail(link)  # an earlier try was stored, its reply lost
            reply = [*at, *filter(None, refusals.split(b"\n"))]
        self._sequence += len(batch)
        position = Position(int(reply[0]), int(reply[1]))
        refused = {int(i): why.decode() for i, why in zip(reply[2::2], reply[3::2], strict=True)}
        for i, append in enumerate(batch, 1):
            if append.future and not append.future.done():
                why = refused.get(i, "")
                if why.startswith("failed"):
                    append.future.set_exception(RuntimeError(f"Redis could not store the entry; it {why}"))
                else:
                    append.future.set_result((position, why))

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
        link = self._link(self.publish_timeout)
        backoff = Backoff()
        try:
            while True:
                try:
                    if self._at is None:
                        self._go_on(start, "boot", *await self.tail(link, self.retention))
                    elif not link.connected:
                        await self._still_there(link)
                    assert self._at is not None
                    if self._broken:
                        await link.run(RENEW, [self.keys.log, self.keys.meta], [self._at.epoch])
                        self._go_on(start, "epoch", *await self.tail(link, self.retention))
                        self._broken = False
                    entries = await self._read(link)
                    if not entries:
                        await self._still_same(link, start)
                    while entries:
                        entries = self._hand_on(entries, start, dispatch)
                    self.read_at = asyncio.get_running_loop().time()
                    backoff.reset()
                    await asyncio.sleep(0)  # let transports write before the next batch
                except LogBroken as error:
                    self.logger.error("the log lost entries that clients have seen; beginning a new epoch: %s", error)
                    self._broken = True
                except RedisUnavailable as error:
                    self.logger.warning("can't read the log, will try again: %s", error)
                    await backoff.wait()
        finally:
            await link.close()

    def _go_on(self, start: Start, why: str, at: Position, ms: int) -> None:
        self._at, self._id, self._newest = at, f"{ms}-{at.n}", None
        start(at, ms, why)

    async def _read(self, link: Link) -> list[Stamped]:
        reply = await link.call(
            *("XREAD", "COUNT", READ_COUNT, "BLOCK", int(READ_BLOCK * 1000), "STREAMS", self.keys.log, self._id),
            timeout=READ_BLOCK + self.publish_timeout,
        )
        if not reply:
            return []
        items = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        self._id = items[-1][0].decode()
        self._newest = None
        entries = []
        for item in items:
            try:
                entries.append(_stamped(item))
                self._newest = item
            except ValueError as error:  # its number, if it had one, shows as a hole
                self.logger.error("passing over an entry of the log: %s", error)
        return entries

    async def _still_there(self, link: Link) -> None:
        """A new connection may lead to a server that took over without the end of the log."""
        assert self._at is not None
        reply = await link.call("XREVRANGE", self.keys.log, self._id, "-", "COUNT", 1)
        try:
            found = _stamped(reply[0]) if reply else None
        except ValueError:  # not ours
            return
        if found is not None:  # else trimmed, or begun anew: what is read next tells
            same = (found.epoch, found.n) == self._at and (self._newest is None or self._newest == reply[0])
            if not same:
                raise LogBroken(f"it does not hold entry {self._at.n} as this node has read it")

    async def _still_same(self, link: Link, start: Start) -> None:
        """Nothing was read for a while. A log begun anew with an earlier clock would look just like that."""
        assert self._at is not None
        tail, ms = await self.tail(link, self.retention)
        if tail.epoch != self._at.epoch:
            self._go_on(start, "epoch", tail, ms)
        elif tail.n < self._at.n:
            raise LogBroken(f"it ends at {tail.n}, this node has read {self._at.n}")
        elif tail.n > self._at.n and self._unread == self._at:
            raise LogBroken(f"it ends at {tail.n}, but nothing follows {self._at.n}: its clock went back")
        self._unread = self._at if tail.n > self._at.n else None

    def _hand_on(
        self, entries: list[Stamped], start: Start, dispatch: Callable[[Sequence[Entry]], None]
    ) -> list[Stamped]:
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
            dispatch(batch)
            self._at = Position(epoch, last)
        if hole is None:
            return []
        if hole.epoch == epoch and hole.n <= last:
            raise LogBroken(f"entry {hole.n} follows {last}")
        self._at = Position(hole.epoch, hole.n - 1)
        start(self._at, hole.ms, "trimmed" if hole.epoch == epoch else "epoch")
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


def _stamped(item: Any) -> Stamped:
    ms, _, n = item[0].partition(b"-")
    fields = item[1]
    if fields[0] != b"epoch":
        raise ValueError(f"entry {item[0].decode()} has no epoch: something else writes to this stream")
    return Stamped(int(fields[1]), int(n), int(ms), fields[2:])
