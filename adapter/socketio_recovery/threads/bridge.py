"""The bridge: coroutines of the asyncio core that are called from threads, and functions of threads that it calls.

The core runs on one event loop, in a thread of its own. A thread of the application that calls the core waits for the
answer, and meanwhile it serves: what the core calls of python-socketio on behalf of this thread (an event handler, say)
runs in this thread. So a handler runs where python-socketio would have run it, with the thread's own context, and no
thread is started for it. What the core begins by itself runs in a background task of the server.

``contextvars`` go along in both directions, so that a handler, and what it calls of the core in turn, know for which
connection they work (``aio/scope.py``).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..aio.life import keep
from ..aio.log import Append, Log
from ..reasons import AppendResult
from .modes import Lock, Mode, Signal

T = TypeVar("T")

#: How long a process that exits waits for the core to stop, in seconds.
FAREWELL = 3.0
#: Why a bridge that was stopped does not run.
CLOSED = "it is closed"


class _Job:
    """A function that the core wants to have run in a thread."""

    __slots__ = ("context", "done", "work")

    def __init__(self, work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        self.work = work
        self.done = done
        self.context = contextvars.copy_context()

    def run(self, interrupted: Callable[[], None] | None = None) -> None:
        """Runs it, in the thread that calls this.

        :param interrupted: is called first if the thread is told to end.
        """
        loop = self.done.get_loop()
        try:
            result = self.context.run(self.work)
        except Exception as error:
            outcome: tuple[Any, BaseException | None] = (None, error)
        except BaseException as error:  # gevent.Timeout, SystemExit: the thread's own
            if interrupted is not None:
                interrupted()
            _tell(loop, self._end, None, RuntimeError(f"a handler ended by {error!r}"))
            raise
        else:
            outcome = (result, None)
        _tell(loop, self._end, *outcome)

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self.done.done():
            return
        if isinstance(error, StopIteration):  # a future can't take it
            error = RuntimeError(f"a handler raised {error!r}")
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:  # the event loop has ended: nobody waits for it
        pass


class _Call:
    """A thread that waits for a coroutine."""

    __slots__ = ("bridge", "context", "error", "job", "over", "result", "signal", "task", "work")

    def __init__(self, bridge: Bridge, work: Callable[[], Any]) -> None:
        self.bridge = bridge
        self.work = work
        self.signal = bridge.mode.signal()
        self.context = contextvars.copy_context()
        self.task: asyncio.Task[None] | None = None
        self.job: _Job | None = None
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Begins the work, on the event loop."""
        self.task = asyncio.get_running_loop().create_task(self._run(), context=self.context)
        self.bridge._calls[self.task] = self

    async def _run(self) -> None:
        try:
            result = await self.work()
        except Exception as error:
            self.end(None, error)
        except BaseException:  # the event loop ends, or its thread does
            self.end(None, self.bridge._over())
            raise
        else:
            self.end(result, None)
        finally:
            if self.task is not None:
                self.bridge._calls.pop(self.task, None)

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        if self.over:
            return
        self.over = True
        self.bridge._waiting.discard(self)
        if self.task is not None:
            self.task.cancel()

    def end(self, result: Any, error: BaseException | None) -> None:
        if not self.over:
            self.result, self.error, self.over = result, error, True
            self.bridge._waiting.discard(self)
            self.bridge._tell(self.signal)


class _Appending(_Call):
    """A thread that waits for an entry to be stored. It needs no task."""

    __slots__ = ("append", "log")

    def __init__(self, bridge: Bridge, log: Callable[[], Log], append: Append) -> None:
        self.bridge = bridge
        self.log = log
        self.append = append
        self.signal = bridge.mode.signal()
        self.over = False
        self.result = self.error = self.job = None

    def begin(self) -> None:
        self.log().queue(self.append, self)

    # the log tells it, without a turn of the event loop for a future

    def done(self) -> bool:
        return self.over

    def cancel(self) -> None:
        """Nobody waits for it any more; :meth:`abandon` has noted that."""

    def cancelled(self) -> bool:
        return self.over and self.result is None and self.error is None

    def set_result(self, result: AppendResult) -> None:
        self.end(result, None)

    def set_exception(self, error: Exception) -> None:
        self.end(None, error)

    def abandon(self) -> None:
        if not self.over:
            self.over = True
            self.bridge._waiting.discard(self)
            if hasattr(self.append, "future"):  # it has begun
                self.log().abandon(self.append)


class _Doing(_Call):
    """A thread that waits for a function which is run on the event loop. It needs no task."""

    __slots__ = ()

    def begin(self) -> None:
        try:
            result = self.context.run(self.work)
        except Exception as error:
            self.end(None, error)
        else:
            self.end(result, None)


class Bridge:
    """An event loop in a thread of its own. It starts when it is first used, and after a fork anew.

    :param mode: how the server's threads wait.
    :param begin_anew: is called in a process that was forked from one in which the event loop had begun.
    """

    def __init__(
        self, mode: Mode, logger: Callable[[], logging.Logger], begin_anew: Callable[[], None] = lambda: None
    ) -> None:
        self.mode = mode
        self._logger = logger
        self._begin_anew = begin_anew
        self._lock = mode.lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ended: Signal | None = None
        #: Why it does not run any more.
        self.error: str | None = None
        self._calls: dict[asyncio.Task[None], _Call] = {}
        #: Calls that have begun, and those that have yet to.
        self._waiting: set[_Call] = set()
        self._posted: deque[_Call] = deque()
        #: Whether the event loop will look at them.
        self._woken = False
        #: A thread that is to go on.
        self._told: Signal | None = None
        _bridges.add(self)

    def forked(self) -> None:
        """This process was forked from one in which the event loop may run: here nothing has begun."""
        begun = self._loop is not None
        keep(vars(self).copy())
        self.__init__(self.mode, self._logger, self._begin_anew)  # type: ignore[misc]
        if begun:
            self._begin_anew()

    @property
    def running(self) -> bool:
        """Whether the event loop runs."""
        return self._loop is not None and self.error is None

    # -- from threads -------------------------------------------------------------------------------

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **options: Any) -> T:
        """Runs a coroutine on the event loop, and waits for what it returns, or raises.

        :raises RuntimeError: on the event loop itself, which would wait for itself; or if it has ended.
        """
        return self._wait(_Call(self, lambda: function(*arguments, **options)))  # type: ignore[no-any-return]

    def append(self, log: Callable[[], Log], append: Append) -> AppendResult:
        """Stores an entry, as ``run(log().append, append)`` would.

        An emit is the most frequent call by far. A task, and two turns of the event loop more, would take a tenth of
        its time.
        """
        return self._wait(_Appending(self, log, append))  # type: ignore[no-any-return]

    def _wait(self, call: _Call) -> Any:
        loop = self._started()
        if asyncio._get_running_loop() is loop:
            raise RuntimeError("the event loop of the client manager can't wait for itself")
        try:
            self._post(loop, call)
            while True:
                call.signal.wait()
                if call.over:
                    break
                job, call.job = call.job, None
                if job is not None:
                    # What waits for the job is cancelled then, before it can go on with an error.
                    job.run(lambda: _tell(loop, call.abandon))
        except BaseException:
            _tell(loop, call.abandon)
            raise
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # it would keep this frame
        return call.result

    def _post(self, loop: asyncio.AbstractEventLoop, call: _Call) -> None:
        """Hands a call to the event loop. Of the calls that come before it looks, only the first wakes it."""
        self._posted.append(call)
        if not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._begin_posted)
            except BaseException as error:
                self._woken = False
                if isinstance(error, RuntimeError):  # the event loop has ended
                    raise self._over() from None
                raise
        if self.error is not None:  # it may have ended without a look at this call
            raise self._over()

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function on the event loop, and waits for what it returns, or raises."""
        return self._wait(_Doing(self, lambda: function(*arguments)))  # type: ignore[no-any-return]

    def time(self) -> float:
        """The event loop's time, in seconds."""
        return self._loop.time() if self._loop is not None else 0.0

    def check(self) -> None:
        """Does nothing if the event loop runs, or is yet to start.

        :raises RuntimeError: if it has ended.
        """
        if self.error is not None:
            raise self._over()

    def soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Calls a function on the event loop, and does not wait; not at all if there is no event loop."""
        if self._loop is not None:
            _tell(self._loop, function, *arguments)

    # -- on the event loop --------------------------------------------------------------------------

    async def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Runs a function in the thread that waits for this task, or as a background task if none does."""
        job = _Job(lambda: function(*arguments, **options), asyncio.get_running_loop().create_future())
        task = asyncio.current_task()
        call = self._calls.get(task) if task is not None else None
        if call is not None and not call.over:
            call.job = job
            call.signal.set()
        else:
            self.mode.spawn(job.run)
        return await job.done  # type: ignore[no-any-return]

    def awaitable(self, function: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
        """A function of threads as the core can await it."""

        async def call(*arguments: Any, **options: Any) -> T:
            return await self.call(function, *arguments, **options)

        return call

    def _begin_posted(self) -> None:
        self._woken = False  # before it looks: what comes later wakes it again
        while self._posted:
            call = self._posted.popleft()
            if call.over:  # its thread has given up
                continue
            self._waiting.add(call)
            try:
                call.begin()
            except Exception as error:
                call.end(None, error)
        self._tell_now()

    def _tell(self, signal: Signal) -> None:
        """Has a thread go on: of several at once the first one when the event loop is done with what it does.

        A thread that is woken asks for the GIL. A single one would take turns with the event loop then, and both would
        wait for each other; of many, the others have enough to do.
        """
        if self._told is not None or self._loop is None or self.error is not None:
            signal.set()
        else:
            self._told = signal
            self._loop.call_soon(self._tell_now)

    def _tell_now(self) -> None:
        told, self._told = self._told, None
        if told is not None:
            told.set()

    # -- starting and stopping ----------------------------------------------------------------------

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self.error is None:
            return self._loop
        with self._lock:  # greenlets, too, stand still for the moment that a thread takes to start
            if self.error is not None:
                raise self._over()
            if self._loop is None:
                self._ended = self.mode.signal()
                started = self.mode.lock()
                started.acquire()
                self.mode.start(lambda: self._main(started))
                started.acquire()
            assert self._loop is not None
            return self._loop

    def _over(self) -> RuntimeError:
        return RuntimeError(f"the client manager does not run any more: {self.error or CLOSED}")

    def _main(self, started: Lock) -> None:
        """The thread of the event loop."""
        try:
            with asyncio.Runner(loop_factory=self.mode.event_loop) as runner:
                self._loop, self._stop = runner.get_loop(), asyncio.Event()
                started.release()
                try:
                    runner.run(self._stop.wait())
                    self.error = CLOSED
                except BaseException as failure:
                    self.error = f"its thread ended by {failure!r}"
                    self._logger().critical("the thread of the client manager ended", exc_info=True)
        finally:
            self.error = self.error or "its thread ended"
            for call in [*self._waiting, *self._posted]:
                call.end(None, self._over())
            self._tell_now()
            assert self._ended is not None
            self._ended.set()

    def stop(self, timeout: float) -> None:
        """Ends the event loop and its thread. Calls that wait get an error.

        :param timeout: how long to wait for it, in seconds.
        """
        if self._loop is None or self._stop is None or self._ended is None or self.error is not None:
            self.error = self.error or CLOSED
            return
        _tell(self._loop, self._stop.set)
        self._ended.wait(timeout)


_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()


def _forked() -> None:
    for bridge in list(_bridges):
        bridge.forked()


def _exit() -> None:
    for bridge in list(_bridges):
        bridge.stop(FAREWELL)


os.register_at_fork(after_in_child=_forked)
atexit.register(_exit)
