"""Background tasks: what fails is logged, started again, and known to fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from socketio_recovery.aio.tasks import STEADY, cancelled, supervise
from socketio_recovery.metrics import NoMetrics

from tests.support.simulated_loop import SimulatedLoop


class Failures(NoMetrics):
    """The tasks that failed."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def failed(self, task: str) -> None:
        self.tasks.append(task)


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    loop = SimulatedLoop()
    yield loop
    loop.close()


def test_a_task_that_fails_is_started_again_and_seen_to_fail(
    loop: SimulatedLoop, caplog: pytest.LogCaptureFixture
) -> None:
    failing: set[str] = set()
    metrics = Failures()
    starts: list[float] = []

    async def run() -> None:
        starts.append(loop.time())
        await asyncio.sleep(1)
        if len(starts) < 4:
            raise ValueError("it can't go on")
        await asyncio.Event().wait()

    async def watch() -> None:
        task = asyncio.create_task(supervise("reader", run, failing, metrics, logging.getLogger("test.tasks")))
        await asyncio.sleep(0.5)
        assert failing == set()
        while len(starts) < 4:
            await asyncio.sleep(0.1)
            assert (failing == {"reader"}) == (loop.time() > 1)
        while failing:
            await asyncio.sleep(0.1)
        assert loop.time() >= starts[-1] + STEADY
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    loop.run_until_complete(watch())
    assert [record.getMessage() for record in caplog.records] == ["the reader failed; starting it again"] * 3
    assert metrics.tasks == ["reader"] * 3


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def run() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(run()), asyncio.create_task(asyncio.Event().wait())]
    await asyncio.sleep(0)
    await cancelled(tasks)
    assert swallowed == 2
    assert all(task.cancelled() for task in tasks)
