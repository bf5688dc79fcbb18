"""The contestants' processes: started, told what to do, looked at, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from chat.__main__ import die_with_parent
from chat.redis_server import free_port
from tests.support.cluster import find_node_js

Kind = Literal["recovery", "redis", "node", "bare"]

#: What the report calls them.
TITLES: dict[Kind, str] = {
    "recovery": "this library",
    "redis": "AsyncRedisManager",
    "node": "Node's adapter",
    "bare": "bare aiohttp",
}

HERE = Path(__file__).parent
_TICK = os.sysconf("SC_CLK_TCK")


class Usage:
    """What a process has taken of the machine. From Linux's /proc."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def cpu(self) -> float:
        """Processor time, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    @property
    def memory(self) -> int:
        """Resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class BenchNode:
    """One server process of a contestant.

    :param kind: which.
    :param redis: URL of Redis.
    :param channel: a name for its cluster.
    """

    def __init__(self, kind: Kind, redis: str, channel: str, **config: Any) -> None:
        self.kind = kind
        self.port = free_port()
        config = {"kind": kind, "redis": redis, "channel": channel, "port": self.port, **config}
        if kind == "node":
            command = [str(find_node_js()), "--expose-gc", str(HERE / "contestant.mjs")]
        else:
            command = [sys.executable, "-m", "benchmarks.contestant"]
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
        """Tells it what to do; :meth:`answer` waits until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{TITLES[self.kind]}'s process ended with status {self.process.wait()}")
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
        """Tells it to emit; :meth:`answer` says when it began and when all were stored (time.monotonic)."""
        self.tell("emit", room=room, count=count, in_flight=in_flight, size=size, rate=rate, name=name, rooms=rooms)

    def memory(self) -> int:
        """Resident memory after a garbage collection, in bytes."""
        self.tell("gc")
        self.answer()
        return self.usage.memory

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
