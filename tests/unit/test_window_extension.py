"""Extending the window backwards: no further than needed, once for all who wait, or a reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from socketio_recovery.entries import (
    Entry,
    Position,
    pack,
    size_of,
)
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.reasons import Outcome, RestartReason

from .dispatching import (
    EPOCH,
    DispatchingNode,
    FastQueue,
    event,
    numbers,
    queued,
)


class Stream:
    """The part of the log that a window no longer has, or never had."""

    def __init__(self, first: int, upto: int, chunk: int = 10) -> None:
        self.first = first
        self.entries = [event(str(n), "red") for n in range(first, upto + 1)]
        for n, entry in enumerate(self.entries, first):
            entry.n = entry.ms = n
        self.chunk = chunk
        self.reads = 0
        self.fail = False
        self.between: Callable[[], None] = lambda: None

    async def backwards(self, epoch: int, floor: int, ms: int, take: Callable[[list[Entry]], bool]) -> None:
        self.reads += 1
        assert ms >= floor
        while floor >= self.first:
            await asyncio.sleep(0)
            if self.fail:
                raise RedisUnavailable("gone")
            chunk = [entry for entry in self.entries if floor - self.chunk < entry.n <= floor]
            floor -= len(chunk)
            self.between()
            if not take(chunk):
                return


def booted(stream: Stream, at: int, window_bytes: int = 1 << 30) -> DispatchingNode:
    node = DispatchingNode(window_bytes=window_bytes, log=stream)
    node.delivery.restart(Position(EPOCH, at), at, RestartReason.BOOT)
    return node


async def test_reaching_back_extends_the_window_no_further_than_needed() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    assert await node.reach_back(100) is None
    assert stream.reads == 0
    assert await node.reach_back(75) is None
    assert node.partition.window.floor == 70
    client = node.behind("s1", 75, ["red"], ["red"])
    await node.catch_up.replay(client)
    assert numbers(queued(client)) == list(range(76, 101))


async def test_all_who_reach_back_at_once_share_one_reading() -> None:
    stream = Stream(1, 1000)
    node = booted(stream, 1000)
    assert await asyncio.gather(*(node.reach_back(n) for n in range(900, 400, -1))) == [None] * 500
    assert stream.reads == 1
    assert node.partition.window.floor == 400


async def test_what_the_stream_no_longer_has_is_trimmed() -> None:
    node = booted(Stream(51, 100), 100)
    replies = await asyncio.gather(*(node.reach_back(n) for n in (60, 50, 49, 0)))
    assert replies == [None, None, Outcome.TRIMMED, Outcome.TRIMMED]
    assert node.partition.window.floor == 50


async def test_what_does_not_fit_is_over_the_limit() -> None:
    size = size_of(pack(Stream(1, 1).entries[0]))
    node = booted(Stream(1, 100), 100, window_bytes=size * 35)
    assert await asyncio.gather(*(node.reach_back(n) for n in (80, 10))) == [None, Outcome.LIMIT]
    assert not node.partition.window.full
    assert node.partition.window.last == 100


async def test_reaching_back_while_the_log_goes_on() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    stream.between = lambda: node.take(event("live", "red"))
    assert await node.reach_back(0) is None
    client = node.behind("s1", 0, ["red"], ["red"])
    client.socket.queue = FastQueue()
    await node.catch_up.replay(client)
    assert numbers(queued(client)) == list(range(1, node.last + 1))


async def test_reaching_back_starts_again_when_the_window_was_trimmed_meanwhile() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    window = node.partition.window

    def trimmed() -> None:
        if window.floor == 80:
            stream.between = lambda: None
            window.reset(100, 100)

    stream.between = trimmed
    assert await node.reach_back(50) is None
    assert window.floor == 50
    assert [entry.n for n in range(51, 101) if (entry := window[n])] == list(range(51, 101))


async def test_reaching_back_starts_again_when_the_window_began_anew() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)

    def anew() -> None:
        stream.between = lambda: None
        node.delivery.restart(Position(EPOCH + 1, 0), 0, RestartReason.EPOCH)

    stream.between = anew
    assert await node.reach_back(50) is None
    assert (node.partition.window.floor, len(node.partition.window)) == (0, 0)


async def test_a_failure_to_reach_back_is_told_to_all_and_not_remembered() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    stream.fail = True
    replies = await asyncio.gather(*(node.reach_back(n) for n in (50, 60)), return_exceptions=True)
    assert [type(reply) for reply in replies] == [RedisUnavailable] * 2
    stream.fail = False
    assert await node.reach_back(50) is None


async def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    node = booted(Stream(1, 1000), 1000)
    first = asyncio.ensure_future(node.reach_back(500))
    second = asyncio.ensure_future(node.reach_back(500))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None
    assert first.cancelled()


async def test_what_a_client_is_about_to_get_is_not_trimmed_as_too_old() -> None:
    stream = Stream(1, 1000)
    node = booted(stream, 1000)
    node.partition.window.retention = 1
    pinned = node.arriving()
    assert await node.extension.reach_back(pinned, 500) is None
    node.take(*(event("live", "red") for _ in range(1000)))
    assert node.partition.window.floor == 500
    pinned.after = 500
    pinned.rooms, pinned.rooms_then = {"red": 0}, {"red": 0}
    pinned.socket.queue = FastQueue()
    node.connections.add(pinned)
    node.take(event("live", "red"))
    assert node.partition.window.floor == 500
    await node.catch_up.replay(pinned)
    assert numbers(queued(pinned)) == list(range(501, 2002))
    node.take(event())
    assert node.partition.window.floor > 1900
