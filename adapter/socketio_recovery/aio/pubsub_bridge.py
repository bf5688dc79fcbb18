"""Carries events between this cluster and processes with python-socketio's own Redis managers, while one takes the
place of the other. See ``docs/migrating.md``.

From the log to the channel.  One node follows the log from where the last one came (a note in Redis), and publishes
what the entries become. The script that publishes moves the note in the same step.

From the channel to the log.  What is published has no number, and comes to all nodes, to each at most once. But it
comes to all in the same order. So each node publishes a *mark* when it begins to listen, and all number what follows
the last mark. The number is the entry's sequence, and the mark names its producer: the append script, which skips what
a producer has stored already, takes each message once, whichever node has it appended. One node at a time does so. The
others keep what was not yet appended, as far as Redis tells, to go on when that node dies.

A message is lost if no node hears it to the end: if the connections of all of them are cut at that moment.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from typing import Any, NamedTuple

from ..entries import Payload, parse_entry, parse_head
from ..errors import RedisUnavailable, ReplyTooLarge
from ..outside_event import Malformed
from ..packets import Codec, JsonCodec, converted
from ..pubsub_messages import (
    OURS,
    came_from_message,
    entry_of,
    mark_message,
    mark_of,
    message_of,
    move_message,
    read_message,
)
from ..read_size import ReadSize
from ..redis.actions import appended
from ..redis.keys import Keys
from ..redis.scripts import APPEND, PUBLISH, Argument
from . import lease
from .lease import Lease
from .log import READ_BYTES, READ_COUNT, Append, Log
from .membership_log import Move
from .participants import Participants
from .redis_link import RedisLink
from .tasks import Backoff

#: Messages that one script call appends, at most.
APPEND_COUNT = 200
#: Bytes of messages that a node keeps, which were not appended yet.
KEEP_BYTES = 64 << 20
#: How long Redis keeps the bridge's note, in ms.
LIFETIME = 86_400_000
#: How long a change of rooms waits until what was emitted before it is published, in seconds.
BEHIND = 2.0
#: How long a node that has not heard all leaves the work to others that may have, in seconds.
GRACE = 2 * (lease.LEASE_TIME + lease.LOOK)
#: Seconds between two warnings about what can't be read.
AGAIN = 60.0


class TooMuch(Exception):
    """More was published than a node can keep until Redis takes it."""


class Heard(NamedTuple):
    """A message of python-socketio's managers."""

    mark: str  #: the last mark before it
    number: int  #: its number after that mark, from 1 on
    append: Append | None
    size: int


class PubSubBridge:
    """The bridge, as one node has its part in it.

    :param pubsub: makes a subscriber: ``client.pubsub``.
    :param link: makes a dedicated connection; called with its default timeout in seconds.
    :param codecs: the serialisations that entries may have.
    """

    def __init__(
        self,
        pubsub: Callable[..., Any],
        channel: str,
        keys: Keys,
        log: Log,
        participants: Participants,
        link: Callable[[float], RedisLink],
        codecs: Sequence[Codec],
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.channel = channel
        self.keys = keys
        self.log = log
        self.participants = participants
        self.timeout = timeout
        self.logger = logger
        self.lease = Lease(keys.pubsub_lease)
        self._pubsub = pubsub
        self._link = link
        self._as_json: Callable[[Payload], Payload] = partial(converted, codec=JsonCodec(), codecs=codecs)
        self._heard: deque[Heard] = deque()
        self._bytes = 0
        self._marks: list[str] = []  # those of which something may be left to append, in the order of the channel
        self._own_mark = ""  # where this node began to listen; it may have missed what was before
        self._hears = False  # whether it has heard that mark
        self._gap_since: float | None = None  # since when the lease is left to nodes that have heard more
        self._number = 0
        self._news = asyncio.Event()
        self._size = ReadSize(READ_COUNT, READ_BYTES)
        self._has_lease = False
        self._warned = 0.0

    @property
    def tasks(self) -> dict[str, Callable[[], Any]]:
        """What is to be run for ever, by names."""
        return {
            "listener of the pub/sub bridge": self.listen,
            "reader of the pub/sub bridge": self.carry_in,
            "writer of the pub/sub bridge": self.carry_out,
        }

    # -- from the channel -----------------------------------------------------------------------------

    async def listen(self) -> None:
        """Hears what is published."""
        backoff = Backoff()
        link = self._link(self.timeout)
        try:
            while True:
                subscriber = self._pubsub()
                try:
                    await subscriber.subscribe(self.channel)
                    async for message in subscriber.listen():
                        if message["type"] == "subscribe":  # also after a connection was lost, and something with it
                            await self._begin(link)
                            backoff.reset()
                        elif message["type"] == "message":
                            data = message["data"]
                            self._hear(data.encode() if isinstance(data, str) else data)
                except Exception as error:
                    ours = type(error).__module__.split(".")[0] in ("redis", "valkey", "socketio_recovery")
                    if not ours and not isinstance(error, OSError):
                        raise
                    self.logger.warning("can't hear python-socketio's channel, will try again: %s", error)
                    await backoff.wait()
                finally:
                    self._hears = False
                    await subscriber.aclose()
        finally:
            await link.close()

    async def _begin(self, link: RedisLink) -> None:
        """What was published just now may not have been heard: numbers begin anew at a mark of this node's."""
        self._hears = False
        self._own_mark = uuid.uuid4().hex
        await link.call("PUBLISH", self.channel, mark_message(self._own_mark))

    def _hear(self, raw: bytes) -> None:
        try:
            message = read_message(raw)
        except Malformed as error:  # it has no number: all nodes pass it over
            self._warn(error)
            return
        if (mark := mark_of(message)) is not None:
            self._hears = self._hears or mark == self._own_mark
            if self._hears:
                self._marks.append(mark)
                self._number = 0
                self._news.set()
            return
        if OURS in message or not self._hears:
            return
        self._number += 1
        append = None
        try:
            crossing = entry_of(message, self.keys)
            if crossing is not None:
                append = Append(*crossing)
        except (Malformed, ValueError) as error:
            self._warn(error)
        if append is not None:
            self._heard.append(Heard(self._marks[-1], self._number, append, len(raw)))
            self._bytes += len(raw)
        self._news.set()
        if self._bytes > KEEP_BYTES:
            self._heard.clear()
            self._marks.clear()
            self._bytes = 0
            raise TooMuch("Redis takes less than is published; what waited is lost")

    def _warn(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if not self._warned or now - self._warned >= AGAIN:
            self._warned = now
            self.logger.warning("a message in python-socketio's channel %r is left out: %s", self.channel, error)

    async def carry_in(self) -> None:
        """Has appended what was heard, while this node has the lease; else drops what was appended."""
        link = self._link(self.timeout)
        backoff = Backoff()
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(lease.LOOK):
                        await self._news.wait()
                try:
                    self._news.clear()
                    current = await self._drop_appended(link)
                    self._has_lease = self._well(current) and await self.lease.held(link)
                    if self._has_lease:
                        await self._append_heard(link, current)
                    else:
                        await asyncio.sleep(lease.LOOK)
                    backoff.reset()
                except RedisUnavailable as error:
                    self.logger.warning("can't carry over what was published, will try again: %s", error)
                    await backoff.wait()
                    self._news.set()
        finally:
            self._has_lease = False
            try:
                await self.lease.give_up(link)
            finally:
                await link.close()

    def _well(self, current: str) -> bool:
        """Whether this node hears the channel, follows the log, may write to it, and can go on from a mark.

        If it has not heard all since then, it waits for another node that has.
        """
        assert self.log.partition is not None
        cursor = self.log.partition.cursor
        if not self._marks or cursor.at is None or cursor.broken or self.log.refusal is not None:
            return False
        if not self._hears and not self._heard:
            return False  # others hear
        now = asyncio.get_running_loop().time()
        if current in ("", *self._marks) and not self._missed(current):
            self._gap_since = None
            return True
        if self._gap_since is None:
            self._gap_since = now
        return now - self._gap_since >= GRACE

    def _missed(self, current: str) -> bool:
        """Whether it missed something between two marks, and has nothing more of the first one."""
        at = self._marks.index(current) if current in self._marks else -1
        done = not any(heard.mark == current for heard in self._heard)
        return 0 <= at < len(self._marks) - 1 and self._marks[at + 1] == self._own_mark and done

    def _producer(self, mark: str) -> str:
        return self.keys.producer(f"pubsub-{mark}")

    async def _drop_appended(self, link: RedisLink) -> str:
        """Drops what Redis has, and the marks that are done with. Returns the mark at which the work is."""
        current = (await link.call("HGET", self.keys.pubsub, "mark") or b"").decode()
        if current in self._marks:
            stored = int(await link.call("HGET", self._producer(current), "sequence") or 0)
            done = set(self._marks[: self._marks.index(current)])
            self._marks = [mark for mark in self._marks if mark not in done]
            while self._heard:
                first = self._heard[0]
                if first.mark not in done and not (first.mark == current and first.number <= stored):
                    break
                self._drop_first()
        return current

    def _drop_first(self) -> None:
        self._bytes -= self._heard.popleft().size

    async def _append_heard(self, link: RedisLink, current: str) -> None:
        """Appends what is kept, mark after mark."""
        if current not in self._marks:
            if current:
                self._say_lost()
            if not await self._note(link, "mark", current, self._marks[0]):
                return
        while self._marks:
            mark = self._marks[0]
            batch = [heard for heard in islice(self._heard, APPEND_COUNT) if heard.mark == mark]
            if batch:
                await self._store(link, batch)
                last = batch[-1].number
                while self._heard and self._heard[0].mark == mark and self._heard[0].number <= last:
                    self._drop_first()
            elif len(self._marks) == 1:
                return
            else:
                if self._missed(mark):
                    if self._gap_since is None:
                        await self.lease.give_up(link)
                        return
                    self._say_lost()
                if not await self._note(link, "mark", mark, self._marks[1]):
                    return  # another node has gone on
                del self._marks[0]

    def _say_lost(self) -> None:
        self._gap_since = None
        self.logger.warning(
            "no node has heard all that python-socketio's managers published: what came while connections to Redis "
            "were lost, or while no node was there, is lost"
        )

    async def _note(self, link: RedisLink, field: str, since: str, to: str, messages: Sequence[str] = ()) -> bool:
        """Moves a note in Redis, and publishes messages with it; returns whether it was where it was taken to be."""
        arguments: list[Argument] = [field, since, to, LIFETIME, self.channel, *messages]
        return bool(await link.run(PUBLISH, [self.keys.pubsub], arguments) == to.encode())

    async def _store(self, link: RedisLink, batch: Sequence[Heard]) -> None:
        """Appends messages of one mark; those between whose numbers one is missing need a call of their own."""
        for _, group in groupby(enumerate(batch), key=lambda item: item[1].number - item[0]):
            some = [heard for _, heard in group]
            keys = [self.keys.log, self.keys.meta, self._producer(some[0].mark), self.keys.closes, self.keys.closed]
            appends = [heard.append for heard in some if heard.append is not None]
            arguments = self.log.arguments(appends, keys, some[0].number, None)
            reply = appended(await link.run(APPEND, keys, arguments))
            for why in reply.refused.values():
                if why.startswith("failed"):
                    self.logger.error("a message of python-socketio's managers could not be stored: %s", why)
            for i, left in reply.left.items():
                head = parse_head(str(appends[i - 1].fields[1]).encode())
                await self.participants.place(head.sid, head.namespace, left)

    # -- from the log ---------------------------------------------------------------------------------

    async def carry_out(self) -> None:
        """Publishes what the log has, while this node has the lease."""
        link = self._link(self.timeout)
        backoff = Backoff()
        try:
            while True:
                try:
                    if self._has_lease:
                        await self._publish_next(link)
                    else:
                        await asyncio.sleep(lease.LOOK / 4)
                    backoff.reset()
                except ReplyTooLarge:
                    self._size.too_large()
                except RedisUnavailable as error:
                    self.logger.warning("can't publish what the log has, will try again: %s", error)
                    await backoff.wait()
        finally:
            await link.close()

    async def _publish_next(self, link: RedisLink) -> None:
        published = (await link.call("HGET", self.keys.pubsub, "published") or b"").decode()
        if not published:
            last = await link.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
            await self._note(link, "published", "", last[0][0].decode() if last else "0-0")
            return
        size = self._size
        reply = await link.call(
            *("XREAD", "COUNT", size.count, "BLOCK", int(lease.LOOK * 1000), "STREAMS", self.keys.log, published),
            timeout=lease.LOOK + self.timeout,
            limit=size.limit,
        )
        if not reply:
            return
        items = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]  # RESP3, RESP2
        size.read(items, link.received)
        messages = [message for item in items if (message := self._message(item)) is not None]
        await self._note(link, "published", published, items[-1][0].decode(), messages)

    def _message(self, item: Any) -> str | None:
        ms, _, n = item[0].partition(b"-")
        fields = item[1][2:]
        try:
            if came_from_message(fields):
                return None
            return message_of(parse_entry(int(n), int(ms), fields), self._as_json)
        except Exception as error:  # nobody else can read it either
            self.logger.debug("entry %s of the log is not published: %s", item[0], error)
            return None


class Elsewhere:
    """Moves clients between rooms that are connected to processes with python-socketio's own managers.

    :param link: makes a dedicated connection; called with its default timeout in seconds.
    """

    def __init__(self, channel: str, keys: Keys, link: Callable[[float], RedisLink], timeout: float) -> None:
        self.channel = channel
        self.keys = keys
        self.timeout = timeout
        self._link = link

    async def move(self, moves: Sequence[Move]) -> None:
        """Publishes changes of rooms of clients that have no session here, after what was emitted before them."""
        link = self._link(self.timeout)
        try:
            await self._wait(link)
            for move in moves:
                namespace = str(move.append.action.arguments[1])
                await link.call("PUBLISH", self.channel, move_message(move.kind, move.sid, namespace, move.room))
        finally:
            await link.close()

    async def _wait(self, link: RedisLink) -> None:
        last = await link.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
        end = asyncio.get_running_loop().time() + BEHIND
        while last and asyncio.get_running_loop().time() < end:
            published = await link.call("HGET", self.keys.pubsub, "published")
            if published is None or _order(published) >= _order(last[0][0]):
                return
            await asyncio.sleep(0.01)


def _order(id: bytes) -> tuple[int, int]:
    ms, _, n = id.partition(b"-")
    return int(ms), int(n or 0)
