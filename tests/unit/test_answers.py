"""Questions to many: whose answers count, and who is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
import socketio
from socketio_recovery import RedisStreamsManager
from socketio_recovery.aio import operations
from socketio_recovery.aio.callbacks import Callbacks
from socketio_recovery.aio.gathering import Gathering
from socketio_recovery.aio.log import APPEND_COUNT, Append
from socketio_recovery.aio.membership_log import MembershipLog
from socketio_recovery.aio.server_side import ServerSide, server_side_entry
from socketio_recovery.aio.tasks import KeyedQueue
from socketio_recovery.answers import Answers, of_clients, of_nodes
from socketio_recovery.entries import CALLBACK, Entry, parse_entry
from socketio_recovery.packets import JsonCodec
from socketio_recovery.reasons import AppendResult
from socketio_recovery.redis.keys import Keys

LOGGER = logging.getLogger("test.answers")
CODEC = JsonCodec()


class Stored:
    """A log that keeps what is appended to it. It refuses what ``refuse`` says."""

    logger = LOGGER

    def __init__(self) -> None:
        self.heads: list[Entry] = []
        self.waiting = self.most = 0
        self.refuse: dict[str, AppendResult | Exception] = {}

    def queue(self, append: Append) -> None:
        entry = parse_entry(1, 1, [f if isinstance(f, bytes) else f.encode() for f in append.fields])
        self.heads.append(entry)
        self.waiting += 1
        self.most = max(self.most, self.waiting)

    async def answer(self, append: Append) -> AppendResult:
        await asyncio.sleep(0)
        self.waiting -= 1
        entry = parse_entry(1, 1, [f if isinstance(f, bytes) else f.encode() for f in append.fields])
        result = self.refuse.get(entry.sid, AppendResult.STORED)
        if isinstance(result, Exception):
            raise result
        return result

    async def append(self, append: Append) -> AppendResult:
        self.queue(append)
        return await self.answer(append)


def stored() -> Any:
    return Stored()


def test_clients_that_did_not_answer_are_named() -> None:
    got: dict[str, Sequence[Any]] = {"one": [], "two": [1], "more": [1, 2], "late": ["x"]}
    found = of_clients(["one", "two", "silent", "more"], got)
    assert found == Answers({"one": None, "two": 1, "more": (1, 2), "late": "x"}, ["silent"], {})


def test_nodes_that_failed_are_not_missing() -> None:
    found = of_nodes(["a", "b", "dead"], {"a": [True, None], "b": [False, "ValueError: no"]})
    assert found == Answers({"a": None}, ["dead"], {"b": "ValueError: no"})


async def test_the_first_answer_of_each_counts() -> None:
    gathering = Gathering()
    gathering.add("one", [1])
    waiting = asyncio.create_task(gathering.wait(["one", "two"], 60))
    await asyncio.sleep(0)
    gathering.add("one", ["again"])
    gathering.add("somebody else", ["me, too"])
    await asyncio.sleep(0)
    assert not waiting.done()
    gathering.add("two", [2])
    await waiting
    assert gathering.got == {"one": [1], "two": [2], "somebody else": ["me, too"]}
    await gathering.wait([], 60)
    await gathering.wait(["three"], 0.001)


async def test_an_answer_goes_to_its_question_alone() -> None:
    callbacks = Callbacks("node", stored(), CODEC, KeyedQueue(LOGGER))
    with callbacks.gather() as (first, one), callbacks.gather() as (second, two):
        await callbacks.acknowledged("node", second, [2], "s1")
        callbacks.answered(first, CODEC.encode([1]), "s2")
        callbacks.answered(first + 99, CODEC.encode([1]), "s2")
        await callbacks.tasks.drained()
        assert (one.got, two.got) == ({"s2": [1]}, {"s1": [2]})
    await callbacks.acknowledged("node", first, [3], "s3")
    callbacks.answered(second, CODEC.encode([1]), "s3")
    await callbacks.tasks.drained()
    assert (one.got, two.got) == ({"s2": [1]}, {"s1": [2]}), "the time was over"


async def test_a_client_of_another_node_is_named_in_its_answer() -> None:
    log = stored()
    await Callbacks("node", log, CODEC, KeyedQueue(LOGGER)).acknowledged("another", 7, ["x"], "s1")
    assert [(entry.kind, entry.callback, entry.by) for entry in log.heads] == [(CALLBACK, ("another", 7), "s1")]


def received(event: str, arguments: tuple[Any, ...], emitter: str = "emitter", id: int = 0) -> Entry:
    append = server_side_entry(CODEC, emitter, event, arguments, id)
    return parse_entry(1, 1, [f if isinstance(f, bytes) else f.encode() for f in append.fields])


async def test_events_of_one_process_run_in_order_and_those_of_others_beside_them() -> None:
    server_side = ServerSide(stored(), CODEC, KeyedQueue(LOGGER), LOGGER)
    done: list[Any] = []
    may = asyncio.Event()

    async def handler(what: Any, data: bytes) -> None:
        if what == "slow":
            await may.wait()
        done.append((what, data))

    server_side.handle("e", handler)
    server_side.handle("f", lambda: done.append("f"))
    for entry in (
        received("e", ("slow", b"\xff")),
        received("e", ("next", b"")),
        received("e", ("other", b""), "other"),
    ):
        server_side.received(entry)
    server_side.received(received("f", ()))
    server_side.received(received("nobody handles it", ()))
    while len(done) < 2:
        await asyncio.sleep(0)
    assert sorted(map(str, done)) == ["('other', b'')", "f"]
    may.set()
    await server_side.tasks.drained()
    assert done[2:] == [("slow", b"\xff"), ("next", b"")]


async def test_each_node_answers_whatever_becomes_of_its_handler(caplog: pytest.LogCaptureFixture) -> None:
    log = stored()
    server_side = ServerSide(log, CODEC, KeyedQueue(LOGGER), LOGGER)
    server_side.node = "me"
    server_side.handle("well", lambda *arguments: list(arguments))
    server_side.handle("fails", lambda: 1 / 0)
    server_side.handle("says nothing that can be sent", object)
    for event, arguments in (("well", (1, "x")), ("fails", ()), ("says nothing that can be sent", ()), ("nobody", ())):
        server_side.received(received(event, arguments, id=5))
    await server_side.tasks.drained()
    assert {(entry.kind, entry.callback, entry.by) for entry in log.heads} == {(CALLBACK, ("emitter", 5), "me")}
    found = [CODEC.decode(entry.payload) for entry in log.heads]
    assert [True, [1, "x"]] in found
    assert [False, "ZeroDivisionError: division by zero"] in found
    assert [False, "LookupError: no handler is registered for 'nobody'"] in found
    assert any(not succeeded and value.startswith("TypeError: ") for succeeded, value in found)
    assert len(found) == 4
    assert caplog.text.count("failed") == 2


def test_handlers_are_there_in_a_forked_process() -> None:
    manager = RedisStreamsManager("redis://127.0.0.1:1/0")
    with pytest.raises(RuntimeError, match="pass it to a server as client_manager first"):
        manager.on_server_side("e", print)
    socketio.Server(async_mode="threading", client_manager=manager)
    manager.on_server_side("e", print)
    before = manager._core
    manager._begin_anew()
    assert manager._core is not before
    assert manager._parts()[0].first.server_side._handlers.keys() == {"e"}


async def test_very_many_are_moved_in_batches_and_counted() -> None:
    log = stored()
    membership = MembershipLog(log, Keys("x"))
    sids = [f"s{i}" for i in range(1000)]
    log.refuse = {"s1": AppendResult.UNCHANGED, "s2": AppendResult.UNKNOWN_SESSION}
    assert await operations.move(membership, "enter", "/", sids, ["red", 7, "s3"]) == 998
    assert len(log.heads) == 2999, "a session is in its own room"
    assert log.most <= APPEND_COUNT
    log.heads.clear()
    log.refuse = {"s1": AppendResult.SID_ROOM}
    with pytest.raises(ValueError, match="is the id of another client"):
        await operations.move(membership, "enter", "/", sids, ["red"])
    assert len(log.heads) == APPEND_COUNT, "no more than those that were under way"
