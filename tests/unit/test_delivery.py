"""Delivery: each event goes to those that it is for, once and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from socketio_recovery.aio.send_queue import SendQueue
from socketio_recovery.connections import Flow, State
from socketio_recovery.entries import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    JSON,
    LEAVE,
    MSGPACK,
    SERVER,
    Entry,
    Payload,
    Position,
)
from socketio_recovery.errors import RecordDamaged
from socketio_recovery.packets import JsonCodec, Message, codec_for
from socketio_recovery.reasons import Ending, RestartReason

from .dispatching import (
    EPOCH,
    DispatchingNode,
    Socket,
    asking,
    event,
    evicting,
    moving,
    numbers,
    queued,
    texts,
    volatile,
)


async def test_an_event_goes_to_its_rooms_once_and_not_to_who_is_skipped() -> None:
    node = DispatchingNode()
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
    made: list[Any] = []
    codec = JsonCodec()
    node = DispatchingNode(codecs=[codec])
    original = codec.packets
    codec.packets = lambda *arguments: made.append(arguments) or original(*arguments)  # type: ignore[method-assign,func-returns-value]
    clients = [node.connect(f"s{i}", pid=None if i < 3 else "pid") for i in range(6)]
    node.take(event("e"))
    assert len(made) == 2
    got = [queued(client) for client in clients]
    assert [len(messages) for messages in got] == [1] * 6
    assert {m.data for (m,) in got[:3]} == {'2["e"]'}
    assert {m.data for (m,) in got[3:]} == {'2["e","abc-1-1"]'}
    assert got[3][0] is got[4][0] is got[5][0]


async def test_attachments_follow_their_event() -> None:
    node = DispatchingNode()
    client = node.connect()
    entry = event()
    entry.payload = JsonCodec().encode(["e", b"one", {"x": b"two"}])
    node.take(entry, event("next"))
    head, one, two, following = texts(client)
    assert head.startswith('52-["e",')
    assert (one, two, following) == (b"one", b"two", '2["next","abc-2-2"]')


async def test_a_local_event_carries_the_offset_of_the_cursor() -> None:
    node = DispatchingNode()
    client, skipped = node.connect("s1"), node.connect("s2")
    node.take(event("e", "nobody"))
    node.delivery.send_local("/", [], ["s2"], Payload(JSON, b'["local"]', (), 0))
    assert texts(client) == ['2["local","abc-1-1"]']
    assert client.sent == 1
    assert texts(skipped) == []


async def test_an_event_with_a_callback_asks_for_an_acknowledgement() -> None:
    node = DispatchingNode()
    client = node.connect()
    node.take(event(), asking("a", "s1"))
    assert texts(client) == ['2["e","abc-1-1"]', '22["a"]']
    assert client.acks == {2: ("node", 7)}
    assert client.sent == 1  # an id is no offset


async def test_a_closed_socket_gets_nothing() -> None:
    node = DispatchingNode(max_queue=1)
    client = node.connect()
    client.socket.closed = True
    node.take(event(), event(), event())
    assert queued(client) == []
    assert node.aborted == []


async def test_entering_and_leaving() -> None:
    node = DispatchingNode()
    client, other = node.connect("s1"), node.connect("s2")
    node.take(event("1", "red"), moving(ENTER), event("3", "red"), moving(LEAVE, "s2"), event("5", "red"))
    node.take(moving(LEAVE), event("7", "red"), moving(ENTER, namespace="/other"), event("9", "red"))
    assert numbers(queued(client)) == [3, 5]
    assert numbers(queued(other)) == []
    assert node.connections.live.rooms("/").keys() == {None, "s1", "s2"}


async def test_a_room_that_is_closed_is_left_by_all() -> None:
    node = DispatchingNode()
    red, blue, other = node.connect("s1", ["red"]), node.connect("s2", ["blue"]), node.connect("s3", ["red"])
    elsewhere = node.connect("s1", ["red"], namespace="/other", socket=Socket("other"))
    behind = node.behind("s4", 0, ["red"], ["red"])
    node.take(event("1", "red"), moving(CLOSE, ""), event("3", "red"), event("4", "red", namespace="/other"))
    await node.catch_up.replay(behind)
    assert [numbers(queued(c)) for c in (red, blue, other, elsewhere, behind)] == [[1], [], [1], [4], [1]]
    assert [c.closed_rooms for c in (red, blue, other, elsewhere, behind)] == [["red"], [], ["red"], [], ["red"]]
    assert [dict(c.rooms) for c in (red, other, behind)] == [{}] * 3
    assert "red" not in node.connections.live.rooms("/")
    assert "red" in node.connections.live.rooms("/other")


async def test_clients_that_catch_up_share_messages_until_the_last_of_them_has_caught_up() -> None:
    node = DispatchingNode()
    node.take(event("1"), event("2"))
    one, two = node.behind("s1", 0), node.behind("s2", 1)
    other = node.behind("s3", 0, pid=None)  # gets no offsets
    for connection in (one, other):
        await node.catch_up.replay(connection)
    assert len(kept := queued(one)) == 2
    assert all(message not in kept for message in queued(other))
    await node.catch_up.replay(two)
    assert queued(two) == kept[1:]
    three, four = node.behind("s4", 0), node.behind("s5", 0)
    await node.catch_up.replay(three)
    again = queued(three)
    assert [message.data for message in again] == [message.data for message in kept]
    assert again[0] is not kept[0]
    node.connections.mute(four)
    node.delivery.restart(Position(EPOCH + 1, 0), RestartReason.EPOCH)
    node.take(event("1"))
    late = node.behind("s6", 0)
    await node.catch_up.replay(late)
    assert queued(late)[0].data != again[0].data


async def test_a_disconnect_comes_after_what_was_before_it() -> None:
    node = DispatchingNode()
    gone = node.disconnected
    live, behind = node.connect("s1"), node.behind("s2", 0)
    node.take(event("1"), moving(DISCONNECT, "s1"), moving(DISCONNECT, "s2"), event("4"))
    assert gone == [live]
    assert numbers(queued(live)) == [1]
    assert behind.flow is not Flow.MUTED
    await node.catch_up.replay(behind)
    assert numbers(queued(behind)) == [1]
    assert (behind.ending is Ending.DISCONNECTED, behind.flow is Flow.LIVE) == (True, False)
    assert gone == [live]


async def test_an_evicted_connection_gets_nothing_more_and_the_new_one_everything() -> None:
    node = DispatchingNode()
    old = node.connect("s1", ["red"], socket=Socket("old"))
    node.take(event("1", "red"), evicting("s1", "another node", "old"), evicting("s1", "node", "unknown"))
    node.take(evicting("s2", "node", "old"), evicting("s1", "node", "old", "/other"), event("6"))
    assert node.aborted == []
    node.take(evicting("s1", "node", "old"), event("8", "red"))
    assert node.aborted == [old.socket]
    new = node.behind("s1", 6, ["red"], ["red"], socket=Socket("new"))
    await node.catch_up.replay(new)
    node.connections.remove(old)
    node.take(event("9", "red"), moving(LEAVE), event("11", "red"))
    assert numbers(queued(old)) == [1, 6]
    assert numbers(queued(new)) == [8, 9]
    assert node.connections.by_sid("/", "s1") is new
    assert list(node.connections) == [new]
    assert (old.state is State.GONE, new.state is State.GONE) == (True, False)


async def test_the_end_of_all_connections_leaves_nothing() -> None:
    node = DispatchingNode()
    connections = [node.connect(f"s{i}", ["red", i]) for i in range(5)]
    connections += [node.connect("s0", namespace="/other", socket=connections[0].socket), node.behind("s9", 0)]
    assert node.connections.namespaces() == {"/", "/other"}
    assert node.connections.by_transport(connections[0].transport).keys() == {"/", "/other"}
    for connection in connections:
        node.connections.remove(connection)
    assert not node.connections
    assert (list(node.connections), node.connections.namespaces(), node.connections.behind) == ([], set(), {})
    assert [node.connections.live.rooms(namespace) for namespace in ("/", "/other")] == [{}, {}]
    assert [node.connections.by_sid("/", connection.sid) for connection in connections] == [None] * len(connections)


async def test_a_callback_goes_to_the_node_that_waits() -> None:
    node = DispatchingNode()
    heard = node.answered
    for name in ("node", "another"):
        entry = Entry(CALLBACK)
        entry.callback, entry.payload, entry.by = (name, 5), Payload(JSON, b"[1]", (), 0), "s1"
        node.take(entry)
    assert heard == [(5, Payload(JSON, b"[1]", (), 0), "s1")]


async def test_an_event_between_nodes_goes_to_all_but_the_one_that_emitted_it() -> None:
    node = DispatchingNode()
    client = node.connect()
    for name in ("node", "another"):
        entry = Entry(SERVER)
        entry.callback, entry.payload, entry.event = (name, 0), Payload(JSON, b"[1]", (), 0), "reload"
        node.take(entry)
    assert node.server_events == [("reload", ("another", 0))]
    assert queued(client) == []


async def test_one_entry_that_fails_does_not_stop_the_others() -> None:
    node = DispatchingNode()
    client = node.connect()

    def fail(socket: Any) -> None:
        raise RuntimeError("a bug")

    node.close_transport = fail  # type: ignore[method-assign]
    node.take(event("1"), evicting("s1", "node", client.transport), event("3"))
    other = node.connect("s2")
    node.take(event("4"))
    assert node.last == 4
    assert numbers(queued(other)) == [4]


def test_a_client_that_never_acknowledges_owes_no_more_than_it_may_have_waiting() -> None:
    node = DispatchingNode(max_queue=10)
    connection = node.connect(socket=Socket())
    for _ in range(30):
        node.take(asking("a", connection.sid))
        connection.socket.queue = SendQueue()  # it reads, though
    assert connection.acks == dict.fromkeys(range(21, 31), ("node", 7))


def test_a_client_that_can_not_be_sent_to_gets_nothing_more_and_others_do(caplog: pytest.LogCaptureFixture) -> None:
    node = DispatchingNode()
    broken, well = node.connect(sid="broken", socket=Socket("t1")), node.connect(sid="well", socket=Socket("t2"))

    class Broken(SendQueue):
        def send(self, messages: Any) -> None:
            raise OSError("no way")

    broken.socket.queue = Broken()
    node.take(event())
    broken.socket.queue = SendQueue()
    node.take(event())
    assert node.aborted == [broken.socket]
    assert queued(broken) == []
    assert numbers(queued(well)) == [1, 2]
    assert "could not be sent its messages" in caplog.text


# -- what is held ------------------------------------------------------------------------------------


async def test_events_that_are_not_replayed_are_held_for_who_is_here() -> None:
    node = DispatchingNode()
    node.take(volatile("before it came"), asking("before it came"), event("missed"))
    connection = node.behind("s1", 0, ["red"], ["red"])
    node.take(volatile("to all"), event("e"), asking("to a room", "red"), volatile("elsewhere", "blue"))
    node.take(asking("to it", "s1"), volatile("to two", "blue", "red"))
    node.delivery.send_local("/", ["red"], [], Payload(JSON, b'["local"]', (), 0))
    assert queued(connection) == []
    await node.catch_up.replay(connection)
    assert connection.missed == 2
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
    node = DispatchingNode()
    connection = node.behind("s1", 0)
    other = node.behind("s1", 0, namespace="/other", socket=Socket("other"))
    node.take(volatile("no", "red"), moving(ENTER), volatile("yes", "red"), moving(LEAVE), volatile("no", "red"))
    await node.catch_up.replay(connection)
    await node.catch_up.replay(other)
    assert texts(connection) == ['2["yes","abc-3-3"]']
    assert texts(other) == []


# -- a client that does not read ---------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_aborted_and_recovers_from_the_log() -> None:
    node = DispatchingNode(max_queue=5)
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
    assert (slow.flow is Flow.MUTED, same_transport.flow is Flow.MUTED, fast.flow is Flow.MUTED) == (True, True, False)
    assert numbers(queued(fast)) == [7]
    node.take(event(namespace="/other"))
    assert slow.socket.queue.qsize() == 0
    again = node.behind("s1", 0, socket=Socket("again"))
    task = asyncio.create_task(node.catch_up.replay(again))
    got: list[Message] = []
    while not task.done():
        got += queued(again)
        await asyncio.sleep(0)
    assert numbers(got + queued(again)) == list(range(1, 8))
    assert node.aborted == [slow.socket]


async def test_a_client_that_reads_between_batches_is_not_aborted() -> None:
    node = DispatchingNode(max_queue=5)
    client = node.connect()
    for _ in range(4):
        node.take(*(event() for _ in range(50)))
        assert len(queued(client)) == 50
    node.take(event())
    assert node.aborted == []
    assert client.flow is Flow.LIVE


async def test_a_client_that_leaves_too_many_bytes_is_aborted() -> None:
    node = DispatchingNode(max_queue_bytes=1000)
    slow, fast = node.connect("s1"), node.connect("s2")
    node.take(event("x" * 400), event("x" * 400))
    assert numbers(queued(fast)) == [1, 2]
    node.take(event("x" * 400))
    assert slow.socket.queue.bytes > 1000
    assert numbers(queued(fast)) == [3]
    node.take(event())
    assert node.aborted == [slow.socket]
    assert (slow.socket.queue.qsize(), slow.socket.queue.bytes) == (0, 0)
    assert numbers(queued(fast)) == [4]


async def test_one_message_may_be_larger_than_all_that_may_wait() -> None:
    node = DispatchingNode(max_queue_bytes=100)
    client = node.connect()
    node.take(event("x" * 1000))
    node.take(event("e", "nobody"))
    assert node.aborted == []
    assert numbers(queued(client)) == [1]
    node.take(event("x" * 1000), event("e"))
    node.take(event())
    assert node.aborted == [client.socket]


@pytest.mark.parametrize("options", [{"max_queue": 3}, {"max_queue_bytes": 3}, {}])
def test_a_slice_of_a_replay_does_not_fill_a_queue(options: dict[str, Any]) -> None:
    delivery = DispatchingNode(**options).delivery
    assert 1 <= delivery.slice <= max(1, delivery.max_queue // 4)
    assert 1 <= delivery.slice_bytes <= max(1, delivery.max_queue_bytes // 4)


# -- losing the place in the log ---------------------------------------------------------------------


@pytest.mark.parametrize("why", ["epoch", "trimmed"])
async def test_a_node_that_lost_its_place_closes_all_its_connections(why: str) -> None:
    node = DispatchingNode()
    node.take(event())
    connections = [node.connect("s1"), node.behind("s2", 0), node.connect("s3", namespace="/other")]
    called: list[int] = []
    node.partition.when(Position(EPOCH, 100), lambda: called.append(100))
    node.delivery.restart(Position(EPOCH + 1, 1), RestartReason(why))
    assert sorted(s.sid for s in node.aborted) == sorted(c.transport for c in connections)
    assert all(c.flow is Flow.MUTED for c in connections)
    assert called == [100]
    assert node.partition.position == Position(EPOCH + 1, 1)
    node.take(event("new"))
    assert [numbers(queued(c)) for c in connections] == [[], [], []]


async def test_a_boot_closes_nothing() -> None:
    node = DispatchingNode()
    client = node.connect()
    node.delivery.restart(Position(EPOCH, 0), RestartReason.BOOT)
    assert node.aborted == []
    assert client.flow is not Flow.MUTED


async def test_offsets_are_those_of_the_epoch() -> None:
    node = DispatchingNode()
    node.delivery.restart(Position(0xFFF, 15), RestartReason.BOOT)
    client = node.connect()
    node.take(event())
    assert texts(client) == ['2["e","fff-10-10"]']


async def test_a_connection_that_only_arrives_can_be_evicted() -> None:
    node = DispatchingNode()
    connection = node.arriving("s1")
    node.take(evicting("s1", "node", connection.transport))
    assert node.aborted == [connection.socket]
    assert connection.flow is Flow.MUTED
    node.connections.remove(connection)
    assert list(node.connections) == []


# -- catching up -------------------------------------------------------------------------------------


async def test_a_replay_stops_before_it_takes_too_many_bytes() -> None:
    node = DispatchingNode(max_queue_bytes=4000)
    node.take(*(event("x" * 600) for _ in range(5)))
    client = node.behind("s1", 0)
    assert [len(node.delivery.replay(client).events) for _ in range(5)] == [1] * 5
    assert client.flow is Flow.LIVE


@pytest.mark.parametrize(("rooms", "then"), [(["red"], []), ([], ["red"]), (["red"], ["blue"])])
async def test_a_record_that_does_not_agree_with_the_log_is_damaged(rooms: list[str], then: list[str]) -> None:
    """As when Redis evicted keys: the client must not be in rooms that its session is not in."""
    node = DispatchingNode()
    node.take(event())
    client = node.behind("s1", 0, rooms, then)
    with pytest.raises(RecordDamaged, match="s1"):
        node.delivery.replay(client)
    assert client.flow is Flow.BEHIND
    assert numbers(queued(client)) == [1]
    other = node.behind("s2", 0, rooms, then)
    with pytest.raises(RecordDamaged):
        await node.catch_up.replay(other)


async def test_nobody_can_go_on_with_a_record_that_does_not_agree_with_the_log() -> None:
    node = DispatchingNode()
    node.take(event())
    client = node.behind("s1", 0, ["red"])
    await node.catch_up.start(client)
    await asyncio.sleep(0)
    assert node.without_record == [client]
    assert node.aborted == [client.socket]


async def test_what_is_read_again_is_converted_and_can_be_left_out() -> None:
    packet_class = pytest.importorskip("socketio.msgpack_packet").MsgPackPacket
    msgpack = codec_for(packet_class, JsonCodec().json)
    node = DispatchingNode(codecs=[JsonCodec(), msgpack])
    packed, bad = event(), event()
    packed.payload, bad.payload = msgpack.encode(["e", b"bin"]), Payload(MSGPACK, b"\xc1", (), 1)
    live = node.connect()
    node.take(packed, bad, event())
    node.forget(3)
    client = node.behind("s2", 0)
    await node.catch_up.replay(client)
    assert texts(client) == texts(live)


# -- other serialisations ----------------------------------------------------------------------------


async def test_a_payload_in_another_serialisation_is_converted_once() -> None:
    packet_class = pytest.importorskip("socketio.msgpack_packet").MsgPackPacket
    msgpack = codec_for(packet_class, JsonCodec().json)
    node = DispatchingNode(codecs=[JsonCodec(), msgpack])
    client = node.connect()
    entry = event()
    entry.payload = msgpack.encode(["e", {"x": [1, b"bin"]}])
    node.take(entry)
    head, attachment = texts(client)
    assert head == '51-["e",{"x":[1,{"_placeholder":true,"num":0}]},"abc-1-1"]'
    assert attachment == b"bin"
    late = node.behind("s2", 0)
    await node.catch_up.replay(late)
    assert texts(late) == [head, attachment]


async def test_an_event_that_can_not_be_converted_is_left_out_for_all_alike() -> None:
    """Who recovers does not get it either, and gets what follows."""
    node = DispatchingNode()
    bad = event("bad")
    bad.payload = Payload(MSGPACK, b"\xc1", (), 1)
    client = node.connect()
    node.take(event("1"), bad, event("3"))
    assert texts(client) == ['2["1","abc-1-1"]', '2["3","abc-3-3"]']
    late = node.behind("s2", 0)
    await node.catch_up.replay(late)
    assert late.flow is Flow.LIVE
    assert texts(late) == ['2["1","abc-1-1"]', '2["3","abc-3-3"]']
