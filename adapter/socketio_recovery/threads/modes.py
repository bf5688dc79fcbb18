"""The two ways in which a synchronous server waits: threads of the operating system, and greenlets of gevent.

The event loop of the bridge has a *native* thread in either: under gevent, too, so that it does not share a thread with
greenlets, whose code would then find a running event loop that is not its own. What waits for the event loop waits as
the server does. Under gevent that is a greenlet, and others go on meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol


class Signal(Protocol):
    """One waits, another one lets it go on. It can be used again and again, by turns."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for :meth:`set`.

        :param timeout: for how long at most, in seconds.
        :returns: false if that was too short.
        """

    def set(self) -> None:
        """Lets the one that waits go on, or the next one that will. It can be called from any thread."""


class Lock(Protocol):
    """For a few lines in which nobody waits."""

    def acquire(self) -> bool: ...

    def release(self) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, type: Any, value: Any, traceback: Any, /) -> Any: ...


class Mode(Protocol):
    """How a server waits."""

    def signal(self) -> Signal:
        """Makes a signal for whoever calls this, to wait for."""

    def lock(self) -> Lock:
        """Makes a lock between native threads."""

    def start(self, work: Callable[[], None]) -> None:
        """Runs ``work`` in a native thread that does not keep the process alive."""

    def spawn(self, work: Callable[[], None]) -> None:
        """Runs ``work`` as a background task of the server."""

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Makes an event loop for a native thread."""


#: Why other modes of python-socketio can't be used, and what can.
_REFUSED = {
    "eventlet": "its own authors discourage new use of eventlet",
    "gevent_uwsgi": "uWSGI has WebSockets of its own, which this library has not been tried with",
}


def mode_of(async_mode: str) -> Mode:
    """The mode of a server.

    :param async_mode: python-socketio's name of it.
    :raises ValueError: for one that is not supported; says why, and what to use.
    """
    if async_mode == "threading":
        return mode_of_process()
    if async_mode == "gevent":
        return Gevent()
    why = _REFUSED.get(async_mode, "this library does not know it")
    raise ValueError(
        f"async_mode={async_mode!r} is not supported: {why}. Use async_mode='threading' (with simple-websocket) or "
        "async_mode='gevent'; for asyncio, use socketio.AsyncServer with AsyncRedisStreamsManager"
    )


def mode_of_process() -> Mode:
    """The mode of threads as this process has them: greenlets, if gevent has patched the standard library."""
    monkey = sys.modules.get("gevent.monkey")
    return Gevent() if monkey is not None and monkey.is_module_patched("threading") else Threading()


class _LockSignal:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float | None = None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0))

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it is set already
            pass


class Threading:
    """Threads of the operating system."""

    def signal(self) -> Signal:
        return _LockSignal()

    def lock(self) -> Lock:
        return threading.Lock()

    def start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="socketio_recovery", daemon=True).start()

    def spawn(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="socketio_recovery handler", daemon=True).start()

    def event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()


class _GeventSignal:
    """One greenlet waits, in the hub's thread. gevent's own ``Event`` takes a turn of the hub more."""

    __slots__ = ("_mode", "_set", "_waiter")

    def __init__(self, mode: Gevent) -> None:
        self._mode = mode
        self._set = False
        self._waiter: Any = None

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set and (timeout is None or timeout > 0):
            self._waiter = waiter = self._mode.waiter()
            timer = None
            if timeout is not None:
                timer = self._mode.hub_loop.timer(timeout)
                timer.start(waiter.switch, None)
            self._mode.begin_wait()
            try:
                waiter.get()
            finally:
                self._mode.end_wait()
                self._waiter = None
                if timer is not None:
                    timer.close()
        done, self._set = self._set, False
        return done

    def set(self) -> None:
        self._mode.hub_loop.run_callback_threadsafe(self._wake)

    def _wake(self) -> None:
        self._set = True
        if self._waiter is not None:
            self._waiter.switch(None)


class Gevent:
    """Greenlets of one thread: the one that makes this object.

    It works whether or not the standard library was patched (``gevent.monkey``).
    """

    def __init__(self) -> None:
        import gevent
        import gevent.hub
        from gevent.monkey import get_original

        self._spawn = gevent.spawn
        self.waiter: Callable[[], Any] = gevent.hub.Waiter
        self.hub_loop = gevent.get_hub().loop
        self._waiting = 0
        self._alive = self.hub_loop.async_()
        self._start: Callable[..., Any] = get_original("_thread", "start_new_thread")
        self._lock: Callable[[], Lock] = get_original("_thread", "allocate_lock")

    def signal(self) -> Signal:
        return _GeventSignal(self)

    def begin_wait(self) -> None:
        """A greenlet waits for a native thread. gevent would else say that it waits for nothing, for ever."""
        self._waiting += 1
        if self._waiting == 1:
            self._alive.start(lambda: None)

    def end_wait(self) -> None:
        """It waits no longer."""
        self._waiting -= 1
        if not self._waiting:
            self._alive.stop()

    def lock(self) -> Lock:
        return self._lock()

    def start(self, work: Callable[[], None]) -> None:
        self._start(work, ())

    def spawn(self, work: Callable[[], None]) -> None:
        self.hub_loop.run_callback_threadsafe(self._spawn, work)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        return _native_loop()


def _native_loop() -> asyncio.AbstractEventLoop:
    """An event loop that does not use what gevent has patched.

    On a patched selector it would wait in a hub of its own, with a greenlet and a timer for each turn: that takes more
    than all else it does. What it needs threads for, names of hosts, would then wait for a hub that does not run.
    """
    from gevent.monkey import get_original

    start_thread = get_original("_thread", "start_new_thread")
    look_up = get_original("socket", "getaddrinfo")

    class NativeLoop(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, *arguments: Any, **options: Any) -> Any:
            found: asyncio.Future[Any] = self.create_future()

            def tell(result: Any, error: Exception | None) -> None:
                if found.done():
                    return
                if error is not None:
                    found.set_exception(error)
                else:
                    found.set_result(result)

            def work() -> None:
                outcome: tuple[Any, Exception | None]
                try:
                    outcome = look_up(*arguments, **options), None
                except Exception as error:
                    outcome = None, error
                with suppress(RuntimeError):  # the event loop has ended
                    self.call_soon_threadsafe(tell, *outcome)

            start_thread(work, ())
            return await found

    return NativeLoop(get_original("selectors", "DefaultSelector")())
