"""Clients that answer a question to many: each only for itself, once, and only what it was asked."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from socketio_recovery import Answers

from tests.support.node_process import NodeProcess
from tests.support.raw_client import RawClient

from .raw_sessions import connected, serves, state

#: What clients send in place of an answer, or beside it; ``%d`` is the number that they were asked with.
HOSTILE = [
    *("43", "43[]", "43[1", "43%d", "43%d{}", '43%d"x"', "43%dnull", "43-1[]", "4399999999999999999999[1]"),
    *('43/other,%d["x"]', '43/nobody,%d["x"]', '43%d.5["x"]', '43%d0["x"]', '461-%d["x"]'),
]


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


@pytest.mark.parametrize("packet", HOSTILE)
async def test_what_is_no_answer(target: NodeProcess, packet: str) -> None:
    """It counts as an answer without arguments, or not at all; the others' answers come, and the node goes on."""
    async with connected(target) as (honest, mine), connected(target) as (liar, others), connected(target) as (by, _):
        sids = [mine["sid"], others["sid"]]
        options = {"to": sids, "timeout": 1}
        call = asyncio.create_task(target.do(("emit_with_ack", ["question"], options), on="manager"))
        number = await question(liar)
        assert await question(honest) == number
        await liar.send(packet.replace("%d", str(number)))
        await honest.send(f'43{number}["mine"]')
        (found,) = await call
        answers = Answers(*found)
        assert answers.answers.pop(mine["sid"]) == "mine"
        assert answers.answers in ({}, {others["sid"]: None})
        assert answers.missing == ([] if answers.answers else [others["sid"]])
        await serves(target, by, 1)
        assert json.dumps(found)
