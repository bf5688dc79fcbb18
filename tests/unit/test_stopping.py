"""``drain_on_sigterm``: SIGTERM drains first, and then goes to who handled it before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from socketio_recovery import drain_on_sigterm


@pytest.fixture
def steps() -> Iterator[list[str]]:
    """What happens, in order. ``"stop"``: the signal got to the server's handler."""
    found: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: found.append("stop"))
    yield found
    signal.signal(signal.SIGTERM, before)


class Draining:
    """Stands for a manager."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def drain(self, over: float, timeout: float) -> None:
        self.steps.append(f"drain over {over:g}, {timeout:g}")
        self.began.set()
        await self.may_end.wait()
        self.steps.append("drained")


async def _turns(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_it_drains_and_then_stops(steps: list[str]) -> None:
    manager: Any = Draining(steps)
    drain_on_sigterm(manager, over=10, timeout=5)
    signal.raise_signal(signal.SIGTERM)
    await manager.began.wait()
    assert steps == ["drain over 10, 5"]
    manager.may_end.set()
    await _turns(lambda: "stop" in steps)
    assert steps == ["drain over 10, 5", "drained", "stop"]


async def test_a_second_signal_stops_at_once(steps: list[str]) -> None:
    manager: Any = Draining(steps)
    drain_on_sigterm(manager)
    signal.raise_signal(signal.SIGTERM)
    await manager.began.wait()
    signal.raise_signal(signal.SIGTERM)
    assert steps == ["drain over 0, 30", "stop"]
    manager.may_end.set()
    await _turns(lambda: steps.count("stop") == 2)


async def test_draining_that_fails_stops_all_the_same(steps: list[str], caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        async def drain(self, over: float, timeout: float) -> None:
            raise ValueError("drain fails")

    manager: Any = Failing()
    drain_on_sigterm(manager)
    signal.raise_signal(signal.SIGTERM)
    await _turns(lambda: steps)
    assert steps == ["stop"]
    await _turns(lambda: "drain fails" in caplog.text)


async def test_in_another_thread_it_does_nothing(steps: list[str]) -> None:
    """As in tests of an application: no signal arrives there."""

    async def elsewhere() -> None:
        manager: Any = Draining(steps)
        drain_on_sigterm(manager)

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    signal.raise_signal(signal.SIGTERM)
    assert steps == ["stop"]


def test_after_its_event_loop_nobody_is_left_to_drain(steps: list[str]) -> None:
    async def run() -> None:
        manager: Any = Draining(steps)
        drain_on_sigterm(manager)

    asyncio.run(run())
    signal.raise_signal(signal.SIGTERM)
    assert steps == ["stop"]
