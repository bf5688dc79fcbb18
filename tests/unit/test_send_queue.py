"""The outbox: messages go past the queue only where nothing is before them, as the frames aiohttp would send."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.http import WSMsgType
from aiohttp.http_websocket import WebSocketWriter
from engineio.packet import PING
from engineio.packet import Packet as EngineIOPacket
from hypothesis import example, given
from hypothesis import strategies as st
from socketio_recovery.aio.send_queue import COMPRESSED_FROM, CONGESTED, SendQueue
from socketio_recovery.packets import Message


class Wire:
    """A TCP transport."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.size = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        self.got.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.size

    def is_closing(self) -> bool:
        return self.closing


def opened(upgraded: bool = True, is_open: bool = True, compresses: bool = False) -> tuple[SendQueue, Wire]:
    outbox, wire = SendQueue(), Wire()
    socket = SimpleNamespace(upgraded=upgraded)
    outbox.open(socket, wire, lambda: is_open, lambda: compresses)  # type: ignore[arg-type]
    return outbox, wire


async def waited_for(outbox: SendQueue) -> asyncio.Task[Any]:
    """Engine.IO's writing task, with nothing left to send."""
    task = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("binary", [False, True])
async def test_a_frame_is_what_aiohttp_sends(size: int, binary: bool) -> None:
    data: str | bytes = bytes(size) if binary else "ö" * (size // 2) + "x" * (size % 2)
    wire = Wire()
    protocol = SimpleNamespace(_drain_helper=lambda: asyncio.sleep(0), _paused=False)
    writer = WebSocketWriter(protocol, wire)  # type: ignore[arg-type]
    wire.writelines = lambda parts: wire.write(b"".join(parts))  # type: ignore[attr-defined]
    message = Message(data)
    encoded = message.encode()
    kind = WSMsgType.BINARY if binary else WSMsgType.TEXT
    await writer.send_frame(encoded.encode() if isinstance(encoded, str) else encoded, kind)
    assert message.frame == b"".join(wire.got)


async def test_a_batch_is_one_write_when_nothing_is_before_it() -> None:
    outbox, wire = opened()
    task = await waited_for(outbox)
    messages = [Message("2[1]"), Message("2[2]")]
    outbox.send(messages)
    assert wire.got == [messages[0].frame + messages[1].frame]
    assert outbox.empty()
    task.cancel()


@pytest.mark.parametrize(
    "reason", ["nobody waits", "something waits", "not upgraded", "congested", "closing", "not open", "closed"]
)
async def test_messages_are_queued_where_something_may_be_before_them(reason: str) -> None:
    outbox, wire = opened(upgraded=reason != "not upgraded", is_open=reason != "not open")
    task = None if reason == "nobody waits" else await waited_for(outbox)
    if reason == "something waits":
        outbox.put_nowait(EngineIOPacket(PING))
    elif reason == "congested":
        wire.size = CONGESTED
    elif reason == "closing":
        wire.closing = True
    elif reason == "closed":
        outbox.close()
    message = Message("2[1]")
    outbox.send([message])
    assert wire.got == []
    assert outbox.qsize() == 1 + (reason == "something waits")
    if task is not None:
        task.cancel()


async def test_large_messages_are_left_to_a_websocket_that_compresses() -> None:
    outbox, wire = opened(compresses=True)
    task = await waited_for(outbox)
    small, large = Message("x" * 10), Message("x" * COMPRESSED_FROM)
    outbox.send([small])
    assert wire.got == [small.frame]
    outbox.send([small, large])
    assert wire.got == [small.frame]
    assert outbox.qsize() == 2
    task.cancel()


async def test_what_the_transport_has_no_room_for_waits_in_the_queue() -> None:
    """There it is shared with other clients, and counted: a client that does not read costs little."""
    outbox, wire = opened()
    task = await waited_for(outbox)
    outbox.send([Message("x" * 1000)] * (CONGESTED // 1000))
    assert wire.got == []
    assert outbox.qsize() == CONGESTED // 1000
    task.cancel()


async def test_who_waits_until_all_is_written_is_told_when_the_writer_waits_again() -> None:
    outbox, wire = opened()
    outbox.put_nowait(Message("the CONNECT"))
    waits = [asyncio.create_task(outbox.written(60)) for _ in range(2)]
    waits[0].cancel()
    await asyncio.sleep(0)
    await outbox.get()  # what it took is not sent yet
    await asyncio.sleep(0)
    assert not waits[1].done()
    task = await waited_for(outbox)
    await asyncio.wait_for(waits[1], 1)
    await asyncio.wait_for(outbox.written(60), 1)
    outbox.send([Message("missed")])
    assert wire.got == [Message("missed").frame]
    task.cancel()


@pytest.mark.parametrize("why", ["closed", "woken", "polling", "not upgraded"])
async def test_nobody_waits_for_a_writer_that_will_not_wait(why: str) -> None:
    outbox = SendQueue() if why == "polling" else opened(upgraded=why != "not upgraded")[0]
    outbox.put_nowait(Message("the CONNECT"))
    wait = asyncio.create_task(outbox.written(60))
    await asyncio.sleep(0)
    assert wait.done() == (why in ("polling", "not upgraded"))
    outbox.close() if why == "closed" else outbox.wake()
    await asyncio.wait_for(wait, 1)


async def test_nobody_waits_for_ever_for_a_writer_that_always_has_something_to_send() -> None:
    outbox, _ = opened()
    outbox.put_nowait(Message("of another namespace"))
    await outbox.written(0.001)
    assert outbox.qsize() == 1


async def test_nothing_to_send_is_nothing() -> None:
    outbox, wire = opened(compresses=True)
    task = await waited_for(outbox)
    outbox.send([])
    assert (wire.got, outbox.qsize()) == ([], 0)
    task.cancel()


@given(st.lists(st.none() | st.sampled_from(["text", "é", b"bytes", None, EngineIOPacket(PING)]), max_size=30))
def test_the_bytes_that_wait_are_counted(steps: list[Any]) -> None:
    """``None``, the end of a transport, and a ping without data have none."""
    queue = SendQueue()
    waiting: list[Any] = []
    for step in steps:
        if step is None and waiting:
            queue.get_nowait()
            waiting.pop(0)
        else:
            packet = Message(step) if isinstance(step, (str, bytes)) else step
            queue.put_nowait(packet)
            waiting.append(packet)
        size = sum(len(packet.data) for packet in waiting if isinstance(packet, Message))
        assert queue.bytes == size
        for packets in range(4):
            for most in (0, size - 1, size):
                assert queue.holds(packets, most) == (len(waiting) <= packets and size <= most)


@pytest.mark.parametrize("by", ["packets", "bytes"])
async def test_who_waits_for_room_goes_on_when_little_enough_waits(by: str) -> None:
    queue = SendQueue()
    for _ in range(10):
        queue.put_nowait(Message("x" * 100))
    limits = (5, 10**6) if by == "packets" else (100, 500)
    waits = [asyncio.create_task(queue.drained(*limits)), asyncio.create_task(queue.drained(3, 10**6))]
    await asyncio.sleep(0)
    for left in range(9, 2, -1):
        queue.get_nowait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert [task.done() for task in waits] == [left <= 5, left <= 3]
    async with asyncio.timeout(1):
        await queue.drained(3, 300)  # nothing to wait for


async def test_a_lost_transport_wakes_who_waits_for_room() -> None:
    queue = SendQueue()
    queue.put_nowait(Message("x"))
    waits = [asyncio.create_task(queue.drained(0, 10)), asyncio.create_task(queue.drained(10, 0))]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.sleep(0)
    queue.wake()
    queue.wake()
    async with asyncio.timeout(1):
        await waits[1]
    assert waits[0].cancelled()


@given(st.lists(st.sampled_from(["send", "send two", "ping", "turn", "congested", "free"]), max_size=40))
def test_what_is_sent_arrives_in_order(steps: list[str]) -> None:
    """Whatever the writing task, the network and others do meanwhile."""

    async def run() -> None:
        outbox, wire = opened()
        sent: list[bytes] = []

        async def writer() -> None:  # as python-engineio's: takes all there is, then sends it, one after the other
            while True:
                packets = [await outbox.get()]
                while not outbox.empty():
                    packets.append(outbox.get_nowait())
                for packet in packets:
                    await asyncio.sleep(0)
                    wire.write(packet.frame)

        task = asyncio.create_task(writer())
        for number, step in enumerate(steps):
            if step == "turn":
                await asyncio.sleep(0)
            elif step in ("congested", "free"):
                wire.size = CONGESTED if step == "congested" else 0
            else:
                messages = [Message(f"{number}.{i}") for i in range(2 if step == "send two" else 1)]
                sent += [message.frame for message in messages]
                if step == "ping":
                    outbox.put_nowait(messages[0])
                else:
                    outbox.send(messages)
        for _ in range(4 * len(steps) + 4):
            await asyncio.sleep(0)
        task.cancel()
        assert b"".join(wire.got) == b"".join(sent)

    asyncio.run(run())


async def _after(queue: Any, steps: list[str]) -> list[Any]:
    """What becomes of some steps on a queue: who gets which packet, what waits, whether all is sent."""
    getters: list[asyncio.Task[Any]] = []
    joins: list[asyncio.Task[None]] = []
    found: list[Any] = []
    taken = 0
    for number, step in enumerate(steps):
        if step == "put":
            await queue.put(number)
        elif step == "get":
            getters.append(asyncio.create_task(queue.get()))
        elif step == "cancel" and getters:
            getters[number % len(getters)].cancel()
        elif step == "get_nowait":
            try:
                found.append(queue.get_nowait())
                taken += 1
            except asyncio.QueueEmpty:
                found.append("empty")
        elif step == "join":
            joins.append(asyncio.create_task(queue.join()))
        elif step == "run":
            await asyncio.sleep(0)
        elif step == "done":
            got = sum(1 for getter in getters if getter.done() and not getter.cancelled()) + taken
            while got > len([it for it in found if it == "done"]):
                queue.task_done()
                found.append("done")
        found.append((queue.qsize(), queue.empty()))
    for _ in range(5):
        await asyncio.sleep(0)
    found += [getter.result() if getter.done() and not getter.cancelled() else getter.done() for getter in getters]
    found += [join.done() for join in joins]
    for task in (*getters, *joins):
        task.cancel()
    await asyncio.gather(*getters, *joins, return_exceptions=True)
    return found


@example(["get", "get", "run", "put", "cancel"])  # the first has its turn already
@example(["get", "run", "put", "get_nowait", "run", "put"])  # somebody else takes what it was woken for
@given(st.lists(st.sampled_from(["put", "get", "cancel", "get_nowait", "join", "run", "run", "done"]), max_size=30))
def test_it_is_a_queue_as_that_of_asyncio(steps: list[str]) -> None:
    assert asyncio.run(_after(SendQueue(), steps)) == asyncio.run(_after(asyncio.Queue(), steps))
