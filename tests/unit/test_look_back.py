"""Looking back: what clients missed and the window no longer holds, read from the stream once for all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from socketio_recovery.aio.look_back import SLICE_COUNT
from socketio_recovery.connections import Connection, Flow
from socketio_recovery.entries import CLOSE, DISCONNECT, ENTER, LEAVE, Position, control_head
from socketio_recovery.errors import RedisUnavailable, ReplyTooLarge
from socketio_recovery.look_back import TURNS, Audience, Audiences
from socketio_recovery.membership import Rooms
from socketio_recovery.packets import Message
from socketio_recovery.read_size import ReadSize
from socketio_recovery.reasons import Ending, RestartReason

from tests.support.past import Past, pasts
from tests.support.twin import Twin, rooms_after

from .dispatching import (
    EPOCH,
    DispatchingNode,
    FastQueue,
    Socket,
    asking,
    event,
    evicting,
    moving,
    numbers,
    queued,
    reading,
    volatile,
)


def item(n: int, head: str = '["event","/"]', epoch: int = EPOCH) -> Any:
    """An entry as Redis has it."""
    fields = [b"epoch", b"%d" % epoch, b"head", head.encode(), b"data", b'["e"]']
    return b"%d-%d" % (n, n), fields


UNREADABLE: list[list[bytes]] = [
    [],
    [b"head"],
    [b"data", b"x"],
    [b"head", b"not JSON"],
    [b"head", b'["a kind of a later version"]'],
    [b"head", b'["event","/",[1.5]]', b"data", b"[]"],
    [b"head", b'["event","/"]', b"data", b"{}"],
    [b"head", b'["event","/"]'],
]
#: These can't be read either, for other reasons.
WORSE: list[list[bytes]] = [
    [b"head", b"7"],
    [b"head", b"{}"],
    [b"head", b'["event","/",[],[],[]]', b"data", b"[]"],
    [b"head", b'["event","/",[],[],{"cb":7}]', b"data", b"[]"],
    [b"head", b"[" * 100_000],
]


def dispatched(node: DispatchingNode, audiences: Audiences, count: int = 10**6) -> Audience | None:
    """Reads one slice for those whose turn it is; returns them."""
    audience = audiences.next()
    if audience is not None:
        items = [item for item in node.stream.items if int(item[0].split(b"-")[1]) > audience.after][:count]
        node.delivery.look_back(audience, audiences.slice(audience, items, EPOCH, node.last))
    return audience


def let_go(node: DispatchingNode, audience: Audience) -> None:
    """Those for whom the window holds what comes next do not wait any more."""
    for connection in list(audience.connections):
        if audience.after >= node.partition.window.floor or connection.flow is not Flow.BEHIND:
            audience.remove(connection)


def fast(
    node: DispatchingNode, sid: str, after: int, rooms: Rooms | None = None, then: Rooms | None = None, **more: Any
) -> Connection:
    """A client that reads at once, and is behind."""
    socket = Socket(f"{more.get('namespace', '/')} {sid}")
    socket.queue = FastQueue()
    return node.behind(sid, after, list(rooms or ()), list(then or ()), socket=socket, **more)


# -- the rules ---------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(past=pasts(), data=st.data())
def test_looking_back_and_then_replay_give_what_the_twin_got(past: Past, data: st.DataObject) -> None:
    """Whatever the place of each client, when it comes, the size of slices and the place where the window begins."""
    last = len(past.entries)
    node = DispatchingNode()
    if past.entries:
        node.take(*past.entries)
    node.forget(data.draw(st.integers(0, last), label="floor"))
    floor = node.partition.window.floor
    audiences = Audiences()
    clients: list[tuple[Connection, Twin, int]] = []
    waiting: list[tuple[int, Connection]] = []
    for twin in past.twins.values():
        start = data.draw(st.integers(0, last), label=f"start of {twin.namespace} {twin.sid}")
        if twin.ended is None or twin.ended > start:
            connection = fast(node, twin.sid, start, twin.rooms, rooms_after(twin, start), namespace=twin.namespace)
            clients.append((connection, twin, start))
            if start < floor:
                waiting.append((data.draw(st.integers(0, 4), label="comes"), connection))
    for turn in range(100 * (last + 5)):
        for when, connection in waiting:
            if when == turn:
                audiences.add(connection)
        audience = dispatched(node, audiences, data.draw(st.integers(1, 12), label="size"))
        if audience is not None:
            let_go(node, audience)
        elif turn > 5:
            break
    for connection, twin, start in clients:
        if connection.ending is Ending.DISCONNECTED:
            assert connection.flow is Flow.MUTED
            assert twin.ended is not None
            assert twin.ended <= max(connection.after, floor)
        else:
            assert connection.rooms_then.keys() == rooms_after(twin, connection.after).keys()
            assert connection.after >= floor
        there = twin.ended if connection.flow is Flow.MUTED else connection.after
        assert there is not None
        assert numbers(queued(connection)) == [n for n in twin.got if start < n <= there]
        while connection.flow is Flow.BEHIND:
            node.delivery.replay(connection)
        assert numbers(queued(connection)) == [n for n in twin.got if n > start]
        assert connection.missed == len(queued(connection))
        assert connection.sent == max([start, *(n for n in twin.got if n > start)])
        assert (connection.flow is Flow.LIVE) == (twin.ended is None)


def test_who_comes_where_an_audience_was_absorbed_is_not_taken_for_those() -> None:
    """They would get everything twice."""
    node, audiences = DispatchingNode(), Audiences()
    node.take(*(event() for _ in range(4)))
    ahead, behind, newcomer = fast(node, "s1", 2), fast(node, "s2", 0), fast(node, "s3", 2)
    audiences.add(ahead)
    audiences.add(behind)
    dispatched(node, audiences, 2)  # here they meet
    audiences.add(newcomer)
    for _ in range(3):
        dispatched(node, audiences, 2)
    assert [numbers(queued(client)) for client in (ahead, behind, newcomer)] == [[3, 4], [1, 2, 3, 4], [3, 4]]


@settings(max_examples=200, deadline=None)
@given(past=pasts(), data=st.data())
def test_an_audience_is_concerned_by_no_more_than_is_for_it(past: Past, data: st.DataObject) -> None:
    """What concerns nobody in it is not parsed."""
    (namespace, sid), twin = data.draw(st.sampled_from(list(past.twins.items())))
    node = DispatchingNode()
    if past.entries:
        node.take(*past.entries)
    client = fast(node, sid, 0, twin.rooms, namespace=namespace)
    audiences = Audiences()
    audiences.add(client)
    audience = audiences.next()
    assert audience is not None
    told: list[int] = []
    for stamped in audiences.slice(audience, node.stream.items, EPOCH, node.last):
        entry = past.entries[stamped.n - 1]
        assert (stamped.epoch, stamped.ms) == (EPOCH, entry.ms)
        node.delivery.look_back(audience, [stamped])
        told.append(stamped.n)
    assert audience.after == len(past.entries)
    concerning = {*twin.got, *(n for stay in twin.all_stays for n in (stay.entered, stay.left) if n)}
    ended = twin.ended if twin.ended is not None else len(past.entries)
    skipped = {e.n for e in past.entries if e.kind == "event" and sid in e.skip}
    closed = {e.n for e in past.entries if e.kind == CLOSE}
    before = {n for n in told if n < ended} - skipped - closed
    assert before == {n for n in concerning if n < ended} - closed
    assert concerning <= set(told)


def test_clients_at_the_same_place_are_one_audience() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(*(event() for _ in range(10)))
    clients = [fast(node, f"s{i}", i // 2) for i in range(4)]
    for client in clients:
        audiences.add(client)
    audience = audiences.next()
    assert audience is not None
    assert list(audience.connections) == clients[:2]
    audiences.remove(clients[0])
    audiences.remove(clients[0])
    assert list(audience.connections) == clients[1:2]
    audiences.remove(clients[1])
    audience = audiences.next()
    assert audience is not None
    assert list(audience.connections) == clients[2:]


def test_nobody_waits_when_all_have_gone() -> None:
    node, audiences = DispatchingNode(), Audiences()
    assert audiences.next() is None
    client = fast(node, "s1", 0)
    audiences.remove(client)
    audiences.add(client)
    assert audiences.next() is not None
    audiences.remove(client)
    assert audiences.next() is None


@pytest.mark.parametrize("there", range(1, 7))
def test_an_audience_takes_along_whom_it_meets(there: int) -> None:
    """Also at the end of a slice, and though the slice may have nothing more for anybody."""
    node, audiences = DispatchingNode(), Audiences()
    node.take(event(), volatile(), event("e", "red"), event(), volatile(), volatile(), event())
    behind, ahead = fast(node, "s1", 0), fast(node, "s2", there, {"red": 0}, {"red": 0})
    audiences.add(ahead)
    audiences.add(behind)
    assert dispatched(node, audiences, 6) is not None
    audience = audiences.next()
    assert audience is not None
    assert set(audience.connections) == {ahead, behind}
    assert audience.since == 0  # the one that came first waits since then
    assert (behind.after, ahead.after) == (6, 6)
    assert numbers(queued(behind)) == [1, 4]
    assert numbers(queued(ahead)) == [n for n in (3, 4) if n > there]
    assert dispatched(node, audiences) is audience
    assert [numbers(queued(client))[-1] for client in (behind, ahead)] == [7, 7]


def test_who_is_furthest_behind_is_next_and_every_fourth_slice_is_for_the_first() -> None:
    """Though clients that are further behind keep coming, those who came first get on."""
    node, audiences = DispatchingNode(), Audiences()
    node.take(*(event() for _ in range(1000)))
    first = fast(node, "first", 500)
    audiences.add(first)
    read = 0
    for i in range(3 * TURNS):
        newcomer = fast(node, f"s{i}", 0)
        audiences.add(newcomer)
        audience = dispatched(node, audiences, 10)
        assert audience is not None
        read += first in audience.connections
        assert (first in audience.connections) == (i % TURNS == TURNS - 1)
        assert first in audience.connections or audience.after <= 40
    assert (read, first.after) == (3, 530)


def test_entries_that_no_recovery_needs_are_for_nobody() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(volatile(), asking(), evicting("s1", "node", "another"), event("e", namespace="/other"), event("e", "x"))
    client = fast(node, "s1", 0)
    audiences.add(client)
    dispatched(node, audiences)
    assert (queued(client), client.after) == ([], 5)


def test_an_event_is_sent_once_and_not_to_who_is_skipped_or_over() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event("e", "red", "blue", "s3"), event("e", skip=["s2"]), event("e", "blue"))
    both, skipped, over = (fast(node, f"s{i}", 0, {}, {"red": 0, "blue": 0}) for i in (1, 2, 3))
    for client in (both, skipped, over):
        audiences.add(client)
    node.connections.mute(over)
    dispatched(node, audiences)
    assert [numbers(queued(client)) for client in (both, skipped, over)] == [[1, 2, 3], [1, 3], []]
    assert [client.missed for client in (both, skipped, over)] == [3, 2, 0]


def test_rooms_are_those_of_the_time() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event("e", "red"), moving(ENTER), event("e", "red"), moving(LEAVE), event("e", "red"))
    node.take(event("e", "blue"), moving(CLOSE, "", "blue"), event("e", "blue"), moving(CLOSE, "", "green"))
    client = fast(node, "s1", 0, {}, {"blue": 0})
    audiences.add(client)
    dispatched(node, audiences)
    assert numbers(queued(client)) == [3, 6]
    assert client.rooms_then == {}
    assert node.delivery.replay(client).done
    assert client.flow is Flow.LIVE


def test_a_disconnect_in_the_past_ends_the_session_there() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event(), moving(DISCONNECT), event(), moving(ENTER), moving(DISCONNECT, "s2", namespace="/other"))
    gone, stays = fast(node, "s1", 0), fast(node, "s2", 0)
    for client in (gone, stays):
        audiences.add(client)
    dispatched(node, audiences)
    assert [numbers(queued(client)) for client in (gone, stays)] == [[1], [1, 3]]
    assert (gone.ending, gone.flow) == (Ending.DISCONNECTED, Flow.MUTED)
    assert (stays.ending, stays.flow) == (None, Flow.BEHIND)
    assert node.disconnected == []  # the catching up starts the handler


def test_volatile_events_that_were_held_keep_their_place() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event())
    client = fast(node, "s1", 0)
    node.take(volatile(), event("e", "elsewhere"), asking(), event(), volatile(), event("e", "elsewhere"), volatile())
    audiences.add(client)
    dispatched(node, audiences, 4)
    assert numbers(queued(client)) == [1, 2, 4]
    dispatched(node, audiences, 3)
    assert numbers(queued(client)) == [1, 2, 4, 5, 6]
    node.delivery.replay(client)
    assert numbers(queued(client)) == [1, 2, 4, 5, 6, 8]
    assert client.missed == 2


def test_volatile_events_that_were_held_come_before_a_disconnect() -> None:
    node, audiences = DispatchingNode(), Audiences()
    client = fast(node, "s1", 0)
    node.take(event(), volatile(), asking(), moving(DISCONNECT))
    audiences.add(client)
    dispatched(node, audiences)
    assert numbers(queued(client)) == [1, 2, 3]


def test_closing_the_room_of_a_session_changes_nothing() -> None:
    """A node refuses to close it only if the session is its own. Dispatching and replay pass over it."""
    node, audiences = DispatchingNode(), Audiences()
    node.take(moving(CLOSE, "", "s1"), event("e", "s1"), moving(ENTER), event("e", "red"), event())
    client, replayed = fast(node, "s1", 0, {"red": 0}), fast(node, "s1", 0, {"red": 0})
    node.delivery.replay(replayed)
    assert numbers(queued(replayed)) == [2, 4, 5]
    audiences.add(client)
    dispatched(node, audiences)
    assert numbers(queued(client)) == [2, 4, 5]


@pytest.mark.parametrize("hole", ["trimmed", "another epoch", "an older epoch"])
def test_what_is_missing_is_an_error_and_what_came_before_it_is_sent(hole: str) -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(*(event() for _ in range(9)))
    client, ahead = fast(node, "s1", 0), fast(node, "s2", 4)
    for one in (client, ahead):
        audiences.add(one)
    epoch = {"trimmed": EPOCH, "another epoch": EPOCH + 1, "an older epoch": EPOCH - 1}[hole]
    items = [item(1), item(2), item(5 if hole == "trimmed" else 3, epoch=epoch)]
    audience = audiences.next()
    assert audience is not None
    with pytest.raises(LookupError, match=r"in the place of 3"):
        node.delivery.look_back(audience, audiences.slice(audience, items, EPOCH, 9))
    assert numbers(queued(client)) == [1, 2]
    assert (client.after, list(audience.connections)) == (2, [client])  # who is ahead may have better luck


def test_the_first_entry_may_be_missing() -> None:
    node, audiences = DispatchingNode(), Audiences()
    client = fast(node, "s1", 3)
    audiences.add(client)
    audience = audiences.next()
    assert audience is not None
    with pytest.raises(LookupError):
        list(audiences.slice(audience, [item(5)], EPOCH, 9))
    assert (audience.after, audience.id) == (3, "")


def test_what_the_node_has_not_dispatched_yet_is_left_out() -> None:
    """It would get it again when it is dispatched, or be in a room too early."""
    node, audiences = DispatchingNode(), Audiences()
    node.take(event(), event())
    client = fast(node, "s1", 0)
    audiences.add(client)
    audience = audiences.next()
    assert audience is not None
    items = [item(n) for n in range(1, 6)]
    node.delivery.look_back(audience, audiences.slice(audience, items, EPOCH, 2))
    assert numbers(queued(client)) == [1, 2]
    assert (client.after, audience.id) == (2, "2-2")


@pytest.mark.parametrize("fields", UNREADABLE)
def test_an_entry_that_can_not_be_read_is_passed_over(fields: list[bytes]) -> None:
    passes_over(fields)


@pytest.mark.parametrize("fields", WORSE, ids=range(len(WORSE)))
def test_an_entry_that_something_else_wrote_is_passed_over(fields: list[bytes]) -> None:
    passes_over(fields)


def passes_over(fields: list[bytes]) -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event(), event(), event())
    node.stream.items[1] = (b"2-2", [b"epoch", b"%d" % EPOCH, *fields])
    client = fast(node, "s1", 0)
    audiences.add(client)
    dispatched(node, audiences)
    assert (numbers(queued(client)), client.after) == ([1, 3], 3)


def test_what_is_not_of_the_log_is_passed_over() -> None:
    node, audiences = DispatchingNode(), Audiences()
    node.take(event(), event())
    node.stream.items[1:1] = [(b"1-9", [b"not", b"ours"])]
    node.stream.items.append((b"2-9", [b"not", b"ours"]))
    client = fast(node, "s1", 0)
    audiences.add(client)
    audience = audiences.next()
    assert audience is not None
    node.delivery.look_back(audience, audiences.slice(audience, node.stream.items, EPOCH, 2))
    assert (numbers(queued(client)), client.after) == ([1, 2], 2)


# -- reading from the stream -------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(past=pasts(), data=st.data())
def test_whoever_comes_whenever_gets_what_its_twin_got(past: Past, data: st.DataObject) -> None:
    """While the log goes on, the window forgets, and clients read in their own time."""
    last = len(past.entries)
    known = data.draw(st.integers(0, last), label="known")
    steps = data.draw(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=15), label="steps")
    plans = {}
    for key, twin in past.twins.items():
        start = data.draw(st.integers(0, known), label="start")
        if twin.ended is None or twin.ended > known:  # nobody comes back to a session that is over
            plans[key] = (start, data.draw(st.integers(0, 10), label="comes"))
    most = data.draw(st.integers(1, 10), label="slice")
    reads = data.draw(st.integers(0, 3), label="messages read at once")

    async def run() -> None:
        node = DispatchingNode()
        node.delivery.slice = 2
        node.look_back.size = ReadSize(most, 10**6)
        if known:
            node.take(*past.entries[:known])
        clients: list[tuple[Connection, Twin, int, int, list[Message], asyncio.Task[None]]] = []

        def come(turn: int) -> None:
            for key, (start, when) in plans.items():
                twin = past.twins[key]
                if when == turn and (twin.ended is None or twin.ended > node.last):
                    rooms = list(rooms_after(twin, node.last)), list(rooms_after(twin, start))
                    socket = Socket(f"{twin.namespace} {twin.sid}")
                    client = node.behind(twin.sid, start, *rooms, namespace=twin.namespace, socket=socket)
                    task = asyncio.create_task(node.catch_up.replay(client))
                    clients.append((client, twin, start, node.last, [], task))

        def read(count: int) -> None:
            for client, *_, got, _ in clients:
                queue = client.socket.queue
                for _ in range(min(count, queue.qsize())):
                    got.append(queue.get_nowait())
                    queue.task_done()

        rest = past.entries[known:]
        for turn in range(11):
            come(turn)
            size, turns, keep = steps[turn % len(steps)]
            if batch := rest[:size]:
                node.take(*batch)
                rest = rest[size:]
            node.forget(node.last - keep)
            for _ in range(turns):
                await asyncio.sleep(0)
                read(reads)
        async with asyncio.timeout(20):
            while not all(task.done() for *_, task in clients):
                read(1)
                await asyncio.sleep(0)
        if rest:
            node.take(*rest)
        read(1000)
        for client, twin, start, joined, got, task in clients:
            task.result()
            expected = [n for n in twin.got if n > start] + [n for n in twin.fleeting if n > joined]
            assert numbers(got) == sorted(expected)
            assert (client.flow is Flow.LIVE) == (twin.ended is None)
            assert (client.ending is Ending.DISCONNECTED) == (twin.ended is not None)
        assert node.aborted == []
        await node.look_back.close()

    asyncio.run(run())


def behind_the_window(count: int = 100, floor: int = 100, size: int = 10, **options: Any) -> DispatchingNode:
    """A node whose window begins at ``floor``, that reads ``size`` entries at once."""
    node = DispatchingNode(**options)
    node.take(*(event() for _ in range(count)))
    node.forget(floor)
    node.look_back.size = ReadSize(size, 10**6)
    return node


async def brought(node: DispatchingNode, *clients: Connection) -> Sequence[Any]:
    """Looks back for all clients at once, until each may go on."""
    async with asyncio.timeout(5):
        return await asyncio.gather(*map(node.look_back.bring, clients), return_exceptions=True)


async def test_all_who_look_back_share_one_reading() -> None:
    node = behind_the_window()
    clients = [fast(node, f"s{i}", i) for i in range(50)]
    assert await brought(node, *clients) == [None] * 50
    assert len(node.stream.reads) <= 15  # a few are for the first, who is furthest behind here
    assert [client.after for client in clients] == [100] * 50
    assert [numbers(queued(client)) for client in clients] == [list(range(i + 1, 101)) for i in range(50)]
    assert node.stream.closed == 1


async def test_who_comes_later_catches_up_with_those_who_came_before() -> None:
    node = behind_the_window(1000, 1000)
    first, second = fast(node, "s1", 0), fast(node, "s2", 0)
    task = asyncio.create_task(node.look_back.bring(first))
    while first.after < 300:
        await asyncio.sleep(0)
    assert await brought(node, second) == [None]
    await task
    assert [numbers(queued(client)) for client in (first, second)] == [list(range(1, 1001))] * 2
    assert len(node.stream.reads) < 160  # 100, and what the second needed to meet the first
    assert node.stream.sought == [1, 1]  # after that it goes from id to id


async def test_one_is_brought_as_far_as_the_window_reaches_back_and_goes_on_from_there() -> None:
    node = behind_the_window(100, 75)
    client = fast(node, "s1", 30)
    await node.catch_up.replay(client)
    assert len(node.stream.reads) == 5
    assert numbers(queued(client)) == list(range(31, 101))
    assert client.flow is Flow.LIVE


async def test_what_the_window_has_again_needs_no_reading() -> None:
    node = behind_the_window(100, 50)
    assert await brought(node, fast(node, "s1", 50)) == [None]
    assert (node.stream.reads, node.stream.sought) == ([], [])


async def test_a_client_that_has_enough_to_read_is_let_go_and_others_go_on() -> None:
    node = behind_the_window(max_queue=40)
    slow, quick = node.behind("s1", 0), fast(node, "s2", 0)
    assert await brought(node, slow) == [None]
    assert (slow.after, slow.socket.queue.qsize()) == (10, 10)
    tasks = [asyncio.create_task(node.catch_up.replay(client)) for client in (slow, quick)]
    await tasks[1]
    assert numbers(queued(quick)) == list(range(1, 101))
    assert slow.socket.queue.qsize() <= 20
    assert not tasks[0].done()
    got: list[Message] = []
    await reading(slow, tasks[0], got)
    assert numbers(got) == list(range(1, 101))
    assert node.aborted == []


async def test_a_client_that_has_enough_bytes_to_read_is_let_go() -> None:
    node = behind_the_window(max_queue_bytes=400)
    slow = node.behind("s1", 0)
    assert await brought(node, slow) == [None]
    assert slow.after == 10


@pytest.mark.parametrize("why", ["closed", "closing", "muted"])
async def test_who_is_over_is_let_go_and_others_go_on(why: str) -> None:
    node = behind_the_window()
    over, other = fast(node, "s1", 0), fast(node, "s2", 0)

    def end() -> None:
        if len(node.stream.reads) == 3:
            if why == "muted":
                node.connections.mute(over)
            else:
                setattr(over.socket, why, True)

    node.stream.between = end
    assert await brought(node, over, other) == [None, None]
    assert over.after < 100
    assert numbers(queued(other)) == list(range(1, 101))


def cancel(node: DispatchingNode, task: asyncio.Task[None]) -> None:
    """Its client goes away while the third slice is read."""
    if len(node.stream.reads) == 2:
        task.cancel()


async def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    node = behind_the_window()
    first, second = fast(node, "s1", 0), fast(node, "s2", 0)
    task = asyncio.create_task(node.look_back.bring(first))
    node.stream.between = lambda: cancel(node, task)
    assert await brought(node, second) == [None]
    assert task.cancelled()
    assert first.after < second.after == 100


async def test_when_nobody_waits_any_more_the_reading_ends() -> None:
    node = behind_the_window()
    task = asyncio.create_task(node.look_back.bring(fast(node, "s1", 0)))
    node.stream.between = lambda: cancel(node, task)
    await asyncio.wait([task])
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(node.stream.reads) == 3
    assert node.stream.closed == 1
    node.stream.between = lambda: None
    assert await brought(node, fast(node, "s2", 0)) == [None]  # a new one begins
    assert node.stream.closed == 2


async def test_who_waits_while_the_log_goes_on_gets_that_as_well() -> None:
    node = behind_the_window()

    def live() -> None:
        if node.last < 150:
            node.take(event(), volatile())

    node.stream.between = live
    client = fast(node, "s1", 0)
    await node.catch_up.replay(client)
    assert client.flow is Flow.LIVE
    assert numbers(queued(client)) == list(range(1, node.last + 1))


async def test_what_was_trimmed_is_told() -> None:
    node = behind_the_window()
    node.stream.upto(50)
    clients = [fast(node, f"s{n}", n) for n in (10, 49, 50, 60)]
    replies = await brought(node, *clients)
    assert [type(reply) for reply in replies] == [LookupError, LookupError, type(None), type(None)]
    assert [client.after for client in clients] == [10, 49, 100, 100]
    assert numbers(queued(clients[2])) == list(range(51, 101))


async def test_what_is_trimmed_under_ones_eyes_is_told() -> None:
    node = behind_the_window()
    node.stream.between = lambda: node.stream.upto(70) if len(node.stream.reads) == 3 else None
    client, ahead = fast(node, "s1", 0), fast(node, "s2", 80)
    replies = await brought(node, client, ahead)
    assert [type(reply) for reply in replies] == [LookupError, type(None)]
    assert client.after < 70
    assert numbers(queued(client)) == list(range(1, client.after + 1))
    assert ahead.after == 100


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_log_that_holds_nothing_any_more_is_told(when: str) -> None:
    node = behind_the_window()
    if when == "before":
        node.stream.items.clear()
    else:
        node.stream.between = lambda: node.stream.items.clear() if node.stream.reads else None
    (reply,) = await brought(node, fast(node, "s1", 0))
    assert isinstance(reply, LookupError)
    assert "nothing that comes next" in str(reply)


async def test_a_client_whose_past_was_trimmed_gets_a_new_transport(caplog: pytest.LogCaptureFixture) -> None:
    node = behind_the_window()
    node.stream.upto(50)
    client = fast(node, "s1", 10)
    await node.catch_up.start(client)
    await node.catch_up.over(client)
    await asyncio.sleep(0)
    assert node.aborted == [client.socket]
    assert "trimmed past a client" in caplog.text


async def test_a_log_that_was_begun_anew_ends_the_looking_back() -> None:
    """The connections were closed; what comes of the other epoch must not reach them."""
    node = behind_the_window()
    client = fast(node, "s1", 0)

    def anew() -> None:
        if len(node.stream.reads) == 2:
            node.delivery.restart(Position(EPOCH + 1, 5), RestartReason.EPOCH)

    node.stream.between = anew
    assert await brought(node, client) == [None]
    assert client.flow is Flow.MUTED
    assert len(numbers(queued(client))) < 100
    assert node.aborted == [client.socket]


async def test_the_stream_may_be_of_another_epoch_before_the_node_knows() -> None:
    node = behind_the_window()
    node.stream.items = [item(n, epoch=EPOCH + 1) for n in range(1, 101)]
    (reply,) = await brought(node, fast(node, "s1", 0))
    assert isinstance(reply, LookupError)


async def test_redis_may_be_away_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    node = behind_the_window()
    node.stream.errors = [RedisUnavailable("gone"), RedisUnavailable("still gone")]
    client = fast(node, "s1", 0)
    assert await brought(node, client) == [None]
    assert numbers(queued(client)) == list(range(1, 101))
    assert caplog.text.count("will try again") == 2


async def test_a_reply_that_is_too_large_is_asked_for_in_parts() -> None:
    node = DispatchingNode()
    for _ in range(20):
        entry = event()
        assert entry.payload is not None
        entry.payload = entry.payload._replace(data=b'["%s"]' % (b"x" * 1000))
        node.take(entry)
    node.forget(20)
    node.look_back.size = size = ReadSize(SLICE_COUNT, 500)
    node.stream.errors = [ReplyTooLarge("too large")]
    client = fast(node, "s1", 0)
    assert await brought(node, client) == [None]
    assert client.after == 20
    assert size.count == 1
    assert len(node.stream.reads) >= 20


async def test_a_bug_is_told_and_the_next_one_is_read_for(caplog: pytest.LogCaptureFixture) -> None:
    node = behind_the_window()
    node.stream.errors = [RuntimeError("a bug")]
    (reply,) = await brought(node, fast(node, "s1", 0))
    assert isinstance(reply, LookupError)
    assert "a bug" in caplog.text
    assert await brought(node, fast(node, "s2", 0)) == [None]


async def test_a_slice_of_what_something_else_wrote_is_passed_over() -> None:
    """Large entries are read one at a time."""
    node = behind_the_window(20, 20, size=1)
    node.stream.items[10:10] = [(b"10-99", [b"not", b"ours"])]
    client = fast(node, "s1", 0)
    task = asyncio.create_task(node.look_back.bring(client))
    for _ in range(1000):
        await asyncio.sleep(0)
    try:
        assert task.done()
        assert client.after == 20
    finally:
        task.cancel()
        await node.look_back.close()


async def test_what_can_not_be_read_is_passed_over() -> None:
    node = behind_the_window(30, 30)
    node.stream.items[4] = (b"5-5", [b"epoch", b"%d" % EPOCH, b"head", control_head("of a later version").encode()])
    node.stream.items[7:7] = [(b"7-99", [b"not", b"ours"])]
    client = fast(node, "s1", 0)
    assert await brought(node, client) == [None]
    assert numbers(queued(client)) == [n for n in range(1, 31) if n != 5]


async def test_closing_tells_who_waits() -> None:
    node = behind_the_window()
    node.stream.errors = [RedisUnavailable("gone")] * 100
    tasks = [asyncio.create_task(node.look_back.bring(fast(node, f"s{i}", i))) for i in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    await node.look_back.close()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(reply) for reply in replies] == [RedisUnavailable] * 3
    assert node.stream.closed == 1
    await node.look_back.close()  # nothing to do
    assert node.stream.closed == 1


async def test_closing_at_once_tells_who_waits() -> None:
    node = behind_the_window()
    task = asyncio.create_task(node.look_back.bring(fast(node, "s1", 0)))
    await asyncio.sleep(0)  # the task that reads was made, and did not run yet
    await node.look_back.close()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(RedisUnavailable):
                await asyncio.shield(task)
            with pytest.raises(RedisUnavailable, match="closed"):
                await node.look_back.bring(fast(node, "s2", 0))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
