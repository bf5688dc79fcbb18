"""Delivery: where replay meets live, nothing is missed and nothing comes twice."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from typing import Any

import engineio.packet
import engineio.payload
import pytest
import socketio.packet
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio_recovery.codec import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EVENT,
    EVICT,
    JSON,
    LEAVE,
    MSGPACK,
    Entry,
    JsonCodec,
    Payload,
    Position,
    Room,
    codec_for,
    pack,
    parse_offset,
    size_of,
)
from socketio_recovery.delivery import SLICE, Connection, Delivery
from socketio_recovery.errors import RedisUnavailable
from socketio_recovery.outbox import Message, Outbox
from socketio_recovery.window import Window

from tests.support.past import Past, pasts
from tests.support.twin import rooms_after

EPOCH = 0xABC
LOGGER = logging.getLogger("test.delivery")


class Socket:
    """What delivery uses of an Engine.IO socket."""

    def __init__(self, sid: str = "transport") -> None:
        self.sid = sid
        self.closed = False
        self.queue: asyncio.Queue[Message] = Outbox()


class FastQueue(Outbox):
    """The queue of a client that reads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Message] = []

    def put_nowait(self, item: Message) -> None:
        self.got.append(item)


class Node:
    """A delivery that can be told what the log holds."""

    def __init__(self, max_queue: int = 1000, window_bytes: int = 1 << 30, retention: int = 10**9) -> None:
        self.aborted: list[Socket] = []
        self.delivery = Delivery(
            Window(retention, window_bytes), "node", max_queue, lambda socket: self.aborted.append(socket), LOGGER
        )
        self.delivery.codecs = [JsonCodec()]
        self.delivery.start(Position(EPOCH, 0), 0, "boot")

    @property
    def last(self) -> int:
        return self.delivery.cursor.n

    def take(self, *entries: Entry) -> None:
        for n, entry in enumerate(entries, self.last + 1):
            entry.n = entry.ms = n
        self.delivery.dispatch(entries)

    def connect(
        self, sid: str = "s1", rooms: Sequence[Room] = (), *, namespace: str = "/", socket: Socket | None = None
    ) -> Connection:
        """A live connection."""
        connection = self.behind(sid, self.last, rooms, rooms, namespace=namespace, socket=socket)
        with pytest.raises(StopIteration):
            self.delivery.catch_up(connection).send(None)  # there is nothing to wait for
        assert connection.live
        return connection

    def behind(
        self,
        sid: str,
        position: int,
        rooms: Sequence[Room] = (),
        rooms_then: Sequence[Room] = (),
        *,
        namespace: str = "/",
        socket: Socket | None = None,
    ) -> Connection:
        """A connection that is not live yet."""
        socket = socket or Socket("transport of " + sid)
        connection = Connection(sid, namespace, socket.sid, socket, "token")
        connection.offsets = True
        connection.epoch = EPOCH
        connection.position = connection.sent = position
        connection.rooms = dict.fromkeys(rooms, 0)
        connection.behind_rooms = dict.fromkeys(rooms_then, 0)
        self.delivery.arrive(connection)
        self.delivery.add(connection)
        return connection

    def arriving(self, sid: str = "s1") -> Connection:
        """A connection in the first part of its handshake."""
        socket = Socket("transport of " + sid)
        connection = Connection(sid, "/", socket.sid, socket, "token")
        self.delivery.arrive(connection)
        return connection

    async def reach_back(self, n: int) -> str | None:
        """As a connection that arrives."""
        return await self.delivery.reach_back(self.arriving(f"from {n}"), n)


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
    """Takes what waits for a client."""
    queue = connection.socket.queue
    if isinstance(queue, FastQueue):
        return queue.got
    messages = []
    while not queue.empty():
        messages.append(queue.get_nowait())
        queue.task_done()
    return messages


def numbers(messages: Sequence[Message]) -> list[int]:
    """The entries that messages come from, by their offsets or ids."""
    found = []
    for message in messages:
        packet = socketio.packet.Packet(encoded_packet=message.data)
        if packet.id is not None:
            found.append(packet.id)
            continue
        position = parse_offset(packet.data[-1])
        assert position is not None
        assert position.epoch == EPOCH
        found.append(position.n)
    return found


def texts(connection: Connection) -> list[Any]:
    return [message.data for message in queued(connection)]


# -- replay meets live ------------------------------------------------------------------------------


@settings(max_examples=250, deadline=None)
@given(past=pasts(), data=st.data())
def test_every_event_comes_once_and_in_order(past: Past, data: st.DataObject) -> None:
    """A client that returns while the log goes on gets what a twin got that never left."""
    join = data.draw(st.integers(0, len(past.entries)))
    start = data.draw(st.integers(0, join))
    steps = data.draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=20))
    limit = data.draw(st.integers(1, 10))

    async def run() -> None:
        node = Node(max_queue=limit * 4)
        disconnected: list[Connection] = []
        node.delivery.on_disconnect = disconnected.append
        if join:
            node.take(*past.entries[:join])
        connections: list[tuple[Connection, asyncio.Task[int]]] = []
        for (namespace, sid), twin in past.twins.items():
            if twin.ended is None or twin.ended > start:
                socket = Socket(f"{namespace} {sid}")
                socket.queue = FastQueue()
                rooms = list(rooms_after(twin, join)), list(rooms_after(twin, start))
                connection = node.behind(sid, start, *rooms, namespace=namespace, socket=socket)
                connections.append((connection, asyncio.create_task(node.delivery.catch_up(connection))))
        rest = past.entries[join:]
        while rest:
            for size, turns in steps:
                if batch := rest[:size]:
                    node.take(*batch)
                rest = rest[size:]
                for _ in range(turns):
                    await asyncio.sleep(0)
            if all(size == 0 for size, _ in steps):
                break
        if rest:
            node.take(*rest)
        await asyncio.gather(*(task for _, task in connections))
        for connection, _ in connections:
            twin = past.twins[connection.namespace, connection.sid]
            expected = [n for n in twin.got if n > start] + [n for n in twin.fleeting if n > join]
            assert numbers(queued(connection)) == sorted(expected)
            assert connection.live == (twin.ended is None)
            assert (connection.disconnected or connection in disconnected) == (twin.ended is not None)
            if connection.live:
                assert connection.rooms.keys() == twin.rooms.keys()
                members = node.delivery.rooms(connection.namespace)
                at = {room for room, there in members.items() if connection in there}
                assert at == {None, connection.sid, *twin.rooms}
        assert node.aborted == []

    asyncio.run(run())


async def test_a_slow_client_gets_a_long_replay_in_slices_without_overflow() -> None:
    node = Node(max_queue=20)
    node.take(*(event(str(i)) for i in range(500)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.delivery.catch_up(connection))
    got: list[Message] = []
    while not task.done() or not connection.socket.queue.empty():
        if not connection.socket.queue.empty():
            assert connection.socket.queue.qsize() <= 20
            got.append(connection.socket.queue.get_nowait())
            if len(got) % 10 == 0:
                node.take(event("live"))
        await asyncio.sleep(0)
    assert await task >= 500
    assert numbers(got) == list(range(1, node.last + 1))
    assert node.aborted == []


async def test_a_long_replay_lets_others_run() -> None:
    node = Node(max_queue=10**6)
    node.take(*(event(str(i)) for i in range(SLICE * 5)))
    connection = node.behind("s1", 0)
    connection.socket.queue = FastQueue()
    task = asyncio.create_task(node.delivery.catch_up(connection))
    seen = set()
    while not task.done():
        await asyncio.sleep(0)
        seen.add(len(connection.socket.queue.got))
    assert len(seen) >= 5


async def test_catching_up_ends_when_the_transport_closes() -> None:
    node = Node(max_queue=20)
    node.take(*(event(str(i)) for i in range(100)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.delivery.catch_up(connection))
    await asyncio.sleep(0)
    connection.socket.closed = True
    assert await task < 100
    assert not connection.live


async def test_catching_up_ends_when_the_connection_is_evicted() -> None:
    node = Node(max_queue=20)
    node.take(*(event(str(i)) for i in range(100)))
    connection = node.behind("s1", 0)
    task = asyncio.create_task(node.delivery.catch_up(connection))
    await asyncio.sleep(0)
    node.take(evicting("s1", "node", connection.transport))
    while not task.done():
        queued(connection)
        await asyncio.sleep(0)
    assert not connection.live
    assert connection not in node.delivery.members("/", ())


async def test_what_the_window_lost_is_an_error() -> None:
    node = Node()
    node.take(event())
    connection = node.behind("s1", 0)
    node.delivery.window.reset(1, 1)
    with pytest.raises(LookupError):
        await node.delivery.catch_up(connection)


async def test_traffic_that_is_not_replayed_does_not_cost_a_client_its_place() -> None:
    """Between joining and catching up the application's handler runs; volatile events go on meanwhile."""
    node = Node(retention=10**6)
    connection = node.behind("s1", 0)
    for _ in range(10):
        node.take(*(volatile("v", "elsewhere") for _ in range(100)))
    await node.delivery.catch_up(connection)
    assert connection.live
    node.take(event("e"))
    assert numbers(queued(connection)) == [1001]


# -- what is held -----------------------------------------------------------------------------------


async def test_events_that_are_not_replayed_are_held_for_who_is_here() -> None:
    node = Node()
    node.take(volatile("before it came"), asking("before it came"), event("missed"))
    connection = node.behind("s1", 0, ["red"], ["red"])
    node.take(volatile("to all"), event("e"), asking("to a room", "red"), volatile("elsewhere", "blue"))
    node.take(asking("to it", "s1"), volatile("to two", "blue", "red"))
    node.delivery.send_local("/", ["red"], [], Payload(JSON, b'["local"]', (), 0))
    assert queued(connection) == []
    assert await node.delivery.catch_up(connection) == 2
    assert texts(connection) == [
        '2["missed","abc-3-3"]',
        '2["to all","abc-4-4"]',
        '2["e","abc-5-5"]',
        '26["to a room"]',
        '28["to it"]',
        '2["to two","abc-9-9"]',
        '2["local","abc-9-9"]',
    ]
    assert connection.acks == {6: ("node", 7), 8: ("node", 7)}
    assert connection.held == []


async def test_what_is_held_follows_the_rooms() -> None:
    node = Node()
    connection = node.behind("s1", 0)
    other = node.behind("s1", 0, namespace="/other", socket=Socket("other"))
    node.take(volatile("no", "red"), moving(ENTER), volatile("yes", "red"), moving(LEAVE), volatile("no", "red"))
    await node.delivery.catch_up(connection)
    await node.delivery.catch_up(other)
    assert texts(connection) == ['2["yes","abc-3-3"]']
    assert texts(other) == []


# -- live -------------------------------------------------------------------------------------------


async def test_an_event_goes_to_its_rooms_once_and_not_to_who_is_skipped() -> None:
    node = Node()
    clients = {
        "both": node.connect("both", ["red", "blue"]),
        "red": node.connect("red1", ["red"]),
        "none": node.connect("none"),
        "other": node.connect("other", ["red"], namespace="/other"),
    }
    node.take(
        event("two", "red", "blue"), event("all"), event("one", "blue"), event("sid", "none"), event("x", "green")
    )
    node.take(event("skipped", skip=["both", "none"]))
    assert {name: numbers(queued(c)) for name, c in clients.items()} == {
        "both": [1, 2, 3],
        "red": [1, 2, 6],
        "none": [2, 4],
        "other": [],
    }


async def test_a_packet_is_made_once_for_all_who_get_it() -> None:
    node = Node()
    made: list[Any] = []
    codec = JsonCodec()
    original = codec.packets
    codec.packets = lambda *arguments: made.append(arguments) or original(*arguments)  # type: ignore[method-assign,func-returns-value]
    node.delivery.codecs = [codec]
    clients = [node.connect(f"s{i}") for i in range(6)]
    for client in clients[:3]:
        client.offsets = False
    node.take(event("e"))
    assert len(made) == 2
    got = [queued(client) for client in clients]
    assert [len(messages) for messages in got] == [1] * 6
    assert {m.data for (m,) in got[:3]} == {'2["e"]'}
    assert {m.data for (m,) in got[3:]} == {'2["e","abc-1-1"]'}
    assert got[3][0] is got[4][0] is got[5][0]


async def test_attachments_follow_their_event() -> None:
    node = Node()
    client = node.connect()
    entry = event()
    entry.payload = JsonCodec().encode(["e", b"one", {"x": b"two"}])
    node.take(entry, event("next"))
    head, one, two, following = texts(client)
    assert head.startswith('52-["e",')
    assert (one, two, following) == (b"one", b"two", '2["next","abc-2-2"]')


async def test_a_local_event_carries_the_offset_of_the_cursor() -> None:
    node = Node()
    client, skipped = node.connect("s1"), node.connect("s2")
    node.take(event("e", "nobody"))
    node.delivery.send_local("/", [], ["s2"], Payload(JSON, b'["local"]', (), 0))
    assert texts(client) == ['2["local","abc-1-1"]']
    assert client.sent == 1
    assert texts(skipped) == []


async def test_an_event_with_a_callback_asks_for_an_acknowledgement() -> None:
    node = Node()
    client = node.connect()
    node.take(event(), asking("a", "s1"))
    assert texts(client) == ['2["e","abc-1-1"]', '22["a"]']
    assert client.acks == {2: ("node", 7)}
    assert client.sent == 1  # an id is no offset


async def test_a_closed_socket_gets_nothing() -> None:
    node = Node(max_queue=1)
    client = node.connect()
    client.socket.closed = True
    node.take(event(), event(), event())
    assert queued(client) == []
    assert node.aborted == []


async def test_entering_and_leaving() -> None:
    node = Node()
    client, other = node.connect("s1"), node.connect("s2")
    node.take(event("1", "red"), moving(ENTER), event("3", "red"), moving(LEAVE, "s2"), event("5", "red"))
    node.take(moving(LEAVE), event("7", "red"), moving(ENTER, namespace="/other"), event("9", "red"))
    assert numbers(queued(client)) == [3, 5]
    assert numbers(queued(other)) == []
    assert node.delivery.rooms("/").keys() == {None, "s1", "s2"}


async def test_a_room_that_is_closed_is_left_by_all() -> None:
    node = Node()
    red, blue, other = node.connect("s1", ["red"]), node.connect("s2", ["blue"]), node.connect("s3", ["red"])
    elsewhere = node.connect("s1", ["red"], namespace="/other", socket=Socket("other"))
    behind = node.behind("s4", 0, ["red"], ["red"])
    node.take(event("1", "red"), moving(CLOSE, ""), event("3", "red"), event("4", "red", namespace="/other"))
    await node.delivery.catch_up(behind)
    assert [numbers(queued(c)) for c in (red, blue, other, elsewhere, behind)] == [[1], [], [1], [4], [1]]
    assert [c.closed_rooms for c in (red, blue, other, elsewhere, behind)] == [["red"], [], ["red"], [], ["red"]]
    assert [dict(c.rooms) for c in (red, other, behind)] == [{}] * 3
    assert "red" not in node.delivery.rooms("/")
    assert "red" in node.delivery.rooms("/other")


async def test_a_disconnect_comes_after_what_was_before_it() -> None:
    node = Node()
    gone: list[Connection] = []
    node.delivery.on_disconnect = gone.append
    live, behind = node.connect("s1"), node.behind("s2", 0)
    node.take(event("1"), moving(DISCONNECT, "s1"), moving(DISCONNECT, "s2"), event("4"))
    assert gone == [live]
    assert numbers(queued(live)) == [1]
    assert not behind.muted
    await node.delivery.catch_up(behind)
    assert numbers(queued(behind)) == [1]
    assert (behind.disconnected, behind.live) == (True, False)
    assert gone == [live]


async def test_an_evicted_connection_gets_nothing_more_and_the_new_one_everything() -> None:
    node = Node()
    evicted: list[Connection] = []
    node.delivery.on_evict = evicted.append
    old = node.connect("s1", ["red"], socket=Socket("old"))
    node.take(event("1", "red"), evicting("s1", "another node", "old"), evicting("s1", "node", "unknown"))
    node.take(evicting("s2", "node", "old"), evicting("s1", "node", "old", "/other"), event("6"))
    assert evicted == []
    node.take(evicting("s1", "node", "old"), event("8", "red"))
    assert evicted == [old]
    new = node.behind("s1", 6, ["red"], ["red"], socket=Socket("new"))
    await node.delivery.catch_up(new)
    node.delivery.remove(old)
    node.take(event("9", "red"), moving(LEAVE), event("11", "red"))
    assert numbers(queued(old)) == [1, 6]
    assert numbers(queued(new)) == [8, 9]
    assert node.delivery.by_sid("/", "s1") is new
    assert list(node.delivery.connections()) == [new]
    assert (old.gone, new.gone) == (True, False)


async def test_the_end_of_all_connections_leaves_nothing() -> None:
    node = Node()
    connections = [node.connect(f"s{i}", ["red", i]) for i in range(5)]
    connections += [node.connect("s0", namespace="/other", socket=connections[0].socket), node.behind("s9", 0)]
    assert node.delivery.namespaces() == {"/", "/other"}
    assert node.delivery.by_transport(connections[0].transport).keys() == {"/", "/other"}
    for connection in connections:
        node.delivery.remove(connection)
    delivery = node.delivery
    assert [delivery._members, delivery._by_sid, delivery._by_transport, delivery._behind] == [{}] * 4
    assert delivery.namespaces() == set()


async def test_a_callback_goes_to_the_node_that_waits() -> None:
    node = Node()
    heard: list[tuple[int, Payload]] = []
    node.delivery.on_callback = lambda id, payload: heard.append((id, payload))
    for name in ("node", "another"):
        entry = Entry(CALLBACK)
        entry.callback, entry.payload = (name, 5), Payload(JSON, b"[1]", (), 0)
        node.take(entry)
    assert heard == [(5, Payload(JSON, b"[1]", (), 0))]


async def test_one_entry_that_fails_does_not_stop_the_others() -> None:
    node = Node()
    client = node.connect()

    def fail(connection: Connection) -> None:
        raise RuntimeError("a bug")

    node.delivery.on_evict = fail
    node.take(event("1"), evicting("s1", "node", client.transport), event("3"))
    other = node.connect("s2")
    node.take(event("4"))
    assert node.last == 4
    assert numbers(queued(other)) == [4]


# -- a client that does not read --------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_aborted_and_recovers_from_the_log() -> None:
    node = Node(max_queue=5)
    slow = node.connect("s1", socket=Socket("slow"))
    same_transport = node.connect("s9", namespace="/other", socket=slow.socket)
    fast = node.connect("s2")
    node.take(*(event() for _ in range(5)))
    assert numbers(queued(fast)) == [1, 2, 3, 4, 5]
    node.take(event())
    assert numbers(queued(fast)) == [6]
    assert node.aborted == []
    node.take(event())
    assert node.aborted == [slow.socket]
    assert slow.socket.queue.qsize() == 0
    async with asyncio.timeout(1):
        await slow.socket.queue.join()  # whoever waits for it is not left waiting
    assert (slow.muted, same_transport.muted, fast.muted) == (True, True, False)
    assert numbers(queued(fast)) == [7]
    node.take(event(namespace="/other"))
    assert slow.socket.queue.qsize() == 0
    again = node.behind("s1", 0, socket=Socket("again"))
    task = asyncio.create_task(node.delivery.catch_up(again))
    got: list[Message] = []
    while not task.done():
        got += queued(again)
        await asyncio.sleep(0)
    assert numbers(got + queued(again)) == list(range(1, 8))
    assert node.aborted == [slow.socket]


async def test_a_client_that_reads_between_batches_is_not_aborted() -> None:
    node = Node(max_queue=5)
    client = node.connect()
    for _ in range(4):
        node.take(*(event() for _ in range(50)))
        assert len(queued(client)) == 50
    node.take(event())
    assert node.aborted == []
    assert client.live


# -- losing one's place -----------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["epoch", "trimmed"])
async def test_a_node_that_lost_its_place_closes_all_its_connections(why: str) -> None:
    node = Node()
    node.take(event())
    connections = [node.connect("s1"), node.behind("s2", 0), node.connect("s3", namespace="/other")]
    called: list[int] = []
    node.delivery.when(Position(EPOCH, 100), lambda: called.append(100))
    node.delivery.start(Position(EPOCH + 1, 1), 5, why)
    assert sorted(s.sid for s in node.aborted) == sorted(c.transport for c in connections)
    assert all(c.muted for c in connections)
    assert called == [100]
    assert node.delivery.cursor == Position(EPOCH + 1, 1)
    node.take(event("new"))
    assert [numbers(queued(c)) for c in connections] == [[], [], []]


async def test_a_boot_closes_nothing() -> None:
    node = Node()
    client = node.connect()
    node.delivery.start(Position(EPOCH, 0), 5, "boot")
    assert node.aborted == []
    assert not client.muted


async def test_offsets_are_those_of_the_epoch() -> None:
    node = Node()
    node.delivery.start(Position(0xFFF, 15), 5, "boot")
    client = node.connect()
    node.take(event())
    assert texts(client) == ['2["e","fff-10-10"]']


async def test_a_connection_that_only_arrives_can_be_evicted() -> None:
    node = Node()
    evicted: list[Connection] = []
    node.delivery.on_evict = evicted.append
    connection = node.arriving("s1")
    node.take(evicting("s1", "node", connection.transport))
    assert evicted == [connection]
    assert connection.muted
    node.delivery.remove(connection)
    assert list(node.delivery.connections()) == []


async def test_what_a_client_is_about_to_get_is_not_trimmed_as_too_old() -> None:
    stream = Stream(1, 1000)
    node = booted(stream, 1000)
    node.delivery.window.retention = 1
    pinned = node.arriving()
    assert await node.delivery.reach_back(pinned, 500) is None
    node.take(*(event("live", "red") for _ in range(1000)))
    assert node.delivery.window.floor == 500
    pinned.position = 500
    pinned.rooms, pinned.behind_rooms, pinned.offsets = {"red": 0}, {"red": 0}, True
    pinned.socket.queue = FastQueue()
    node.delivery.add(pinned)
    node.take(event("live", "red"))
    assert node.delivery.window.floor == 500
    await node.delivery.catch_up(pinned)
    assert numbers(queued(pinned)) == list(range(501, 2002))
    node.take(event())
    assert node.delivery.window.floor > 1900


async def test_a_boot_leaves_those_waiting_who_wait_for_more() -> None:
    delivery = Delivery(Window(1000, 1000), "node", 10, lambda socket: None, LOGGER)
    called: list[int] = []
    delivery.when(Position(EPOCH, 6), lambda: called.append(6))
    delivery.when(Position(EPOCH, 5), lambda: called.append(5))
    delivery.start(Position(EPOCH, 5), 0, "boot")
    assert called == [5]


def test_a_client_that_never_acknowledges_owes_no_more_than_it_may_have_waiting() -> None:
    node = Node(max_queue=10)
    connection = node.connect(socket=Socket())
    for _ in range(30):
        node.take(asking("a", connection.sid))
        connection.socket.queue = Outbox()  # it reads, though
    assert connection.acks == dict.fromkeys(range(21, 31), ("node", 7))


def test_a_client_that_can_not_be_sent_to_gets_nothing_more_and_others_do(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    broken, well = node.connect(sid="broken", socket=Socket("t1")), node.connect(sid="well", socket=Socket("t2"))

    def fail(messages: Any) -> None:
        raise OSError("no way")

    broken.socket.queue.send = fail
    node.take(event())
    broken.socket.queue = Outbox()
    node.take(event())
    assert node.aborted == [broken.socket]
    assert queued(broken) == []
    assert numbers(queued(well)) == [1, 2]
    assert "could not be sent its messages" in caplog.text


# -- positions --------------------------------------------------------------------------------------


async def test_waiting_for_positions() -> None:
    node = Node()
    called: list[int] = []

    def note(n: int) -> Callable[[], None]:
        return lambda: called.append(n)

    for n in (3, 1, 2, 3, 0):
        node.delivery.when(Position(EPOCH, n), note(n))
    assert called == [0]
    node.take(event())
    assert called == [0, 1]
    node.take(event(), event(), event())
    assert called == [0, 1, 2, 3, 3]
    async with asyncio.timeout(1):
        await node.delivery.reached(Position(EPOCH, 4))
        waiting = asyncio.ensure_future(node.delivery.reached(Position(EPOCH, 5)))
        await asyncio.sleep(0)
        assert not waiting.done()
        node.take(event())
        await waiting


async def test_nothing_is_reached_before_the_start() -> None:
    delivery = Delivery(Window(1000, 1000), "node", 10, lambda socket: None, LOGGER)
    waiting = asyncio.ensure_future(delivery.reached(Position(0, 0)))
    await asyncio.sleep(0)
    assert not waiting.done()
    delivery.start(Position(EPOCH, 5), 0, "boot")
    async with asyncio.timeout(1):
        await waiting


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


def booted(stream: Stream, at: int, window_bytes: int = 1 << 30) -> Node:
    node = Node(window_bytes=window_bytes)
    node.delivery.start(Position(EPOCH, at), at, "boot")
    node.delivery.backwards = stream.backwards
    return node


async def test_reaching_back_extends_the_window_no_further_than_needed() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    assert await node.reach_back(100) is None
    assert stream.reads == 0
    assert await node.reach_back(75) is None
    assert node.delivery.window.floor == 70
    client = node.behind("s1", 75, ["red"], ["red"])
    await node.delivery.catch_up(client)
    assert numbers(queued(client)) == list(range(76, 101))


async def test_all_who_reach_back_at_once_share_one_reading() -> None:
    stream = Stream(1, 1000)
    node = booted(stream, 1000)
    assert await asyncio.gather(*(node.reach_back(n) for n in range(900, 400, -1))) == [None] * 500
    assert stream.reads == 1
    assert node.delivery.window.floor == 400


async def test_what_the_stream_no_longer_has_is_trimmed() -> None:
    node = booted(Stream(51, 100), 100)
    replies = await asyncio.gather(*(node.reach_back(n) for n in (60, 50, 49, 0)))
    assert replies == [None, None, "trimmed", "trimmed"]
    assert node.delivery.window.floor == 50


async def test_what_does_not_fit_is_over_the_limit() -> None:
    size = size_of(pack(Stream(1, 1).entries[0]))
    node = booted(Stream(1, 100), 100, window_bytes=size * 35)
    assert await asyncio.gather(*(node.reach_back(n) for n in (80, 10))) == [None, "limit"]
    assert not node.delivery.window.full
    assert node.delivery.window.last == 100


async def test_reaching_back_while_the_log_goes_on() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    stream.between = lambda: node.take(event("live", "red"))
    assert await node.reach_back(0) is None
    client = node.behind("s1", 0, ["red"], ["red"])
    client.socket.queue = FastQueue()
    await node.delivery.catch_up(client)
    assert numbers(queued(client)) == list(range(1, node.last + 1))


async def test_reaching_back_starts_again_when_the_window_was_trimmed_meanwhile() -> None:
    stream = Stream(1, 100)
    node = booted(stream, 100)
    window = node.delivery.window

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
        node.delivery.start(Position(EPOCH + 1, 0), 0, "epoch")

    stream.between = anew
    assert await node.reach_back(50) is None
    assert (node.delivery.window.floor, len(node.delivery.window)) == (0, 0)


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


# -- messages and serialisations --------------------------------------------------------------------

DATA: list[str | bytes] = [b"\x00\xffbinary", "text é😀", ""]


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("polling_first", [True, False])
def test_a_message_is_right_on_both_transports(data: str | bytes, polling_first: bool) -> None:
    message = Message(data)
    for _ in range(2):
        for polling in (polling_first, not polling_first):
            encoded = message.encode(b64=polling)
            assert encoded == engineio.packet.Packet(engineio.packet.MESSAGE, data).encode(b64=polling)
            if isinstance(data, bytes):
                assert encoded == ("b" + base64.b64encode(data).decode() if polling else data)
            else:
                assert encoded == "4" + data


def test_a_shared_message_in_a_polling_payload() -> None:
    messages = [Message(data) for data in DATA]
    for message in messages:
        message.encode()  # for a WebSocket
    encoded = engineio.payload.Payload(packets=messages).encode()
    packets = engineio.payload.Payload(encoded_payload=encoded).packets
    assert [packet.data for packet in packets] == DATA


async def test_a_payload_in_another_serialisation_is_converted_once() -> None:
    packet_class = pytest.importorskip("socketio.msgpack_packet").MsgPackPacket
    msgpack = codec_for(packet_class, JsonCodec().json)
    node = Node()
    node.delivery.codecs = [JsonCodec(), msgpack]
    client = node.connect()
    entry = event()
    entry.payload = msgpack.encode(["e", {"x": [1, b"bin"]}])
    node.take(entry)
    head, attachment = texts(client)
    assert head == '51-["e",{"x":[1,{"_placeholder":true,"num":0}]},"abc-1-1"]'
    assert attachment == b"bin"
    late = node.behind("s2", 0)
    await node.delivery.catch_up(late)
    assert texts(late) == [head, attachment]


async def test_an_event_that_can_not_be_converted_is_left_out_for_all_alike() -> None:
    """Who recovers does not get it either, and gets what follows."""
    node = Node()
    bad = event("bad")
    bad.payload = Payload(MSGPACK, b"\xc1", (), 1)
    client = node.connect()
    node.take(event("1"), bad, event("3"))
    assert texts(client) == ['2["1","abc-1-1"]', '2["3","abc-3-3"]']
    late = node.behind("s2", 0)
    await node.delivery.catch_up(late)
    assert late.live
    assert texts(late) == ['2["1","abc-1-1"]', '2["3","abc-3-3"]']
