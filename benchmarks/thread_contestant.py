"""A synchronous contestant: as :mod:`benchmarks.contestant`, with the same commands, but without asyncio.

python -m benchmarks.thread_contestant '{"kind": "threads", "redis": ..., "port": ..., ...}'

``kind`` says how it serves: ``threads`` is ``async_mode="threading"`` on Werkzeug's server, with a thread for each
connection; ``gevent`` is gevent's server with the standard library patched; ``script`` is a process without a server,
whose manager is write-only. They have this library's ``RedisStreamsManager``. With ``-redis`` behind it, each of them
has python-socketio's ``RedisManager``.
"""

from __future__ import annotations

import sys

if '"kind": "gevent' in sys.argv[1]:
    from gevent import monkey

    monkey.patch_all()

import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .event import event_argument

config = json.loads(sys.argv[1])
mode, _, peer = config["kind"].partition("-")

#: An emit of one event: its name, its argument and its room.
Emit = Callable[[str, dict[str, Any], str | None], None]


def new_manager(**options: Any) -> Any:
    """The client manager of this contestant."""
    options = {"channel": config["channel"], **options}
    if peer:
        import socketio

        return socketio.RedisManager(config["redis"], **options)
    import socketio_recovery

    return socketio_recovery.RedisStreamsManager(config["redis"], **options)


class Server:
    """A Socket.IO server. The application is that of :mod:`benchmarks.contestant`."""

    def __init__(self) -> None:
        import socketio

        self.manager = manager = new_manager(**({} if peer else config.get("manager", {})))
        self.sio = sio = socketio.Server(
            async_mode="gevent" if mode == "gevent" else "threading",
            client_manager=manager,
            cors_allowed_origins="*",
            **config.get("server", {}),
        )

        @sio.event  # type: ignore[untyped-decorator]
        def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
            if not peer and manager.recovered(sid):
                return
            for room in (auth or {}).get("rooms", ()):
                sio.enter_room(sid, room)

        if peer:
            sio.manager_initialized = True  # else the server would do it again with the first client
            manager.initialize()
        else:
            manager.start()
        self._serve(socketio.WSGIApp(sio))

    def _serve(self, app: Any) -> None:
        listener = socket.create_server(("127.0.0.1", config["port"]), backlog=4096)
        if mode == "gevent":
            from gevent.pywsgi import WSGIServer

            WSGIServer(listener, app, log=None).start()
        else:
            from werkzeug.serving import WSGIRequestHandler, make_server

            class Silent(WSGIRequestHandler):
                def log(self, type: str, message: str, *args: Any) -> None:
                    pass

            self.listener = listener  # the server has a duplicate
            server = make_server("127.0.0.1", 0, app, True, request_handler=Silent, fd=listener.fileno())
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def emit(self, name: str, data: dict[str, Any], room: str | None) -> None:
        self.sio.emit(name, data, to=room)


class Script:
    """A write-only manager, in a process that has nothing else. It is made with the first emit."""

    def __init__(self) -> None:
        self.manager: Any = None

    def emit(self, name: str, data: dict[str, Any], room: str | None) -> None:
        self.manager.emit(name, data, room=room)

    def first(self) -> dict[str, float]:
        """Imports the library, makes the manager and emits once; says what each of the two steps costs."""
        start, before = time.monotonic(), memory()
        new_manager(write_only=True)
        imported, loaded = time.monotonic(), memory()
        self.manager = new_manager(write_only=True)
        self.emit("other", event_argument(100), "nobody")
        return {
            "import ms": 1000 * (imported - start),
            "import MB": (loaded - before) / 1e6,
            "ms": 1000 * (time.monotonic() - imported),
            "MB": (memory() - loaded) / 1e6,
        }


def memory() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def emit(
    do: Emit, room: str | None, count: int, in_flight: int, size: int, rate: float, name: str, rooms: int
) -> dict[str, float]:
    """Emits events; :meth:`benchmarks.processes.BenchNode.emit` explains the parameters. ``in_flight`` are threads.

    :returns: when the first emit began and when all were done, by :func:`time.monotonic`, and the processor time.
    """
    data = event_argument(size)
    numbers = iter(range(count))  # next() of it is atomic
    errors: list[BaseException] = []
    cpu, start = time.process_time(), time.monotonic()

    def work() -> None:
        try:
            for i in numbers:
                if rate and (wait := start + i / rate - time.monotonic()) > 0:
                    time.sleep(wait)
                where = f"room{i % rooms}" if rooms else room
                do(name, {**data, "t": time.monotonic_ns()}, where)
        except BaseException as error:
            errors.append(error)
            raise

    if in_flight == 1:
        work()
    else:
        threads = [threading.Thread(target=work) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return {"start": start, "end": time.monotonic(), "cpu": time.process_time() - cpu}


def main() -> None:
    contestant: Server | Script = Script() if mode == "script" else Server()
    lines: Any = sys.stdin
    if mode == "gevent":
        from gevent.fileobject import FileObject

        lines = FileObject(sys.stdin.fileno(), "r", close=False)
    print(json.dumps({"ready": True}), flush=True)
    for line in lines:
        command = json.loads(line)
        do = command.pop("do")
        answer: dict[str, Any] = {}
        if do == "emit":
            answer = emit(contestant.emit, **command)
        elif do == "first" and isinstance(contestant, Script):
            answer = contestant.first()
        elif do == "gc":
            gc.collect()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
