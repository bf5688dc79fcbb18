"""Clients that answer a question to many: each only for itself, once, and only what it was asked."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

from socketio_recovery import Answers

from tests.support.node_process import NodeProcess
from tests.support.raw_client import RawClient

from .raw_sessions import connected, serves, state

#: What clients send in place of an answer; ``%d`` is the number that they were asked with.
NO_ANSWERS = [
    *("43", "43[]", "43[1", "43-1[]", "4399999999999999999999[1]", '43%d.5["x"]', '43%d0["x"]', '461-%d["x"]'),
    *('43/other,%d["x"]', '43/nobody,%d["x"]'),
]
#: What counts as an answer without arguments: the protocol has a list there.
EMPTY_ANSWERS = ["43%d", "43%d{}", '43%d"x"', "43%dnull", "43%d[]"]


async def question(client: RawClient) -> int:
    match = re.fullmatch(r'42(\d+)\["question"\]', packet := await client.read())
    assert match, packet
    return int(match[1])


async def test_a_client_answers_for_itself_once(target: NodeProcess) -> None:
    async with connected(target) as (honest, mine), connected(target) as (liar, others), connected(target) as (by, _):
        for client in (honest, liar):
            await client.send('42["join","asked"]')
            while "asked" not in (await state(client))["rooms"]:
                pass
        call = asyncio.create_task(target.do(("emit_with_ack", ["question"], {"room": "asked"}), on="manager"))
        number = await question(liar)
        assert await question(honest) == number
        await by.send(f'43{number}["who was not asked"]')
        for n in (number + 1, number - 1, 1):
            await liar.send(f'43{n}["another number"]')
        for answer in ("first", "second", "third"):
            await liar.send(f'43{number}["{answer}","{mine["sid"]}"]')
        await serves(target, liar, 1)
        assert not call.done(), "the other has not answered"
        await honest.send(f'43{number}["mine"]')
        (found,) = await call
        assert Answers(*found) == Answers({others["sid"]: ["first", mine["sid"]], mine["sid"]: "mine"}, [], {})


async def test_what_is_no_answer(target: NodeProcess) -> None:
    """The others' answers come, and the node goes on."""
    async with connected(target) as (honest, mine), connected(target) as (by, _), AsyncExitStack() as stack:
        liars = [await stack.enter_async_context(connected(target)) for _ in NO_ANSWERS]
        sids = [others["sid"] for _, others in liars]
        asked = {"to": [mine["sid"], *sids], "timeout": 8}
        call = asyncio.create_task(target.do(("emit_with_ack", ["question"], asked), on="manager"))
        for (liar, _), packet in zip(liars, NO_ANSWERS, strict=True):
            await liar.send(packet.replace("%d", str(await question(liar))))
        await honest.send(f'43{await question(honest)}["mine"]')
        (found,) = await call
        assert Answers(*found)._replace(missing=sorted(found[1])) == Answers({mine["sid"]: "mine"}, sorted(sids), {})
        await serves(target, by, 1)


async def test_what_has_no_list(target: NodeProcess) -> None:
    async with connected(target) as (by, _), AsyncExitStack() as stack:
        liars = [await stack.enter_async_context(connected(target)) for _ in EMPTY_ANSWERS]
        sids = [others["sid"] for _, others in liars]
        call = asyncio.create_task(target.do(("emit_with_ack", ["question"], {"to": sids}), on="manager"))
        for (liar, _), packet in zip(liars, EMPTY_ANSWERS, strict=True):
            await liar.send(packet.replace("%d", str(await question(liar))))
        (found,) = await call
        assert Answers(*found) == Answers(dict.fromkeys(sids), [], {})
        await serves(target, by, 1)
