"""The send queue of synchronous servers: one order, one writer at a time, nothing lost; in threads and greenlets."""

from __future__ import annotations

import asyncio
import itertools
import queue as standard
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from engineio.packet import MESSAGE
from engineio.packet import Packet as EngineIOPacket
from socketio_recovery.aio.send_queue import COMPRESSED_FROM
from socketio_recovery.packets import Message
from socketio_recovery.threads.modes import Gevent, Mode, Threading
from socketio_recovery.threads.send_queue import Rest, ThreadSendQueue
from socketio_recovery.threads.upstream.websocket import SharedSocket

from tests.support.waiting import PATIENCE


class World:
    """A synchronous server's threads, and native threads beside them, such as that of the event loop."""

    def __init__(self) -> None:
        self.mode: Mode = Threading()

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs ``work`` in a thread of the server."""
        return self.native(work)

    def native(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs ``work`` in a native thread."""
        done: Future[Any] = Future()
        threading.Thread(target=_run, args=(work, done), daemon=True).start()
        return done

    def sleep(self, seconds: float = 0.001) -> None:
        time.sleep(seconds)

    def result(self, done: Future[Any]) -> Any:
        self.until(done.done)
        return done.result()

    def until(self, condition: Callable[[], Any]) -> None:
        """Waits, while the server's threads run."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "it takes too long"
            self.sleep()

    def of_server(self, sock: socket.socket) -> Any:
        """A socket as the server's threads have it."""
        return sock

    def end(self) -> None:
        pass


class Greenlets(World):
    """Greenlets of this thread, without patching the standard library."""

    def __init__(self) -> None:
        import gevent
        import gevent.socket

        self.gevent: Any = gevent
        self.mode = Gevent()

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        done: Future[Any] = Future()
        self.gevent.spawn(_run, work, done)
        return done

    def sleep(self, seconds: float = 0.001) -> None:
        self.gevent.sleep(seconds)

    def of_server(self, sock: socket.socket) -> Any:
        return self.gevent.socket.socket(fileno=sock.detach())

    def end(self) -> None:
        self.gevent.get_hub().destroy()


def _run(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


@pytest.fixture(params=[World, Greenlets], ids=["threads", "greenlets"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param is Greenlets:
        pytest.importorskip("gevent")
    world: World = request.param()
    yield world
    world.end()


def new_queue(world: World, soon: Callable[..., None] = lambda function: function()) -> ThreadSendQueue:
    return ThreadSendQueue(world.mode, standard.Empty, soon)


def packet(text: str) -> EngineIOPacket:
    """A packet that python-socketio has put: the writer encodes it."""
    return EngineIOPacket(MESSAGE, text)


class Link:
    """A WebSocket: a real pair of sockets, python-engineio's writer on the one end, and a reader on the other.

    :param buffer: the size of the sockets' buffers, roughly, in bytes.
    """

    def __init__(self, world: World, buffer: int = 0) -> None:
        self.world = world
        self.queue = new_queue(world)
        self.client, server = socket.socketpair()
        if buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.server = world.of_server(server)
        self.shared = SharedSocket(self.server, compresses=False)
        self.writes = 0
        self.by_writer = 0
        self.sending = False
        self.collisions = 0
        self.queue.open(SimpleNamespace(upgraded=True), self)
        self.writer = world.start(self._write)

    def fits(self, frames: Any) -> bool:
        return self.shared.fits(frames)

    def write_now(self, data: bytes) -> int:
        self.collisions += self.sending
        self.writes += 1
        return self.shared.write_now(data)

    def _write(self) -> None:
        while (packet := self.queue.get(timeout=PATIENCE)) is not None:
            self.sending = True
            self.by_writer += 1
            self.server.sendall(packet.data if isinstance(packet, Rest) else Message(packet.data).frame)
            self.sending = False
            self.queue.task_done()
        self.queue.task_done()

    def waits(self) -> bool:
        """Whether the writer waits for the queue."""
        return self.queue._writer_waits and self.queue.empty()

    def read(self) -> Future[list[str]]:
        """Reads what comes until the end, and takes the frames apart."""

        def read() -> list[str]:
            data = b"".join(iter(lambda: self.client.recv(1 << 16), b""))
            found = []
            while data:
                assert data[0] == 0x81, "frames are mixed up"
                size, at = data[1], 2
                if size >= 126:
                    at = 4 if size == 126 else 10
                    size = int.from_bytes(data[2:at], "big")
                assert len(data) >= at + size
                found.append(data[at + 1 : at + size].decode())
                data = data[at + size :]
            return found

        return self.world.native(read)

    def finish(self, reading: Future[list[str]]) -> list[str]:
        """Ends the writer and the connection; returns what was read."""
        self.queue.put(None)
        self.world.result(self.writer)
        self.queue.close()
        self.shared.close()
        self.server.close()
        found: list[str] = self.world.result(reading)
        self.client.close()
        return found


def test_a_batch_is_one_write_when_nothing_is_before_it(world: World) -> None:
    link = Link(world)
    world.until(link.waits)
    world.result(world.native(lambda: link.queue.send([Message("a"), Message("b")])))
    assert (link.writes, link.by_writer) == (1, 0)
    assert link.finish(link.read()) == ["a", "b"]


@pytest.mark.parametrize("reason", ["nobody waits", "not upgraded", "no WebSocket", "closed", "compressed", "lost"])
def test_messages_are_queued_where_something_may_be_before_them(world: World, reason: str) -> None:
    def lost(data: bytes) -> int:
        raise BrokenPipeError

    queue = new_queue(world)
    wire: Any = SimpleNamespace(fits=lambda frames: reason != "compressed", write_now=len)
    if reason == "lost":
        wire.write_now = lost
    queue.open(SimpleNamespace(upgraded=reason != "not upgraded"), None if reason == "no WebSocket" else wire)
    if reason == "closed":
        queue.close()
    queue._writer_waits = reason != "nobody waits"
    messages = [Message("a"), Message("b")]
    queue.send(messages)
    assert [queue.get_nowait(), queue.get_nowait()] == messages


def test_a_large_message_is_compressed_where_a_client_agreed_to_it() -> None:
    here, there = socket.socketpair()
    with here, there:
        small, large = b"x" * (COMPRESSED_FROM - 1), b"x" * COMPRESSED_FROM
        for compresses in (False, True):
            shared = SharedSocket(here, compresses)
            assert shared.fits([small])
            assert shared.fits([small, large]) is not compresses
            shared.close()


def test_what_a_socket_does_not_take_is_sent_by_the_writer(world: World) -> None:
    link = Link(world, buffer=4096)
    world.until(link.waits)
    texts = [str(i) + "x" * 100_000 for i in range(3)]
    world.result(world.native(lambda: link.queue.send([Message(text) for text in texts])))
    world.result(world.native(lambda: link.queue.send([Message("after")])))
    link.queue.put(packet("and after that"))
    assert link.writes == 1
    assert link.finish(link.read()) == [*texts, "after", "and after that"]
    assert link.queue.bytes == 0


def test_what_is_left_is_one_packet_and_is_counted(world: World) -> None:
    queue = new_queue(world)
    wire: Any = SimpleNamespace(fits=lambda frames: True, write_now=lambda data: 5)
    queue.open(SimpleNamespace(upgraded=True), wire)
    queue._writer_waits = True
    messages = [Message("hello"), Message("you")]
    queue.send(messages)
    assert (queue.qsize(), queue.bytes) == (1, 8 + 6 - 5)
    rest = queue.get_nowait()
    assert isinstance(rest, Rest)
    assert rest.encode() is rest
    assert rest.data == b"".join(message.frame for message in messages)[5:]


def test_a_full_socket_takes_nothing_and_loses_nothing(world: World) -> None:
    link = Link(world, buffer=4096)
    world.until(link.waits)

    def fill() -> None:
        while link.shared.write_now(Message("x" * 1000).frame) == len(Message("x" * 1000).frame):
            pass

    # what fill() leaves is a frame in part: the other end reads it as bytes
    world.result(world.native(fill))
    world.result(world.native(lambda: link.queue.send([Message("last")])))
    reading = world.native(lambda: b"".join(iter(lambda: link.client.recv(1 << 16), b"")))
    link.queue.put(None)
    world.result(link.writer)
    link.shared.close()
    link.server.close()
    assert world.result(reading).endswith(Message("last").frame)
    link.client.close()


def test_one_order_and_one_writer_at_a_time_however_many_send(world: World) -> None:
    link = Link(world, buffer=4096)
    reading = link.read()
    lock = threading.Lock()  # the event loop is one thread: batches come one after the other

    def batches(name: str) -> Callable[[], None]:
        def send() -> None:
            for i in range(0, 300, 3):
                with lock:
                    link.queue.send([Message(f"{name} {n} {'x' * (n % 7 * 300)}") for n in range(i, i + 3)])
                time.sleep(0)

        return send

    def packets(name: str) -> Callable[[], None]:
        def put() -> None:
            for i in range(300):
                link.queue.put(packet(f"{name} {i} "))
                if i % 10 == 0:
                    world.sleep(0)

        return put

    work = [world.native(batches(name)) for name in "AB"] + [world.start(packets(name)) for name in "CD"]
    work.append(world.native(packets("E")))
    for done in work:
        world.result(done)
    world.until(link.waits)
    found = [text.split(" ") for text in link.finish(reading)]
    for name in "ABCDE":
        assert [int(text[1]) for text in found if text[0] == name] == list(range(300))
    assert link.collisions == 0
    assert link.queue.bytes == 0


def test_what_is_put_from_a_native_thread_wakes_a_get(world: World) -> None:
    queue = new_queue(world)
    got = world.start(lambda: [queue.get(), queue.get(timeout=PATIENCE)])
    for item in ("a", "b"):
        world.until(lambda: queue._writer_waits)
        world.result(world.native(lambda item=item: queue.put(item)))  # type: ignore[misc]
        world.sleep()
    assert world.result(got) == ["a", "b"]


def test_each_of_several_gets_takes_one(world: World) -> None:
    queue = new_queue(world)
    gets = [world.start(lambda: queue.get(timeout=PATIENCE)) for _ in range(5)]
    world.until(lambda: len(queue._getters) == 5)
    for i in range(5):
        queue.put(i)
    assert sorted(world.result(get) for get in gets) == list(range(5))


def test_a_get_that_is_killed_passes_its_turn_on() -> None:
    gevent = pytest.importorskip("gevent")
    world = Greenlets()
    queue = new_queue(world)
    killed = gevent.spawn(queue.get)
    other = world.start(queue.get)
    world.until(lambda: len(queue._getters) == 2)
    killed.kill(block=False)  # the hub will end it before it looks at what is put
    queue.put("a")
    assert world.result(other) == "a"
    world.end()


def test_a_get_may_end_with_nothing(world: World) -> None:
    queue = new_queue(world)
    with pytest.raises(standard.Empty):
        queue.get_nowait()
    with pytest.raises(standard.Empty):
        queue.get(timeout=0)
    get = world.start(lambda: queue.get(timeout=0.01))
    with pytest.raises(standard.Empty):
        world.result(get)
    assert not queue._writer_waits
    assert not queue._getters
    queue.put("a")
    assert queue.get(timeout=0.01) == "a"


def test_none_ends_the_writer_after_what_was_put_before(world: World) -> None:
    link = Link(world)
    reading = link.read()
    for i in range(10):
        link.queue.put(packet(str(i)))
    assert link.finish(reading) == [str(i) for i in range(10)]


def test_join_waits_until_everything_is_sent(world: World) -> None:
    queue = new_queue(world)
    world.result(world.start(queue.join))
    queue.put(packet("a"))
    queue.put(packet("b"))
    joins = [world.start(queue.join), world.start(queue.join)]
    for _ in range(2):
        queue.get()
        world.sleep(0.01)
        assert not any(join.done() for join in joins)
        queue.task_done()
    for join in joins:
        world.result(join)


def test_what_waits_is_counted(world: World) -> None:
    queue = new_queue(world)
    assert (queue.empty(), queue.qsize(), queue.bytes) == (True, 0, 0)
    for item in (packet("four"), Message(b"binary"), EngineIOPacket(MESSAGE, {"a": 1}), None):
        queue.put(item)
    assert (queue.empty(), queue.qsize(), queue.bytes) == (False, 4, 10)
    assert queue.holds(4, 10)
    assert not queue.holds(3, 10)
    assert not queue.holds(4, 9)
    sizes = []
    for _ in range(4):
        queue.get()
        sizes.append(queue.bytes)
    assert sizes == [6, 0, 0, 0]


@pytest.mark.parametrize("wakes", [False, True])
def test_who_waits_for_room_goes_on_when_there_is_room_or_it_is_woken(world: World, wakes: bool) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    queue = new_queue(world, lambda function: loops[0].call_soon_threadsafe(function))  # type: ignore[arg-type]
    for text in ("one", "two", "three"):
        queue.put(packet(text))

    async def core() -> list[str]:
        loops.append(asyncio.get_running_loop())
        await queue.drained(3, 100)  # there is room
        steps = []
        waiting = [asyncio.create_task(queue.drained(1, 100)), asyncio.create_task(queue.drained(3, 8))]
        await asyncio.sleep(0)
        steps.append("waits")
        if wakes:
            queue.wake()
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
        return [*steps, "goes on"]

    done = world.native(lambda: asyncio.run(core()))
    world.until(lambda: len(queue._drains) == 2 or done.done())
    if not wakes:
        for _ in range(2):
            assert not done.done()
            queue.get()
    assert world.result(done) == ["waits", "goes on"]
    assert not queue._drains


@pytest.mark.parametrize("how", ["written", "closed", "woken"])
def test_who_waits_for_the_writer_is_told_when_it_waits_again(world: World, how: str) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    queue = new_queue(world, lambda function: loops[0].call_soon_threadsafe(function))  # type: ignore[arg-type]
    link: Any = SimpleNamespace(fits=lambda frames: True, write_now=len)
    queue.open(SimpleNamespace(upgraded=False), link)
    queue.put(packet("the CONNECT"))

    async def core() -> bool:
        loops.append(asyncio.get_running_loop())
        await queue.written(PATIENCE)  # it is not upgraded: somebody else sends
        queue.open(SimpleNamespace(upgraded=True), link)
        waits = [asyncio.create_task(queue.written(PATIENCE)) for _ in range(2)]
        waits[0].cancel()
        await asyncio.sleep(0)
        assert not waits[1].done()
        if how == "woken":
            queue.wake()
        await asyncio.wait_for(waits[1], PATIENCE)
        await asyncio.wait_for(queue.written(PATIENCE), PATIENCE) if how != "woken" else None
        return queue._idle is None

    done = world.native(lambda: asyncio.run(core()))
    world.until(lambda: queue._idle is not None or done.done())
    writer = None
    if how == "written":
        writer = world.start(lambda: [queue.get(), queue.get(timeout=PATIENCE)])
    elif how == "closed":
        queue.close()
    assert world.result(done)
    if writer is not None:
        queue.put(None)
        assert world.result(writer)[1] is None


def test_who_no_longer_waits_for_room_is_forgotten() -> None:
    queue = new_queue(World())
    queue.put(packet("one"))

    async def core() -> None:
        task = asyncio.create_task(queue.drained(0, 100))
        await asyncio.sleep(0)
        assert len(queue._drains) == 1
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(core())
    assert not queue._drains


def test_gets_take_every_item_once_under_many_threads() -> None:
    queue = new_queue(World())
    taken: list[list[int]] = [[] for _ in range(4)]
    numbers = itertools.count()

    def put() -> None:
        for _ in range(500):
            queue.put(next(numbers))

    def get(found: list[int]) -> None:
        while (item := queue.get(timeout=PATIENCE)) is not None:
            found.append(item)
            queue.task_done()

    getters = [threading.Thread(target=get, args=(found,)) for found in taken]
    putters = [threading.Thread(target=put) for _ in range(4)]
    for thread in getters + putters:
        thread.start()
    for thread in putters:
        thread.join()
    queue.join()
    for _ in getters:
        queue.put(None)
    for thread in getters:
        thread.join()
    assert sorted(itertools.chain(*taken)) == list(range(2000))
