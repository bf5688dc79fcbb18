"""The bridge between threads and the event loop of the core."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from socketio_recovery.threads import bridge as bridge_module
from socketio_recovery.threads.bridge import Bridge
from socketio_recovery.threads.modes import Threading

from tests.support.waiting import PATIENCE

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge(Threading(), lambda: logging.getLogger("test"))
    yield bridge
    bridge.stop(PATIENCE)


def test_a_coroutine_runs_on_one_loop_in_another_thread(bridge: Bridge) -> None:
    async def where() -> tuple[int, asyncio.AbstractEventLoop]:
        return threading.get_ident(), asyncio.get_running_loop()

    first, second = bridge.run(where), bridge.run(where)
    assert first == second
    assert first[0] != threading.get_ident()


def test_it_returns_and_raises_what_the_coroutine_does(bridge: Bridge) -> None:
    async def divide(a: int, b: int) -> float:
        return a / b

    assert bridge.run(divide, 6, b=3) == 2
    with pytest.raises(ZeroDivisionError):
        bridge.run(divide, 1, 0)


def test_what_the_core_calls_runs_in_the_thread_that_waits(bridge: Bridge) -> None:
    async def core() -> int:
        return await bridge.call(threading.get_ident)

    assert bridge.run(core) == threading.get_ident()


def test_calls_can_be_nested_to_any_depth(bridge: Bridge) -> None:
    here = threading.get_ident()

    def thread(depth: int) -> int:
        assert threading.get_ident() == here
        return bridge.run(core, depth - 1) + 1 if depth else 0

    async def core(depth: int) -> int:
        return await bridge.call(thread, depth)

    assert bridge.run(core, 20) == 20


def test_what_a_thread_raises_reaches_the_core_and_comes_back(bridge: Bridge) -> None:
    def fail() -> None:
        raise KeyError("mine")

    async def core() -> None:
        with pytest.raises(KeyError):
            await bridge.call(fail)
        await bridge.call(fail)

    with pytest.raises(KeyError, match="mine"):
        bridge.run(core)


def test_what_the_core_begins_by_itself_runs_in_a_thread_of_its_own(bridge: Bridge) -> None:
    async def core() -> int:
        return await asyncio.create_task(bridge.call(threading.get_ident))

    assert bridge.run(core) not in (threading.get_ident(), bridge.do(threading.get_ident))


def test_context_goes_along_in_both_directions(bridge: Bridge) -> None:
    async def inner() -> str:
        return variable.get()

    async def core() -> tuple[str, str]:
        before = variable.get()
        variable.set("core's")
        return before, await bridge.call(bridge.run, inner)

    variable.set("thread's")
    assert bridge.run(core) == ("thread's", "core's")
    assert variable.get() == "thread's"


def test_many_threads_at_once(bridge: Bridge) -> None:
    async def core(number: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return await bridge.call(lambda: (number, threading.get_ident()))

    def thread(number: int) -> bool:
        return all(bridge.run(core, number) == (number, threading.get_ident()) for _ in range(50))

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(thread, range(20)))


def test_the_event_loop_can_not_wait_for_itself(bridge: Bridge) -> None:
    async def core() -> None:
        bridge.do(lambda: None)

    with pytest.raises(RuntimeError, match="wait for itself"):
        bridge.run(core)


def test_who_waits_when_it_stops_gets_an_error_and_so_does_who_comes_later(bridge: Bridge) -> None:
    waits = threading.Event()

    async def for_ever() -> None:
        waits.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bridge.run, for_ever)
        assert waits.wait(PATIENCE)
        bridge.stop(PATIENCE)
        with pytest.raises(RuntimeError, match="it is closed"):
            waiting.result(PATIENCE)
    with pytest.raises(RuntimeError, match="it is closed"):
        bridge.run(for_ever)
    assert not bridge.running


def test_a_thread_that_dies_is_noticed(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    def die() -> None:
        raise SystemExit("killed")  # asyncio passes it on, and nothing else

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bridge.run, for_ever)
        bridge.do(lambda: None)  # it is there
        bridge.soon(die)
        with pytest.raises(RuntimeError, match="killed"):
            waiting.result(PATIENCE)
    assert not bridge.running
    with pytest.raises(RuntimeError, match="killed"):
        bridge.run(for_ever)
    assert "the thread of the client manager ended" in caplog.text


@pytest.mark.parametrize("at_once", [True, False])
def test_an_interrupted_thread_cancels_what_it_waits_for(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    tell = bridge_module._tell

    def told(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
        """The event loop acts upon it before the thread goes on."""
        tell(loop, function, *arguments)
        for _ in range(3):
            turn = threading.Event()
            loop.call_soon_threadsafe(turn.set)
            turn.wait(PATIENCE)

    if at_once:
        monkeypatch.setattr(bridge_module, "_tell", told)

    class Timeout(BaseException):
        pass

    cancelled = threading.Event()

    def interrupted() -> None:
        raise Timeout

    async def core() -> None:
        try:
            await bridge.call(interrupted)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(Timeout):
        bridge.run(core)
    assert cancelled.wait(PATIENCE)


def test_it_starts_anew_in_a_forked_process(bridge: Bridge) -> None:
    async def answer() -> int:
        return 7

    assert bridge.run(answer) == 7
    child = os.fork()
    if child == 0:
        try:
            os._exit(bridge.run(answer))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert bridge.run(answer) == 7
