"""Who is in which room, and in which state: what the scripts keep, and what they answer to those who ask."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from socketio_recovery.aio import operations
from socketio_recovery.aio.membership_log import MembershipLog
from socketio_recovery.aio.node_heartbeat import NodeHeartbeat
from socketio_recovery.aio.participant_changes import ParticipantChanges
from socketio_recovery.aio.participants import STEP, Participants
from socketio_recovery.aio.tasks import KeyedQueue
from socketio_recovery.entries import CHANGED, ENTER, LEAVE, Entry, parse_head
from socketio_recovery.participants import Count, Participant, node_number
from socketio_recovery.settings import Durations

from tests.store.session_steps import claimed, created
from tests.support.appends import closes, forgets, moves
from tests.support.background import running
from tests.support.follower import partition
from tests.support.logger import LOGGER
from tests.support.redis_channel import TIMEOUT, RedisChannel
from tests.support.waiting import until


def questions(store: RedisChannel) -> Participants:
    return Participants(store.calls(), store.keys, TIMEOUT)


def heartbeat(
    store: RedisChannel, node: str = "A", lease: int = 60_000, ttl: int = 60_000, watches: bool = False
) -> NodeHeartbeat:
    durations = Durations(60_000, ttl, 60_000, 60_000, 1000, lease)
    return NodeHeartbeat(
        store.calls(), store.keys, node, durations, lambda: watches, TIMEOUT, logging.getLogger("test")
    )


async def states(store: RedisChannel, *rooms: Any) -> dict[str, str]:
    """The participants in any of the rooms, or in the namespace: sid -> state. Counts must say the same."""
    asks = questions(store)
    found = {participant.sid: participant.state.value for participant in await asks.list("/", rooms)}
    counted = [list(found.values()).count(state) for state in ("connected", "reconnecting")]
    assert await asks.count("/", rooms) == Count(*counted)
    return found


async def find(store: RedisChannel, sid: str, namespace: str = "/") -> Participant:
    return (await questions(store).find(namespace, [sid]))[sid].participant


async def test_a_session_is_connected_then_reconnecting_then_connected_again(store: RedisChannel) -> None:
    log, a, b = store.log(), store.sessions("A"), store.sessions("B")
    for node in "AB":
        await heartbeat(store, node).send()
    pid, _ = await created(a)
    assert await states(store) == {"s1": "connected"}
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
        assert await states(store, "red") == {"s1": "connected"}
        assert await a.detach("s1", "t1", "/", ["red"])
        assert await states(store) == await states(store, "red") == {"s1": "reconnecting"}
        away = await find(store, "s1")
        assert away.node == "A"
        await log.append(moves(log, ENTER, "s1", 7))
        assert await states(store, 7) == {"s1": "reconnecting"}
    await store.until(await store.now() + 1)
    await claimed(b, pid, "t2")
    await questions(store).place("s1", "/", ['"red"', "7"])
    assert await states(store) == await states(store, "red") == await states(store, 7) == {"s1": "connected"}
    back = await find(store, "s1")
    assert (back.node, set(back.rooms)) == ("B", {"red", 7})
    assert away.since < back.since <= await store.now() / 1000


async def test_what_a_participant_says(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    before = await store.now()
    await created(sessions, "s1", namespace="/chat")
    await sessions.save("s1", "t1", {"name": "Ann"})
    async with running(log.write()):
        for append in (
            moves(log, ENTER, "s1", "red", "/chat"),
            moves(log, ENTER, "s1", 'a\n"b', "/chat"),
            moves(log, ENTER, "s1", "left", "/chat"),
            moves(log, LEAVE, "s1", "left", "/chat"),
            moves(log, ENTER, "s1", "closed", "/chat"),
            closes(log, "closed", "/chat"),
        ):
            await log.append(append)
    (found,) = await questions(store).list("/chat", [])
    assert found._replace(since=0, rooms=()) == Participant("s1", "A", found.state, 0, (), {"name": "Ann"})
    assert set(found.rooms) == {"red", 'a\n"b'}
    assert before <= found.since * 1000 <= await store.now()
    for room, there in (("red", 1), ('a\n"b', 1), ("left", 0), ("closed", 0), ("s1", 1), ("elsewhere", 0)):
        assert len(await questions(store).list("/chat", [room])) == there, room
        assert (await questions(store).count("/chat", [room])).connected == there, room
    assert await states(store) == await states(store, "red") == {}, "in another namespace"


async def test_a_session_that_is_ended_while_it_waits_leaves_all_its_rooms(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    await created(sessions)
    assert await sessions.detach("s1", "t1")
    membership = MembershipLog(log, store.keys)
    async with running(log.write()):
        entering = membership.move(ENTER, "s1", "/", ["red", 'a\n"b', 7])  # in one batch with the end
        await operations.disconnect(membership, questions(store), "/", ["s1", "nobody"])
        await membership.settle(entering)
    assert await states(store) == {}
    for room in ("red", 'a\n"b', 7):
        assert await questions(store).count("/", [room]) == (0, 0), room


@pytest.mark.parametrize("failed", [False, True])
async def test_a_session_that_is_ended_while_its_connection_is_seen_off_leaves_all_its_rooms(
    store: RedisChannel, failed: bool
) -> None:
    """Its ``disconnect`` handler runs, for a lost transport, and the application disconnects the client."""
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    pid, _ = await created(sessions)
    if failed:
        assert await sessions.detach("s1", "t1")
        await claimed(sessions, pid, "t2")
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
        await log.append(forgets(log, "s1"))
    assert await sessions.detach("s1", "t2" if failed else "t1", failed=failed)
    assert await states(store) == {}
    assert await questions(store).count("/", ["red"]) == (0, 0)
    assert await store.record("s1") == {}


async def test_several_rooms_count_everybody_once(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    for sid in ("s1", "s2", "s3"):
        await created(sessions, sid, "t-" + sid)
    async with running(log.write()):
        for sid, room in (("s1", "red"), ("s2", "red"), ("s2", "blue")):
            await log.append(moves(log, ENTER, sid, room))
    assert set(await states(store, "red", "blue")) == {"s1", "s2"}
    assert set(await states(store, "blue", "s3")) == {"s2", "s3"}


async def test_a_node_without_heartbeats_leaves_its_sessions_reconnecting_and_then_they_are_over(
    store: RedisChannel,
) -> None:
    log, sessions = store.log(), store.sessions("A", ttl=120_000)
    await heartbeat(store, lease=60_000, ttl=120_000).send()
    await created(sessions)
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
    await silence(store, A=60_001)
    assert await states(store) == await states(store, "red") == {"s1": "reconnecting"}
    lost = await find(store, "s1")
    assert lost.node == "A"
    await silence(store, A=60_000)
    assert await states(store) == await states(store, "red") == {}, "and nobody has cleaned up"
    await heartbeat(store, lease=60_000, ttl=60_000).send()
    assert await questions(store).count("/", []) == Count(1, 0), "it was only frozen"


async def test_a_detached_session_is_over_at_its_deadline(store: RedisChannel) -> None:
    log = store.log()
    await heartbeat(store).send()
    for sid, wait in (("waits", 60_000), ("over", 1)):
        sessions = store.sessions("A", max_disconnection=wait)
        await created(sessions, sid)
        async with running(log.write()):
            await log.append(moves(log, ENTER, sid, "red"))
        assert await sessions.detach(sid, "t1", "/", ["red"])
    await store.until(await store.now() + 2)
    assert await states(store) == await states(store, "red") == {"waits": "reconnecting"}


async def test_a_forgotten_session_is_over_at_once(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    for sid in ("s1", "s2"):
        await created(sessions, sid, "t1")
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
        assert await sessions.forget("s1", "t1", "/", ["red"])
        assert await states(store) == {"s2": "connected"}
        assert await sessions.detach("s2", "t1")
        await log.append(forgets(log, "s2"))
    assert await states(store) == await states(store, "red") == {}


async def test_rooms_that_its_node_has_not_heard_of_are_counted_right(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("A")
    await heartbeat(store).send()
    for sid in ("s1", "s2"):
        await created(sessions, sid, "t1")
    async with running(log.write()):
        for sid in ("s1", "s2"):
            for room in ("red", 7):
                await log.append(moves(log, ENTER, sid, room))
    assert await sessions.detach("s1", "t1", "/", ["red"])
    assert await sessions.forget("s2", "t1", "/", [7])
    assert await states(store, "red") == await states(store, 7) == {"s1": "reconnecting"}


async def test_a_claim_that_led_nowhere_leaves_it_reconnecting(store: RedisChannel) -> None:
    sessions = store.sessions("A")
    await heartbeat(store).send()
    pid, _ = await created(sessions)
    assert await sessions.detach("s1", "t1")
    before = await find(store, "s1")
    await claimed(sessions, pid, "t2")
    await store.until(await store.now() + 2)
    assert await sessions.detach("s1", "t2", failed=True)
    assert await find(store, "s1") == before


async def test_an_earlier_owner_changes_nothing(store: RedisChannel) -> None:
    a, b = store.sessions("A"), store.sessions("B")
    await heartbeat(store, "B").send()
    pid, _ = await created(a)
    await claimed(b, pid, "t2")
    assert not await a.detach("s1", "t1")
    assert not await a.forget("s1", "t1")
    assert await states(store) == {"s1": "connected"}


async def silence(store: RedisChannel, **by: int) -> None:
    """As if each of these nodes had sent its last heartbeat so many ms earlier."""
    nodes = await store.client.hgetall(store.keys.nodes)
    for node, earlier in by.items():
        number, at, rest = nodes[node.encode()].decode().split(" ", 2)
        await store.client.hset(store.keys.nodes, node, f"{number} {int(at) - earlier} {rest}")


async def test_silence_does_not_count_while_redis_is_away(store: RedisChannel) -> None:
    nodes = [heartbeat(store, name, ttl=600_000) for name in ("A", "B", "C", "later")]
    for node in nodes[:3]:
        await node.send()
        await created(store.sessions(node.name), "s" + node.name, "t" + node.name)
    outage = {"A": 300_000, "B": 310_000, "C": 400_000}  # C was dead already
    await silence(store, **outage)
    assert await states(store) == dict.fromkeys(("sA", "sB", "sC"), "reconnecting")
    await nodes[3].send()
    assert await states(store) == dict.fromkeys(("sA", "sB", "sC"), "reconnecting"), "all may have died"
    await nodes[3].leave()
    await nodes[1].send()
    assert await states(store) == {"sA": "connected", "sB": "connected", "sC": "reconnecting"}
    await silence(store, B=61_000)
    await nodes[0].send()
    assert await states(store) == {"sA": "connected", "sB": "reconnecting", "sC": "reconnecting"}


async def test_a_node_that_was_late_for_a_moment_is_told_as_back(store: RedisChannel) -> None:
    """Only a question was answered while it was late. The next heartbeat of the node that asked finds it alive."""
    mine, other = heartbeat(store, "A", watches=True), heartbeat(store, "B", ttl=600_000)
    for node in (other, mine):
        await node.send()
    await created(store.sessions("B"))
    changes = ParticipantChanges(questions(store), mine, partition(), KeyedQueue(LOGGER), LOGGER)
    told: list[str] = []
    changes.observe("/", None, lambda what, participant: told.append(what.value))
    async with running(changes.run()):
        await changes.begun.wait()
        await silence(store, B=60_001)
        entry = Entry(CHANGED)
        entry.namespace, entry.sid = "/", "s1"
        changes.changed(entry)
        await until(lambda: told == ["reconnecting"], lambda: str(told))
        for node in (other, mine):
            await node.send()
        await until(lambda: told == ["reconnecting", "returned"], lambda: str(told))


async def test_a_node_says_that_it_lives_before_it_asks(store: RedisChannel) -> None:
    """Otherwise it would find after an outage that it is dead itself, and all others, too."""
    for name in "AB":
        await heartbeat(store, name, ttl=600_000).send()
        await created(store.sessions(name), "s" + name, "t" + name)
    connected = dict.fromkeys(("sA", "sB"), "connected")
    for question in ("list", "find", "count"):
        await silence(store, A=300_000, B=300_000)
        asks = questions(store)
        asks.heartbeat = heartbeat(store, "A", ttl=600_000)
        if question == "count":
            assert await asks.count("/", []) == Count(2, 0)
        elif question == "find":
            found = await asks.find("/", list(connected))
            assert {sid: one.participant.state for sid, one in found.items()} == connected
        else:
            assert {one.sid: one.state for one in await asks.list("/", [])} == connected


async def test_a_node_that_ends_in_order_is_not_kept(store: RedisChannel) -> None:
    a, b = heartbeat(store, "A"), heartbeat(store, "B")
    await a.send()
    await b.send()
    assert set(b.alive) == {"A", "B"}
    await a.leave()
    await b.send()
    assert b.alive == ["B"]


async def test_sets_of_those_who_are_over_do_not_stay(store: RedisChannel) -> None:
    """A room of which the last member never comes back is nobody's to remove."""
    log, sessions = store.log(), store.sessions("A", max_disconnection=5000)
    await heartbeat(store).send()
    pid, _ = await created(sessions)
    everyone, red = store.keys.everyone("/"), store.keys.members("/", "red")
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
    assert [await store.client.pttl(key) for key in (everyone, red)] == [-1, -1]
    before = await store.now()
    assert await sessions.detach("s1", "t1", "/", ["red"])
    for key in (everyone, red):
        left = await store.client.pttl(key)
        assert 65_000 - (await store.now() - before) <= left <= 65_000
    await claimed(sessions, pid, "t2")
    await questions(store).place("s1", "/", ['"red"'])
    assert [await store.client.pttl(key) for key in (everyone, red)] == [-1, -1]


async def test_changes_are_in_the_log_while_somebody_watches(store: RedisChannel) -> None:
    sessions = store.sessions("A")

    async def told() -> list[str]:
        return [parse_head(head.encode()).sid for head in await store.heads() if head.startswith(f'["{CHANGED}"')]

    await heartbeat(store).send()
    await created(sessions, "quiet")
    assert await told() == []
    await heartbeat(store, watches=True, lease=60_000).send()
    pid, birth = await created(sessions, "s1")
    await sessions.detach("s1", "t1")
    record = await claimed(sessions, pid, "t2")
    await sessions.forget("s1", "t2")
    assert await told() == ["s1"] * 4
    assert record.last.n == birth.n + 3, "a claim knows its own entry"


async def test_planted_contents_are_nobody(store: RedisChannel) -> None:
    """What something else wrote into the sets and records is left out, and the rest is found."""
    sessions = store.sessions("A")
    await heartbeat(store).send()
    await created(sessions, "good")
    for sid in ("no record", "wrong type", "bad data", "bad deadline", "bad holder"):
        await created(sessions, sid, "t-" + sid)
    await store.client.delete(store.keys.session("no record"), store.keys.session("wrong type"))
    await store.client.set(store.keys.session("wrong type"), "text")
    for sid, field in (("bad data", "data"), ("bad deadline", "deadline"), ("bad holder", "holder")):
        await store.client.hset(store.keys.session(sid), field, "{")
    await store.client.hset(store.keys.nodes, "planted", "no numbers")
    assert {participant.sid for participant in await questions(store).list("/", [])} == {"good"}


async def test_more_than_one_step(store: RedisChannel) -> None:
    sessions = store.sessions("A")
    await heartbeat(store).send()
    sids = {f"s{i}" for i in range(STEP + 5)}
    await asyncio.gather(*(created(sessions, sid, "t-" + sid) for sid in sids))
    assert set(await states(store)) == sids


def test_the_number_of_a_node_is_exact_as_a_score() -> None:
    numbers = {node_number(f"node {i}") for i in range(1000)}
    assert len(numbers) == 1000
    assert all(0 < int(float(number)) == number < 1 << 53 for number in numbers)


async def test_the_nodes_that_live(store: RedisChannel) -> None:
    asks = questions(store)
    assert await asks.nodes() == ()
    for node in "AB":
        await heartbeat(store, node).send()
    await heartbeat(store, "C", lease=1).send()
    await store.until(await store.now() + 2)
    assert sorted(await asks.nodes()) == ["A", "B"]
    await heartbeat(store, "B").leave()
    assert await asks.nodes() == ("A",)
