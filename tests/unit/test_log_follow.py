"""Following the log over a link that says what the test wants: holes, broken connections, two protocols."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from socketio_recovery.aio.log import Append, Log
from socketio_recovery.entries import EPOCH, EVENT, Entry, Position
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.reasons import RestartReason
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.scripts import RENEW, TAIL, Script

from tests.support.follower import partition
from tests.support.waiting import PATIENCE

Item = tuple[bytes, list[bytes]]


def item(epoch: int, n: int, ms: int = 1000, head: str = '["event","/"]') -> Item:
    fields = [b"epoch", str(epoch).encode(), b"head", head.encode(), b"data", b'["e"]']
    return f"{ms}-{n}".encode(), fields


class FakeLink:
    """A link whose replies are given in advance; then the stream is quiet for ever."""

    def __init__(self, tails: Sequence[tuple[int, int, int]], reads: Sequence[list[Item] | Exception]) -> None:
        self.tails = list(tails)
        self.reads = list(reads)
        self.asked: list[str] = []
        self.renewed: list[int] = []
        self.resp3 = False
        self.connected = True
        self.closed = 0
        self.received = 0

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if script is RENEW:
            self.renewed.append(arguments[0])
            return b"0"
        assert script is TAIL
        tail = self.tails.pop(0) if len(self.tails) > 1 else self.tails[0]
        return [str(x).encode() for x in (*tail, 1, 1)]

    async def call(self, *command: Any, timeout: float | None = None, limit: int = 0) -> Any:
        assert command[0] == "XREAD"
        self.asked.append(command[-1])
        if not self.reads:
            await asyncio.Event().wait()
        reply = self.reads.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if not reply:
            return None
        items = [list(i) for i in reply]
        return {b"log": items} if self.resp3 else [[b"log", items]]

    async def run_many(self, calls: Any, *more: Any) -> Any:
        return [[] for _ in more]  # looks back, and finds nothing

    async def close(self) -> None:
        self.closed += 1


class Followed:
    """What a follower was told, in order."""

    def __init__(self, link: FakeLink) -> None:
        self.link = link
        self.told: list[tuple[str, int, int] | list[int]] = []
        self.entries: list[Entry] = []
        self.log = Log(Keys("x"), lambda timeout: link, partition(), 1000, 0, 1, logging.getLogger("test"))  # type: ignore[arg-type,return-value]

    def restart(self, position: Position, why: RestartReason) -> None:
        self.told.append((why, *position))

    def dispatch(self, entries: Sequence[Entry]) -> None:
        self.told.append([entry.n for entry in entries])
        self.entries += entries

    async def run(self) -> Followed:
        """Follows until all replies are used up."""
        task = asyncio.ensure_future(self.log.follow(self))
        async with asyncio.timeout(PATIENCE):
            while self.link.reads or self.link.tails[1:]:
                await asyncio.sleep(0)
                if task.done():
                    break
            for _ in range(10):
                await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return self


@pytest.mark.parametrize("resp3", [False, True])
async def test_batches_are_handed_on_in_both_protocols(resp3: bool) -> None:
    link = FakeLink([(7, 3, 900)], [[item(7, 4), item(7, 5)], [item(7, 6, 1001)]])
    link.resp3 = resp3
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 3), [4, 5], [6]]
    assert link.asked == ["900-3", "1000-5", "1001-6"]
    assert [(e.kind, e.ms) for e in followed.entries] == [(EVENT, 1000), (EVENT, 1000), (EVENT, 1001)]
    assert link.closed == 1


async def test_a_hole_within_a_batch_is_told_between_its_parts() -> None:
    followed = await Followed(FakeLink([(7, 0, 0)], [[item(7, 1), item(7, 2), item(7, 5), item(7, 6)]])).run()
    assert followed.told == [("boot", 7, 0), [1, 2], ("trimmed", 7, 4), [5, 6]]


async def test_a_new_epoch_within_a_batch_is_told_between_its_parts() -> None:
    entries = [item(7, 1), item(8, 1, head='["epoch"]'), item(8, 2), item(9, 3, head='["epoch"]')]
    followed = await Followed(FakeLink([(7, 0, 0), (9, 3, 900)], [entries])).run()
    assert followed.told == [("boot", 7, 0), [1], ("epoch", 8, 0), [1, 2], ("epoch", 9, 2), [3]]


@pytest.mark.parametrize("again", [4, 5])
async def test_a_number_that_comes_again_is_a_broken_log(again: int) -> None:
    link = FakeLink([(7, 3, 900), (8, 9, 950)], [[item(7, 4), item(7, 5), item(7, again, 1001)], [item(8, 10, 1002)]])
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 3), [4, 5], ("epoch", 8, 9), [10]]
    assert link.renewed == [7]
    assert link.asked[1] == "950-9"


async def test_a_quiet_log_that_ends_earlier_is_broken() -> None:
    link = FakeLink([(7, 3, 900), (7, 2, 800), (8, 3, 950)], [[], []])
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 3), ("epoch", 8, 3)]
    assert link.renewed == [7]


async def test_a_quiet_log_of_another_epoch_is_begun_anew() -> None:
    link = FakeLink([(7, 3, 900), (8, 1, 950)], [[], []])
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 3), ("epoch", 8, 1)]
    assert link.renewed == []


async def test_a_quiet_log_is_the_same_log() -> None:
    link = FakeLink([(7, 3, 900)], [[], [], [item(7, 4)]])
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 3), [4]]
    assert link.asked[:3] == ["900-3"] * 3


async def test_a_broken_connection_is_no_hole() -> None:
    link = FakeLink([(7, 0, 0)], [[item(7, 1)], RedisUnavailable("gone"), [item(7, 2)]])
    followed = await Followed(link).run()
    assert followed.told == [("boot", 7, 0), [1], [2]]
    assert link.asked[1] == link.asked[2] == "1000-1"


async def test_an_entry_that_can_not_be_read_keeps_its_place() -> None:
    followed = await Followed(
        FakeLink([(7, 0, 0)], [[item(7, 1, head="not JSON"), item(7, 2, head="[]"), item(7, 3)]])
    ).run()
    assert followed.told == [("boot", 7, 0), [1, 2, 3]]
    assert [e.kind for e in followed.entries] == [EPOCH, EPOCH, EVENT]


async def test_foreign_entries_are_passed_over() -> None:
    foreign: Item = (b"1000-1", [b"not", b"ours"])
    followed = await Followed(FakeLink([(7, 0, 0)], [[foreign], [item(7, 1), foreign, item(7, 2)]])).run()
    assert followed.told == [("boot", 7, 0), [1, 2]]


async def test_a_reader_that_failed_in_a_batch_does_not_pass_over_it_unseen() -> None:
    """Started again by its supervisor, it tells of the hole."""
    link = FakeLink([(7, 0, 0)], [[item(7, 1), item(7, 2)]])
    followed = Followed(link)
    fails = [True]
    dispatch = followed.dispatch

    def failing(entries: Sequence[Entry]) -> None:
        if fails:
            fails.clear()
            raise RuntimeError("a bug")
        dispatch(entries)

    followed.dispatch = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        await followed.log.follow(followed)
    link.reads = [[item(7, 3)]]
    await followed.run()
    assert followed.told == [("boot", 7, 0), ("trimmed", 7, 2), [3]]


class Told:
    """Notes what a follower is told."""

    def __init__(self, told: list[Any]) -> None:
        self.told = told
        self.partition = partition()

    def restart(self, position: Position, why: RestartReason) -> None:
        self.told.append((why, *position))
        self.partition.restart(position)
        self.partition.restarted(why)

    def dispatch(self, entries: Sequence[Entry]) -> None:
        self.told.append([entry.n for entry in entries])
        for entry in entries:
            self.partition.window.append(entry)
        self.partition.dispatched(entries)


async def test_a_look_back_that_comes_late_does_not_break_the_next_epoch() -> None:
    """The writer asks whether the log is the same, while the reader takes in an epoch that another node has begun."""
    look, begun = asyncio.Event(), asyncio.Event()
    tail = {"epoch": 7, "n": 3, "ms": 1000}
    renewed: list[Any] = []

    class Two:
        """The reader's link, and the writer's."""

        connected, number, reads, look_backs, received = True, 1, 0, 0, 0

        async def open(self) -> None: ...

        async def run(self, script: Any, keys: Any, arguments: Any) -> Any:
            if script is RENEW:
                renewed.append(arguments)
            if script is not TAIL:
                return [b"8", b"3", b"0"]
            return [*(str(tail[name]).encode() for name in ("epoch", "n", "ms")), b"1", b"1"]

        async def run_many(self, calls: Any, *more: Any, limit: int = 0) -> Any:
            if not calls:  # a look back, the writer's first
                if self.look_backs:
                    return [[]]
                self.look_backs += 1
                await look.wait()
                return [[item(7, 1, 900)]]  # where it asks, the log lost entries 2 and 3
            return [[b"8", b"3", b"0"], None]

        async def call(self, *command: Any, timeout: float = 0, limit: int = 0) -> Any:
            self.reads += 1
            if self.reads == 1:
                await begun.wait()
                return [[b"log", [item(8, 2, 2000), item(8, 3, 2001)]]]
            await asyncio.sleep(0.01)
            return None

        async def close(self) -> None: ...

    two = Two()
    told: list[Any] = []
    follower = Told(told)
    log = Log(Keys("x"), lambda timeout: two, follower.partition, 1000, 0, 60, logging.getLogger("test.late"))  # type: ignore[arg-type,return-value]
    follow = asyncio.create_task(log.follow(follower))
    write = asyncio.create_task(log.write())
    try:
        async with asyncio.timeout(PATIENCE):
            while not told:
                await asyncio.sleep(0)
            append = asyncio.create_task(log.append(Append('["event","/"]', ("data", '["e"]'))))
            await asyncio.sleep(0.01)
            tail["epoch"] = 8
            begun.set()
            while len(told) < 3:
                await asyncio.sleep(0)
            look.set()
            await append
            await asyncio.sleep(0.05)
    finally:
        for task in (follow, write):
            task.cancel()
        await asyncio.gather(follow, write, return_exceptions=True)
    assert told == [("boot", 7, 3), ("epoch", 8, 1), [2, 3]]
    assert renewed == []
