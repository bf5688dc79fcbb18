"""The session's record: one owner, and nothing that brings back what is gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from socketio_recovery import membership
from socketio_recovery.aio.sessions import HEARTBEAT_COUNT
from socketio_recovery.entries import CLOSE, ENTER, LEAVE, Position
from socketio_recovery.errors import SessionGone
from socketio_recovery.membership import Stay
from socketio_recovery.reasons import AppendResult
from socketio_recovery.redis.scripts import RENEW
from socketio_recovery.session_record import Heartbeat, Pid, Record, Refused

from tests.store.session_steps import claimed, created, refused
from tests.support.appends import closes, event, forgets, moves
from tests.support.background import running
from tests.support.redis_channel import RedisChannel

# -- create and claim -------------------------------------------------------------------------------


async def test_the_birth_is_the_last_entry_of_the_log(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    async with running(log.write()):
        _, first = await created(sessions, "s1")
        for _ in range(3):
            await log.append(event("e"))
        _, second = await created(sessions, "s2")
    assert second == Position(first.epoch, first.n + 3)
    assert (await store.numbers())[-1] == second.n


async def test_create_asked_again_with_the_same_token_answers_the_same(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid = Pid.new("s1")
    async with running(log.write()):
        birth = await sessions.create("s1", pid, "/", "t1", "transport")
        await log.append(event("e"))
        await sessions.save("s1", "t1", {"kept": 1})
        assert await sessions.create("s1", pid, "/", "t1", "transport") == birth
    assert (await claimed(sessions, pid, "t2")).data == {"kept": 1}


async def test_the_secret_is_not_stored(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    await claimed(sessions, pid, "t2")
    stored = await store.record("s1")
    assert stored
    everything = b" ".join([*stored.keys(), *stored.values(), *(b" ".join(f) for _, f in await store.entries())])
    assert pid.secret.encode() not in everything


async def test_a_claim_returns_the_record_and_the_last_entry(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, birth = await created(sessions)
    async with running(log.write()):
        await log.append(event("e"))
        await sessions.save("s1", "t1", {"user": "Zoë", "deep": [1, {"x": None}]})
        assert await sessions.heartbeat([Heartbeat("s1", "t1", (birth.n + 1, birth.n), ())]) == {}
        assert await sessions.detach("s1", "t1")
        await log.append(event("f"))
    record = await claimed(sessions, pid, "t2")
    assert record.last == (birth.epoch, birth.n + 2)
    assert (record.birth, record.confirmed, record.sent) == (birth.n, birth.n + 1, birth.n)
    assert record.data == {"user": "Zoë", "deep": [1, {"x": None}]}
    assert record.stays == []


async def test_a_claim_of_a_detached_session_evicts_nobody(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, birth = await created(sessions)
    assert await sessions.detach("s1", "t1")
    record = await claimed(sessions, pid, "t2")
    assert record.claims == 2
    assert record.last == birth
    assert await store.heads() == []


async def test_a_claim_of_a_held_session_tells_the_old_holder(store: RedisChannel) -> None:
    pid, birth = await created(store.sessions('no"de A'))
    record = await claimed(store.sessions("B"), pid, "t2")
    heads = [json.loads(head) for head in await store.heads()]
    assert heads == [["evict", "/", "s1", 'no"de A', "transport-t1"]]
    assert record.last == (birth.epoch, birth.n + 1)  # K includes the entry
    await claimed(store.sessions("C"), pid, "t3")
    assert json.loads((await store.heads())[-1]) == ["evict", "/", "s1", "B", "transport-t2"]


async def test_a_claim_is_idempotent_for_one_token(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    first = await claimed(sessions, pid, "t2")
    assert await claimed(sessions, pid, "t2") == first
    assert first.claims == 2
    assert len(await store.heads()) == 1


async def test_each_claim_by_another_token_is_counted(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    assert [(await claimed(sessions, pid, f"c{i}")).claims for i in range(4)] == [2, 3, 4, 5]


async def test_of_many_claims_at_once_the_last_one_owns_it(store: RedisChannel) -> None:
    pid, _ = await created(store.sessions())
    nodes = [store.sessions(f"node{i}") for i in range(8)]
    records = await asyncio.gather(*(claimed(node, pid, f"c{i}") for i, node in enumerate(nodes)))
    assert sorted(r.claims for r in records) == list(range(2, 10))
    owner = max(range(8), key=lambda i: records[i].claims)
    for i, node in enumerate(nodes):
        if i != owner:
            assert not await node.detach("s1", f"c{i}")
    assert await nodes[owner].detach("s1", f"c{owner}")


@pytest.mark.parametrize("wrong", ["secret", "sid", "namespace"])
async def test_a_claim_that_is_refused_changes_nothing(store: RedisChannel, wrong: str) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    await sessions.save("s1", "t1", {"a": 1})
    before, entries = await store.record("s1"), await store.entries()
    shown = {"secret": Pid.new("s1"), "sid": Pid("s2", pid.secret), "namespace": pid}[wrong]
    assert await refused(sessions, shown, namespace="/other" if wrong == "namespace" else "/") == "unknown"
    assert await store.record("s1") == before
    assert await store.record("s2") == {}
    assert await store.entries() == entries
    await sessions.save("s1", "t1", {"a": 2})  # the owner still is


async def test_a_session_without_a_pid_can_not_be_claimed(store: RedisChannel) -> None:
    sessions = store.sessions()
    await sessions.create("s1", None, "/", "t1", "transport")
    assert await refused(sessions, Pid.new("s1")) == "unknown"
    assert await refused(sessions, Pid("s1", "")) == "unknown"


async def test_a_session_is_not_claimed_after_its_deadline(store: RedisChannel) -> None:
    sessions = store.sessions(max_disconnection=30)
    pid, _ = await created(sessions)
    assert await sessions.detach("s1", "t1")
    before = await store.record("s1")
    await store.until(int(before[b"deadline"]))
    assert await refused(sessions, pid) == "expired"
    assert await store.record("s1") == before


async def test_an_owner_that_died_holds_a_session_until_its_ttl(store: RedisChannel) -> None:
    sessions = store.sessions(ttl=30)
    pid, _ = await created(sessions)
    await store.until(int((await store.record("s1"))[b"deadline"]))
    assert await refused(sessions, pid) == "expired"


async def test_a_claimed_session_outlives_the_deadline_it_was_claimed_before(store: RedisChannel) -> None:
    """The client is connected, and then cut again before its node's first heartbeat."""
    for wait in (200, 2_000, 20_000):  # longer, if the machine was too busy to claim it in time
        sessions = store.sessions(max_disconnection=wait)
        pid, _ = await created(sessions, f"s{wait}")
        assert await sessions.detach(pid.sid, "t1")
        deadline = int((await store.record(pid.sid))[b"deadline"])
        if isinstance(await sessions.claim(pid, "/", "t2", "transport"), Record):
            break
    await store.until(deadline)
    await claimed(store.sessions("B"), pid, "t3")


async def test_records_leave_redis_by_themselves(store: RedisChannel) -> None:
    sessions = store.sessions()
    sessions.GRACE, sessions.ORPHAN_GRACE = 5_000, 7_000
    before = await store.now()
    await created(sessions)
    left = await store.client.pttl(store.keys.session("s1"))
    assert 67_000 - (await store.now() - before) <= left <= 67_000
    sessions.max_disconnection = 10_000
    before = await store.now()
    assert await sessions.detach("s1", "t1")
    left = await store.client.pttl(store.keys.session("s1"))
    assert 15_000 - (await store.now() - before) <= left <= 15_000


# -- only the owner writes, and nothing comes back --------------------------------------------------


async def test_a_former_owner_writes_nothing(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    await sessions.save("s1", "t1", {"by": "t1"})
    await claimed(sessions, pid, "t2")
    before = await store.record("s1")
    with pytest.raises(SessionGone):
        await sessions.save("s1", "t1", {"by": "a former owner"})
    assert not await sessions.detach("s1", "t1")
    assert not await sessions.forget("s1", "t1")
    assert await sessions.heartbeat([Heartbeat("s1", "t1", (99, 98), ())]) == {0: False}
    assert {**await store.record("s1"), b"open": before[b"open"]} == before


async def test_what_else_the_server_keeps_comes_with_the_record(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    assert b"extra" not in await store.record("s1"), "a node that has nothing to keep writes as before"
    await sessions.save_extra("s1", "t1", '{"user":"Zoë"}')
    record = await claimed(sessions, pid, "t2")
    assert (record.extra, record.data) == ('{"user":"Zoë"}', {})
    with pytest.raises(SessionGone):
        await sessions.save_extra("s1", "t1", "of a former owner")
    await sessions.detach("s1", "t2", failed=True)
    assert (await claimed(sessions, pid, "t3")).extra == '{"user":"Zoë"}'


async def test_a_detached_session_has_no_owner(store: RedisChannel) -> None:
    sessions = store.sessions()
    await created(sessions)
    assert await sessions.detach("s1", "t1")
    before = await store.record("s1")
    assert not await sessions.detach("s1", "t1")
    assert await sessions.heartbeat([Heartbeat("s1", "t1", None, ())]) == {0: False}
    with pytest.raises(SessionGone):
        await sessions.save("s1", "t1", {})
    assert await store.record("s1") == before


@pytest.mark.parametrize("how", ["forgotten", "forgotten by the application", "expired"])
async def test_no_write_brings_back_a_session_that_is_gone(store: RedisChannel, how: str) -> None:
    log, sessions = store.log(), store.sessions()
    pid, _ = await created(sessions)
    async with running(log.write()):
        if how == "forgotten":
            assert await sessions.forget("s1", "t1")
        elif how == "expired":
            await store.client.delete(store.keys.session("s1"))
        else:
            await sessions.detach("s1", "t1")
            assert await log.append(forgets(log, "s1")) is AppendResult.STORED
        assert not await sessions.detach("s1", "t1")
        assert not await sessions.detach("s1", "t1", failed=True)
        assert not await sessions.forget("s1", "t1")
        assert await sessions.heartbeat([Heartbeat("s1", "t1", (3, 2), ("red",))]) == {0: False}
        with pytest.raises(SessionGone):
            await sessions.save("s1", "t1", {"a": 1})
        assert await log.append(moves(log, ENTER, "s1", "red")) == "unknown"
        assert await log.append(moves(log, LEAVE, "s1", "red")) == "unknown"
        assert await refused(sessions, pid) == "unknown"
    assert await store.record("s1") == {}


async def test_a_claim_that_led_nowhere_restores_the_deadline(store: RedisChannel) -> None:
    sessions = store.sessions(max_disconnection=60_000)
    pid, _ = await created(sessions)
    assert await sessions.detach("s1", "t1")
    before = await store.record("s1")
    await claimed(sessions, pid, "t2")
    assert (await store.record("s1"))[b"was"] == before[b"deadline"]
    await store.until(await store.now() + 5)
    assert await sessions.detach("s1", "t2", failed=True)
    after = await store.record("s1")
    assert {**after, b"claims": b"1"}.items() >= before.items()
    assert 0 < await store.client.pttl(store.keys.session("s1")) <= 120_000


async def test_a_claim_again_still_knows_the_deadline_to_restore(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    assert await sessions.detach("s1", "t1")
    deadline = (await store.record("s1"))[b"deadline"].decode()
    await claimed(sessions, pid, "t2")
    await claimed(sessions, pid, "t2")
    assert (await store.record("s1"))[b"was"].decode() == deadline


# -- data and heartbeats ----------------------------------------------------------------------------


async def test_data_that_is_not_json_leaves_the_old_data(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, _ = await created(sessions)
    await sessions.save("s1", "t1", {"a": 1})
    with pytest.raises(TypeError, match="'socket'"):
        await sessions.save("s1", "t1", {"a": 2, "socket": object()})
    assert (await claimed(sessions, pid, "t2")).data == {"a": 1}


async def test_any_json_string_can_be_data(store: RedisChannel) -> None:
    """A lone surrogate is one: clients can send it, as ``"\\ud800"``."""
    sessions = store.sessions()
    pid, _ = await created(sessions)
    await sessions.save("s1", "t1", {"name": "\ud800", "other": "😀\0"})
    assert (await claimed(sessions, pid, "t2")).data == {"name": "\ud800", "other": "😀\0"}


async def test_a_room_that_has_no_utf8_form_can_be_left_and_closed(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    await created(sessions)
    async with running(log.write()):
        with pytest.raises(ValueError):
            moves(log, ENTER, "s1", "\ud800")
        results = await asyncio.gather(
            log.append(moves(log, LEAVE, "s1", "\ud800")), log.append(event("e")), log.append(closes(log, "\ud800"))
        )
    assert list(results) == ["same", "stored", "stored"]


async def test_one_call_that_can_not_be_sent_does_not_fail_the_others(store: RedisChannel) -> None:
    sessions = store.sessions()
    pids = [(await created(sessions, f"s{i}"))[0] for i in range(4)]
    results = await asyncio.gather(
        *(sessions.save(f"s{i}", "t1", {"i": i}) for i in range(4)),
        sessions.detach("\ud800", "t1"),
        return_exceptions=True,
    )
    assert results[:4] == [None] * 4
    assert [(await claimed(sessions, pid, "t2")).data for pid in pids] == [{"i": i} for i in range(4)]


async def test_a_heartbeat_names_the_sessions_that_are_lost(store: RedisChannel) -> None:
    sessions = store.sessions()
    count = HEARTBEAT_COUNT * 2 + 50
    some = range(0, count, 7)
    await store.log().tail(store.link())
    await store.client.hset(store.keys.meta, "n", count)
    await asyncio.gather(*(created(sessions, f"s{i}") for i in range(count) if i not in some))
    beats = [Heartbeat(f"s{i}", "t1", (i, i) if i % 2 else None, ("x",) * (i % 3)) for i in range(count)]
    assert await sessions.heartbeat(beats) == dict.fromkeys(some, False)
    record = await store.record(f"s{count - 1}")
    confirmed = beats[-1].confirmed
    assert record[b"confirmed"] == (str(confirmed[0]).encode() if confirmed else record[b"birth"])
    assert (await store.record("s1"))[b"sent"] == b"1"


async def test_a_heartbeat_is_not_stopped_by_a_key_of_another_type(store: RedisChannel) -> None:
    sessions = store.sessions()
    for sid in ("s1", "s3"):
        await created(sessions, sid)
    await store.client.set(store.keys.session("s2"), "planted")
    before = int((await store.record("s3"))[b"deadline"])
    await store.until(await store.now() + 5)
    assert await sessions.heartbeat([Heartbeat(sid, "t1", (5, 5), ("x",)) for sid in ("s1", "s2", "s3")]) == {1: False}
    assert int((await store.record("s3"))[b"deadline"]) > before


async def test_a_claim_of_a_key_of_another_type_is_refused(store: RedisChannel) -> None:
    await store.client.rpush(store.keys.session("s1"), "planted")
    refused = await store.sessions().claim(Pid.new("s1"), "/", "t1", "T1")
    assert isinstance(refused, Refused)
    assert refused.outcome == "damaged"


async def test_a_heartbeat_moves_the_deadline(store: RedisChannel) -> None:
    sessions = store.sessions()
    await created(sessions)
    before = int((await store.record("s1"))[b"deadline"])
    await store.until(await store.now() + 5)
    assert await sessions.heartbeat([Heartbeat("s1", "t1", None, ())]) == {}
    assert int((await store.record("s1"))[b"deadline"]) > before


# -- rooms ------------------------------------------------------------------------------------------


async def test_stays_are_exact(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, birth = await created(sessions)
    b = birth.n
    async with running(log.write()):
        for append in (
            moves(log, ENTER, "s1", "red"),  # 1
            event("e"),
            moves(log, ENTER, "s1", 7),  # 3
            closes(log, "red"),  # 4
            event("e"),
            moves(log, ENTER, "s1", "red"),  # 6
            moves(log, LEAVE, "s1", "red"),  # 7
            moves(log, ENTER, "s1", "red"),  # 8
            closes(log, "red"),  # 9
            closes(log, "red"),  # 10
            moves(log, ENTER, "s1", "blue:\n\"é'"),  # 11
            closes(log, "blue"),  # another room
            closes(log, "blue:\n\"é'", "/other"),  # another namespace
            closes(log, 7),  # 14
        ):
            assert await log.append(append) is AppendResult.STORED
    record = await claimed(sessions, pid, "t2")
    assert sorted(record.stays, key=lambda s: s.entered) == [
        Stay("red", b + 1, b + 4),
        Stay(7, b + 3, b + 14),
        Stay("red", b + 6, b + 7),
        Stay("red", b + 8, b + 9),
        Stay("blue:\n\"é'", b + 11),
    ]


async def test_a_claim_again_has_the_same_stays(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, birth = await created(sessions)
    async with running(log.write()):
        for append in (moves(log, ENTER, "s1", "red"), closes(log, "red"), moves(log, ENTER, "s1", "red")):
            await log.append(append)
    first = await claimed(sessions, pid, "t2")
    assert sorted(first.stays) == [Stay("red", birth.n + 1, birth.n + 2), Stay("red", birth.n + 3)]
    assert sorted((await claimed(sessions, pid, "t2")).stays) == sorted(first.stays)
    assert sorted((await claimed(sessions, pid, "t3")).stays) == sorted(first.stays)


async def test_a_heartbeat_settles_closed_rooms(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, birth = await created(sessions)
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", "red"))
        await log.append(closes(log, "red"))
    assert await sessions.heartbeat([Heartbeat("s1", "t1", None, ("red", "never"))]) == {}
    await store.client.delete(store.keys.closes)  # forgotten after a while
    assert (await claimed(sessions, pid, "t2")).stays == [Stay("red", birth.n + 1, birth.n + 2)]


async def test_a_move_that_changes_nothing_is_no_entry(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    await created(sessions, "s1")
    await created(sessions, "s2")
    async with running(log.write()):
        assert await log.append(moves(log, LEAVE, "s1", "red")) == "same"
        assert await log.append(moves(log, ENTER, "s1", "red")) is AppendResult.STORED
        assert await log.append(moves(log, ENTER, "s1", "red")) == "same"
        assert await log.append(moves(log, ENTER, "s1", "s2")) == "sid"
        assert await log.append(moves(log, ENTER, "s9", "red")) == "unknown"
        assert await log.append(moves(log, ENTER, "s1", "red", "/other")) == "unknown"
        assert await log.append(closes(log, "red")) is AppendResult.STORED
        assert await log.append(moves(log, LEAVE, "s1", "red")) == "same"
    assert [json.loads(head)[0] for head in await store.heads()] == [ENTER, CLOSE]


async def test_a_batch_answers_each_of_its_entries(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    await created(sessions, "s1")
    appends = [
        moves(log, ENTER, "s1", "red"),
        moves(log, ENTER, "s1", "red"),
        event("e"),
        moves(log, ENTER, "s9", "red"),
        moves(log, LEAVE, "s1", "red"),
    ]
    waiting = [asyncio.ensure_future(log.append(a)) for a in appends]
    await asyncio.sleep(0)  # all are queued before the writer starts
    async with running(log.write()):
        assert await asyncio.gather(*waiting) == ["stored", "same", "stored", "unknown", "stored"]


async def test_rooms_can_be_entered_while_nobody_owns_the_session(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, birth = await created(sessions)
    assert await sessions.detach("s1", "t1")
    async with running(log.write()):
        assert await log.append(moves(log, ENTER, "s1", "red")) is AppendResult.STORED
    assert (await claimed(sessions, pid, "t2")).stays == [Stay("red", birth.n + 1)]


async def test_stays_that_no_replay_can_reach_are_swept(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, _ = await created(sessions)
    async with running(log.write()):
        for _ in range(3):
            await asyncio.gather(
                *(log.append(moves(log, kind, "s1", "red")) for _ in range(100) for kind in (ENTER, LEAVE))
            )
            await store.client.xtrim(store.keys.log, maxlen=3, approximate=False)
        await log.append(moves(log, ENTER, "s1", "blue"))
    floor = (await store.numbers())[0] - 1
    record = await claimed(sessions, pid, "t2")
    assert len(record.stays) < 250
    assert [s.room for s in record.stays if s.left is None] == ["blue"]
    kept = {s.left for s in record.stays if s.left and s.left > floor}
    assert kept  # what a replay can reach is still there
    assert membership.rooms_at(record.stays, record.last.n).keys() == {"blue"}


async def test_a_room_that_is_closed_again_and_again_is_noted_once(store: RedisChannel) -> None:
    """It must not take more and more memory, or time."""
    log, sessions = store.log(), store.sessions()
    pid, _ = await created(sessions)
    async with running(log.write()):
        await asyncio.gather(*(log.append(closes(log, "red")) for _ in range(100)))
        await log.append(moves(log, ENTER, "s1", "red"))
        await asyncio.gather(*(log.append(closes(log, "red")) for _ in range(100)))
    noted = await store.client.hgetall(store.keys.closes)
    assert [len(numbers.split()) for numbers in noted.values()] == [2]
    assert [stay.left is None for stay in (await claimed(sessions, pid, "t2")).stays] == [False]


async def test_closings_outlive_the_entries_of_the_log(store: RedisChannel) -> None:
    """A record learns of a closing with its next heartbeat; the log may be trimmed before that."""
    log, sessions = store.log(max_length=10), store.sessions()
    pid, _ = await created(sessions)
    async with running(log.write()):
        await log.append(moves(log, ENTER, "s1", 7))
        await log.append(moves(log, ENTER, "s1", 700))
        await asyncio.gather(*(log.append(closes(log, room)) for room in range(600)))
    record = await claimed(sessions, pid, "t2")
    assert membership.rooms_at(record.stays, record.last.n).keys() == {700}


async def test_old_closings_are_forgotten_a_few_with_each_new_one(store: RedisChannel) -> None:
    log = store.log()
    link = store.link()
    async with running(log.write()):
        await asyncio.gather(*(log.append(closes(log, room)) for room in range(40)))
        for room in range(40):  # as if they were old
            await link.call("ZADD", store.keys.closed, 1, f"{room + 2} /\n{room}")
        await log.append(closes(log, "red"))
        assert len(await store.client.hgetall(store.keys.closes)) == 37
        for room in range(100, 112):
            await log.append(closes(log, room))
    noted = await store.client.hgetall(store.keys.closes)
    assert not {f"/\n{room}".encode() for room in range(40)} & noted.keys()


async def test_a_session_of_another_epoch_can_not_be_claimed(store: RedisChannel) -> None:
    sessions = store.sessions()
    pid, birth = await created(sessions)
    assert await sessions.detach("s1", "t1")
    await store.link().run(RENEW, [store.keys.log, store.keys.meta], [birth.epoch])
    before = await store.record("s1")
    assert await refused(sessions, pid) == "epoch"
    assert await store.record("s1") == before


async def test_rooms_with_any_name_come_back_as_they_were(store: RedisChannel) -> None:
    log, sessions = store.log(), store.sessions()
    pid, _ = await created(sessions)
    rooms: list[Any] = ["", "ü", 'a"b\\c', "a:b:c", "1", 1, -2, "r:x", "a" * 1000, "\x00\n"]
    async with running(log.write()):
        for room in rooms:
            assert await log.append(moves(log, ENTER, "s1", room)) is AppendResult.STORED
    record = await claimed(sessions, pid, "t2")
    assert [s.room for s in sorted(record.stays, key=lambda s: s.entered)] == rooms
