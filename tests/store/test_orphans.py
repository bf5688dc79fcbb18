"""Sessions whose node died: adopted by one node, once, and by nobody while they may come back."""

from __future__ import annotations

import asyncio

import pytest
from socketio_recovery.aio.sessions import Sessions
from socketio_recovery.entries import ENTER, LEAVE
from socketio_recovery.errors import SessionGone
from socketio_recovery.reasons import AppendResult
from socketio_recovery.session_record import Heartbeat, Orphan, Pid, Record

from tests.store.session_steps import claimed, created, refused
from tests.support.appends import closes, forgets, moves
from tests.support.background import running
from tests.support.redis_channel import RedisChannel


async def expire(store: RedisChannel, sid: str = "s1") -> None:
    """The session's deadline passes."""
    link, key, past = store.link(), store.keys.session(sid), await store.now() - 1
    await link.call("HSET", key, "deadline", past)
    if await link.call("ZSCORE", store.keys.owned, key) is not None:
        await link.call("ZADD", store.keys.owned, past, key)


async def due(store: RedisChannel, sessions: Sessions, most: int = 10) -> list[str]:
    """What is due after a lease."""
    sessions.lease, lease = 1, sessions.lease
    assert await sessions.due(1000) == ([], False)
    await store.until(await store.now() + 2)
    sessions.lease = lease
    return (await sessions.due(most))[0]


async def orphaned(store: RedisChannel, sid: str = "s1", token: str = "t1") -> Pid:
    """A session that nobody keeps alive any more."""
    pid, _ = await created(store.sessions("dead", ttl=1), sid, token)
    await expire(store, sid)
    return pid


async def test_a_session_with_a_living_owner_is_not_adopted(store: RedisChannel) -> None:
    sessions = store.sessions()
    await created(sessions)
    assert await due(store, sessions) == []
    assert await sessions.adopt("s1", "t2") is None
    await sessions.save("s1", "t1", {})  # it still is the owner


async def test_a_detached_session_is_not_adopted(store: RedisChannel) -> None:
    """Its disconnect handler has run."""
    sessions = store.sessions(max_disconnection=1)
    await created(sessions)
    await sessions.detach("s1", "t1")
    await expire(store)
    assert await due(store, sessions) == []
    assert await sessions.adopt("s1", "t2") is None


async def test_an_orphan_is_adopted_as_it_was(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions("dead", ttl=1)
    async with running(log.write()):
        pid, _ = await created(sessions, namespace="/chat")
        await sessions.save("s1", "t1", {"user": "Ann"})
        await sessions.save_extra("s1", "t1", "kept")
        for kind, room in ((ENTER, "red"), (ENTER, 7), (ENTER, "left"), (LEAVE, "left"), (ENTER, "closed")):
            assert await log.append(moves(log, kind, "s1", room, "/chat")) is AppendResult.STORED
        await log.append(closes(log, "closed", "/chat"))
    await expire(store)
    living = store.sessions("B")
    assert await due(store, living) == ["s1"]
    orphan = await living.adopt("s1", "t2")
    assert orphan is not None
    assert orphan[:3] == ("s1", "/chat", {"user": "Ann"})
    assert set(orphan.rooms) == {"red", 7}
    assert orphan.extra == "kept"
    assert await living.adopt("s1", "t2") == orphan, "asked again with the same token"
    assert await refused(living, pid, namespace="/chat") == "expired"
    with pytest.raises(SessionGone):
        await sessions.save("s1", "t1", {"by": "the dead"})


async def test_one_of_many_adopts(store: RedisChannel) -> None:
    for i in range(20):
        await orphaned(store, f"s{i}")
    nodes = [store.sessions(f"N{i}") for i in range(4)]

    async def reap(node: Sessions, name: str) -> list[str]:
        found = [await node.adopt(sid, f"{name}-{sid}") for sid in [f"s{i}" for i in range(20)]]
        return [orphan.sid for orphan in found if orphan is not None]

    adopted = await asyncio.gather(*(reap(node, str(i)) for i, node in enumerate(nodes)))
    assert sorted(sid for some in adopted for sid in some) == sorted(f"s{i}" for i in range(20))


async def test_what_one_node_is_about_to_adopt_is_not_given_to_others(store: RedisChannel) -> None:
    for i in range(6):
        await orphaned(store, f"s{i}")
    a, b = store.sessions("A"), store.sessions("B")
    first = await due(store, a, 4)
    second, more = await b.due(4)
    assert not more
    assert len(first) == 4
    assert sorted(first + second) == [f"s{i}" for i in range(6)]
    assert await a.due(4) == await b.due(4) == ([], False)


async def test_what_a_node_named_and_did_not_adopt_is_due_again(store: RedisChannel) -> None:
    await orphaned(store)
    a = store.sessions("A", lease=1)
    assert await due(store, a) == ["s1"]
    await store.until(await store.now() + 2)
    assert await a.due(4) == (["s1"], False)


async def test_an_owner_that_lives_says_so(store: RedisChannel) -> None:
    """After an outage of Redis, or when its clock was set, all deadlines may have passed."""
    living = store.sessions("B", lease=1)
    pid, _ = await created(store.sessions("A", ttl=1))
    await expire(store)
    assert await living.due(10) == ([], False)
    assert await store.sessions("A").heartbeat([Heartbeat("s1", "t1", None, ())]) == {}
    await store.until(await store.now() + 2)
    assert await living.due(10) == ([], False)
    assert isinstance(await living.claim(pid, "/", "t2", "transport"), Record)


async def test_who_adopts_and_dies_leaves_it_to_another(store: RedisChannel) -> None:
    pid = await orphaned(store)
    assert await store.sessions("B", ttl=1).adopt("s1", "t2")
    await expire(store)
    living = store.sessions("C")
    assert await due(store, living) == ["s1"]
    assert isinstance(await living.adopt("s1", "t3"), Orphan)
    assert await refused(living, pid) == "expired"
    assert not await living.forget("s1", "t2")
    assert await living.forget("s1", "t3")


async def test_a_heartbeat_keeps_an_adopted_session(store: RedisChannel) -> None:
    pid = await orphaned(store)
    living = store.sessions("B")
    assert await living.adopt("s1", "t2")
    assert await living.heartbeat([Heartbeat("s1", "t2", None, ())]) == {}
    assert await due(store, living) == []
    assert await refused(living, pid) == "expired"


@pytest.mark.parametrize("over", [False, True])
async def test_an_owner_that_wakes_up_learns_that_it_was_adopted(store: RedisChannel, over: bool) -> None:
    pid = await orphaned(store)
    living, frozen = store.sessions("B"), store.sessions("dead")
    assert await living.adopt("s1", "t2")
    if over:
        assert await living.forget("s1", "t2")
    assert await frozen.heartbeat([Heartbeat("s1", "t1", (3, 2), ())]) == {0: True}
    assert not await frozen.detach("s1", "t1")
    assert not await frozen.forget("s1", "t1")
    assert await refused(frozen, pid) == "expired"
    assert await due(store, living) == []
    if over:  # nothing is left of the session but this
        assert set(await store.record("s1")) == {b"adopted", b"hash"}


async def test_a_session_ended_by_the_application_after_its_node_died_is_adopted(store: RedisChannel) -> None:
    log = store.log()
    async with running(log.write()):
        pid, _ = await created(store.sessions("dead", ttl=50))
        await log.append(forgets(log, "s1"))
    living = store.sessions("B")
    assert await refused(living, pid) == "unknown"
    await expire(store)
    assert await due(store, living) == ["s1"]
    assert await living.adopt("s1", "t2")


# -- claims that fail ---------------------------------------------------------------------------------


async def test_a_claim_that_failed_leaves_the_orphan_to_be_adopted(store: RedisChannel) -> None:
    """The one before is dead: its handler has not run."""
    pid, _ = await created(store.sessions("dead"))
    living = store.sessions("B")
    await claimed(living, pid, "t2")
    assert await living.detach("s1", "t2", failed=True)
    assert await due(store, living) == []
    await expire(store)
    assert await due(store, living) == ["s1"]
    assert await living.adopt("s1", "t3")


async def test_a_claim_that_failed_can_be_repeated(store: RedisChannel) -> None:
    pid, _ = await created(store.sessions("dead"))
    living = store.sessions("B")
    for token in ("t2", "t3"):
        await claimed(living, pid, token)
        assert await living.detach("s1", token, failed=True)
    await claimed(living, pid, "t4")
    assert await living.detach("s1", "t4")  # it recovered, and left
    assert await due(store, living) == []
    assert (await store.record("s1"))[b"open"] == b""


async def test_claims_that_fail_in_any_order_forget_nothing(store: RedisChannel) -> None:
    pid, _ = await created(store.sessions("dead"))
    living = store.sessions("B")
    await claimed(living, pid, "t2")
    await claimed(living, pid, "t3")
    assert not await living.detach("s1", "t2", failed=True)
    assert await living.detach("s1", "t3", failed=True)
    assert (await store.record("s1"))[b"open"] == b"t1 "
    await expire(store)
    assert await due(store, living) == ["s1"]


async def test_a_claim_that_failed_after_the_owner_before_is_done_leaves_nothing_to_adopt(store: RedisChannel) -> None:
    sessions = store.sessions(max_disconnection=1)
    pid, _ = await created(sessions)
    await claimed(sessions, pid, "t2")
    assert not await sessions.detach("s1", "t1")  # evicted, and its disconnect handler has run
    assert await sessions.detach("s1", "t2", failed=True)
    assert (await store.record("s1"))[b"token"] == b""
    await expire(store)
    assert await due(store, sessions) == []


async def test_who_recovers_answers_for_those_before(store: RedisChannel) -> None:
    """The handler runs once for a session that moved on from a node that died."""
    pid, _ = await created(store.sessions("dead"))
    living = store.sessions("B", max_disconnection=1)
    await claimed(living, pid, "t2")
    assert await living.detach("s1", "t2")
    await expire(store)
    assert await due(store, living) == []
