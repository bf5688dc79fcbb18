"""The contestants' processes: this module starts and stops them, tells them what to do, and reads what they use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from local.node_js import find_node_js
from local.ports import free_port
from local.processes import die_with_parent

#: Contestants without asyncio: see :mod:`benchmarks.thread_contestant`.
SyncKind = Literal["threads", "threads-redis", "gevent", "gevent-redis", "script", "script-redis"]
#: The contestants: this library and python-socketio's ``AsyncRedisManager``, both on aiohttp and on uvicorn; Node.js
#: with its adapter; and a bare server.
Kind = Literal["recovery", "uvicorn", "redis", "redis-uvicorn", "node", "bare"] | SyncKind

#: What the report calls the contestants.
TITLES: dict[Kind, str] = {
    "recovery": "this library",
    "uvicorn": "this library on uvicorn",
    "redis": "AsyncRedisManager",
    "redis-uvicorn": "AsyncRedisManager on uvicorn",
    "node": "Node's adapter",
    "bare": "bare aiohttp",
}

HERE = Path(__file__).parent
_TICK = os.sysconf("SC_CLK_TCK")


class Usage:
    """How much of the machine a process has used, read from Linux's ``/proc``.

    :param pid: the id of the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def cpu(self) -> float:
        """The processor time it has used so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    @property
    def peak(self) -> int:
        """Its greatest resident memory since :meth:`forget_peak`, in bytes."""
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Lets :attr:`peak` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def memory(self) -> int:
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class BenchNode:
    """One server process of a contestant; it is ready when this object is.

    :param kind: which contestant; ``"writer"`` for a process without a server, which can only emit.
    :param redis: the URL of Redis.
    :param channel: the name of its cluster, which all its nodes share.
    :param config: further configuration; see :mod:`benchmarks.contestant`.
    :raises RuntimeError: if the process ends before it is ready.
    """

    def __init__(self, kind: Kind | Literal["writer"], redis: str, channel: str, **config: Any) -> None:
        self.kind = kind
        self.port = free_port()
        config = {"kind": kind, "redis": redis, "channel": channel, "port": self.port, **config}
        if kind == "node":
            command = [str(find_node_js()), "--expose-gc", str(HERE / "contestant.mjs")]
        else:
            sync = kind in get_args(SyncKind)
            command = [sys.executable, "-m", f"benchmarks.{'thread_contestant' if sync else 'contestant'}"]
        self.process = subprocess.Popen(
            [*command, json.dumps(config)],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=die_with_parent,
        )
        self.usage = Usage(self.process.pid)
        self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends a command. :meth:`answer` waits until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")

    def answer(self) -> dict[str, Any]:
        """Waits for the answer to the last command and returns it.

        :raises RuntimeError: if the process has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            name = TITLES.get(self.kind, self.kind) if self.kind != "writer" else "the writer"
            raise RuntimeError(f"{name}'s process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def emit(
        self,
        count: int,
        room: str | None = None,
        in_flight: int = 64,
        size: int = 100,
        rate: float = 0,
        name: str = "bench",
        rooms: int = 0,
    ) -> None:
        """Tells the process to emit events.

        :meth:`answer` then returns ``start`` and ``end``: when it began, and when all events were stored, by
        :func:`time.monotonic`.

        :param count: how many events.
        :param room: the room they go to; ``None`` for everybody.
        :param in_flight: how many emits to await at the same time.
        :param size: the size of each event's argument as JSON, in bytes.
        :param rate: events per second; 0 for as fast as possible.
        :param name: the name of the event.
        :param rooms: if not 0, the events go to the rooms ``room0``, ``room1``, ... in turn, which are so many.
        """
        self.tell("emit", room=room, count=count, in_flight=in_flight, size=size, rate=rate, name=name, rooms=rooms)

    def memory(self) -> int:
        """Returns the resident memory after a garbage collection, in bytes."""
        self.tell("gc")
        self.answer()
        return self.usage.memory

    def kill(self) -> None:
        """Sends SIGKILL to the process, and waits until it has ended."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Kills the process and closes the pipes to it."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
