"""Traffic that concerns none of the clients: ``python -m tests.chaos.traffic URL CHANNEL``.

Each line of standard input is a number. So many small events are then emitted to rooms that nobody is in, as fast as
two managers without a server can. The answer is a line, when all are stored. A first line says that the program runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice

from socketio_recovery import AsyncRedisStreamsManager, PublishTimeout

#: How many emits of each manager are awaited at the same time, and how many rooms the events go to.
IN_FLIGHT = 256
ROOMS = 100
TEXT = "x" * 80


async def emit(managers: list[AsyncRedisStreamsManager], numbers: Iterator[int]) -> None:

    async def work(manager: AsyncRedisStreamsManager) -> None:
        for i in numbers:
            with suppress(PublishTimeout):  # nobody misses it
                await manager.emit("e", (f"unrelated.{i}", TEXT), room=f"unrelated{i % ROOMS}")

    await asyncio.gather(*[work(manager) for manager in managers for _ in range(IN_FLIGHT)])


async def main(url: str, channel: str) -> None:
    managers = [AsyncRedisStreamsManager(url, channel, write_only=True) for _ in range(2)]
    numbers = count()  # no two events are the same, not even in different rounds
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await emit(managers, islice(numbers, int(line)))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
