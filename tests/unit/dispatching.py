"""A node without Redis and without a network, for tests of what it dispatches, replays and keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import socketio.packet
from socketio_recovery.aio.catch_up import CatchUp
from socketio_recovery.aio.look_back import LookBack
from socketio_recovery.aio.send_queue import SendQueue
from socketio_recovery.connections import Connection, Connections, Flow
from socketio_recovery.delivery import Delivery
from socketio_recovery.entries import EPOCH as NEW_EPOCH
from socketio_recovery.entries import EVENT, EVICT, JSON, Entry, Offset, Payload, Position, Room
from socketio_recovery.errors import ReplyTooLarge
from socketio_recovery.metrics import NO_METRICS, Metrics
from socketio_recovery.packets import Codec, JsonCodec, Message
from socketio_recovery.partition import Partition
from socketio_recovery.reasons import RestartReason
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.scripts import SEEK, Script
from socketio_recovery.tracing import Tracing
from socketio_recovery.window import Window

from tests.support.logger import LOGGER
from tests.support.past import stored

EPOCH = 0xABC


class Socket:
    """What this library uses of an Engine.IO socket."""

    def __init__(self, sid: str = "transport") -> None:
        self.sid = sid
        self.closed = self.closing = False
        self.queue = SendQueue()


class FastQueue(SendQueue):
    """The queue of a client that reads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Message] = []

    def put_nowait(self, item: Message) -> None:
        self.got.append(item)


class Stream:
    """The log as Redis has it, and the link over which it is read."""

    def __init__(self) -> None:
        #: Pairs (id, fields), as Redis returns them.
        self.items: list[Any] = []
        #: The ids from which it was read, and what was asked for by number.
        self.reads: list[str] = []
        self.sought: list[int] = []
        #: What the next calls raise.
        self.errors: list[Exception] = []
        #: Called while a reply is on its way.
        self.between: Callable[[], None] = lambda: None
        self.received = 0
        self.closed = 0

    def upto(self, n: int) -> None:
        """Trims the log up to number ``n``."""
        self.items = [item for item in self.items if _id(item[0])[1] > n]

    def after(self, id: str) -> list[Any]:
        """The entries from an id on, or after it if it begins with ``(``."""
        exclusive, wanted = id.startswith("("), _id(id.removeprefix("(").encode())
        return [item for item in self.items if _id(item[0]) > wanted or (not exclusive and _id(item[0]) == wanted)]

    async def _reply(self) -> None:
        await asyncio.sleep(0)
        self.between()
        if self.errors:
            raise self.errors.pop(0)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> bytes:
        assert script is SEEK
        await self._reply()
        epoch, number = arguments
        self.sought.append(number)
        ours = [(id, fields) for id, fields in self.items if fields[:2] == [b"epoch", str(epoch).encode()]]
        return next((id for id, _ in ours if _id(id)[1] >= number), b"")

    async def call(self, *command: Any, limit: int = 0) -> list[Any]:
        assert command[0] == "XRANGE"
        await self._reply()
        self.reads.append(command[2])
        found = self.after(command[2])[: command[5]]
        self.received = sum(len(field) for _, fields in found for field in fields)
        if limit and self.received > limit:
            raise ReplyTooLarge("too large")
        return found

    async def close(self) -> None:
        self.closed += 1


def _id(id: bytes) -> tuple[int, ...]:
    return tuple(map(int, id.split(b"-")))


class DispatchingNode:
    """A node that can be told what the log holds. It keeps what entries cause."""

    def __init__(
        self,
        max_queue: int = 1000,
        max_queue_bytes: int = 1 << 30,
        window_bytes: int = 1 << 30,
        retention: int = 10**9,
        codecs: Sequence[Codec] = (JsonCodec(),),
        metrics: Metrics = NO_METRICS,
        tracing: Tracing | None = None,
    ) -> None:
        self.aborted: list[Socket] = []
        self.disconnected: list[Connection] = []
        self.without_record: list[Connection] = []
        self.answered: list[tuple[int, Payload, str]] = []
        self.server_events: list[tuple[str, tuple[str, int] | None]] = []
        self.moved: list[tuple[str, str, Room]] = []
        self.told: list[str] = []
        self.partition = Partition(Window(retention, window_bytes), LOGGER)
        self.connections = Connections(self.partition)
        self.delivery = Delivery(
            *(self.partition, self.connections, codecs, self, "node", max_queue, max_queue_bytes),
            *(LOGGER, metrics, tracing),
        )
        self.stream = Stream()
        link: Any = lambda timeout: self.stream  # noqa: E731
        self.look_back = LookBack(self.partition, self.delivery, Keys("x"), link, 5, LOGGER)
        self.catch_up = CatchUp(
            self.delivery, self.look_back, self.close_transport, self.disconnect, self.damaged, LOGGER
        )
        self.delivery.restart(Position(EPOCH, 0), RestartReason.BOOT)

    # -- effects ------------------------------------------------------------------------------------

    def close_transport(self, socket: Socket) -> None:
        self.aborted.append(socket)

    def disconnect(self, connection: Connection) -> None:
        self.disconnected.append(connection)

    async def damaged(self, connection: Connection) -> None:
        self.without_record.append(connection)

    def answer(self, callback_id: int, payload: Payload, by: str) -> None:
        self.answered.append((callback_id, payload, by))

    def server_side(self, entry: Entry) -> None:
        self.server_events.append((entry.event, entry.callback))

    def participants(self, entry: Entry) -> None:
        self.told.append(entry.kind)

    def entered(self, connection: Connection, room: Room) -> None:
        self.moved.append(("entered", connection.sid, room))

    def left(self, connection: Connection, room: Room) -> None:
        self.moved.append(("left", connection.sid, room))

    # -- what tests do ------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        return self.partition.position.n

    def take(self, *entries: Entry) -> None:
        for n, entry in enumerate(entries, self.last + 1):
            entry.n = entry.ms = n
            self.stream.items.append(stored(entry, self.partition.position.epoch))
        self.delivery.dispatch(entries)

    def forget(self, floor: int) -> None:
        """The window loses what is before number ``floor``, and that."""
        window = self.partition.window
        if floor > window.floor:
            rest = [window[n] or Entry(NEW_EPOCH, n, n) for n in range(floor + 1, window.last + 1)]
            window.reset(floor)
            for entry in rest:
                window.append(entry)

    def connect(
        self,
        sid: str = "s1",
        rooms: Sequence[Room] = (),
        *,
        namespace: str = "/",
        socket: Socket | None = None,
        pid: str | None = "pid",
    ) -> Connection:
        """A live connection."""
        connection = self.behind(sid, self.last, rooms, rooms, namespace=namespace, socket=socket, pid=pid)
        with pytest.raises(StopIteration):
            self.catch_up.replay(connection).send(None)  # there is nothing to wait for
        assert connection.flow is Flow.LIVE
        return connection

    def behind(
        self,
        sid: str,
        after: int,
        rooms: Sequence[Room] = (),
        rooms_then: Sequence[Room] = (),
        *,
        namespace: str = "/",
        socket: Socket | None = None,
        pid: str | None = "pid",
    ) -> Connection:
        """A connection that follows the log and is not live yet."""
        socket = socket or Socket("transport of " + sid)
        connection = Connection(sid, namespace, socket.sid, socket, "token", pid)
        connection.epoch = EPOCH
        connection.after = connection.sent = after
        connection.rooms = dict.fromkeys(rooms, 0)
        connection.rooms_then = dict.fromkeys(rooms_then, 0)
        self.connections.arrive(connection)
        self.connections.add(connection)
        return connection

    def arriving(self, sid: str = "s1") -> Connection:
        """A connection in the first part of its handshake."""
        socket = Socket("transport of " + sid)
        connection = Connection(sid, "/", socket.sid, socket, "token", "pid")
        self.connections.arrive(connection)
        return connection


def event(name: str = "e", *rooms: Room, skip: Sequence[str] = (), namespace: str = "/") -> Entry:
    entry = Entry(EVENT)
    entry.namespace, entry.rooms, entry.skip = namespace, rooms, skip
    entry.payload = Payload(JSON, f'["{name}"]'.encode(), (), 0)
    return entry


def volatile(name: str = "v", *rooms: Room) -> Entry:
    entry = event(name, *rooms)
    entry.volatile = True
    return entry


def asking(name: str = "a", *rooms: Room) -> Entry:
    """An event with a callback."""
    entry = event(name, *rooms)
    entry.callback = ("node", 7)
    return entry


def moving(kind: str, sid: str = "s1", room: Room = "red", namespace: str = "/") -> Entry:
    entry = Entry(kind)
    entry.namespace, entry.sid, entry.room = namespace, sid, room
    return entry


def evicting(sid: str, node: str, transport: str, namespace: str = "/") -> Entry:
    entry = Entry(EVICT)
    entry.namespace, entry.sid, entry.node, entry.transport = namespace, sid, node, transport
    return entry


def queued(connection: Connection) -> list[Message]:
    """Takes the messages that wait for a client."""
    queue = connection.socket.queue
    if isinstance(queue, FastQueue):
        return queue.got
    messages = []
    while not queue.empty():
        messages.append(queue.get_nowait())
        queue.task_done()
    return messages


def numbers(messages: Sequence[Message]) -> list[int]:
    """The numbers of the entries that messages come from, by their offsets or ids."""
    found = []
    for message in messages:
        packet = socketio.packet.Packet(encoded_packet=message.data)
        if packet.id is not None:
            found.append(packet.id)
            continue
        offset = Offset.parse(packet.data[-1])
        assert offset is not None
        assert offset.position.epoch == EPOCH
        found.append(offset.position.n)
    return found


def texts(connection: Connection) -> list[Any]:
    """Takes the messages that wait for a client, as what they carry."""
    return [message.data for message in queued(connection)]


async def reading(connection: Connection, task: asyncio.Task[Any], got: list[Message]) -> None:
    """Reads for a client until a task is done."""
    while not task.done():
        got += queued(connection)
        await asyncio.sleep(0)
    got += queued(connection)
