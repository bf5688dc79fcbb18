"""Commands and signals for one of several Redis servers."""

from __future__ import annotations

import signal
from typing import Any

import redis.asyncio

from local.redis_server import RedisServer


async def run(server: RedisServer, command: str, *arguments: Any, password: str | None = None) -> Any:
    """Runs a command on one server, or on a Sentinel."""
    async with redis.asyncio.Redis(port=server.port, password=password, decode_responses=True, protocol=2) as client:
        connection: Any = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
            await connection.send_command(*command.split(), *arguments)
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


def send(server: RedisServer, number: signal.Signals) -> None:
    """Sends a signal to a server's process."""
    assert server.process is not None
    server.process.send_signal(number)


async def clients_of(server: RedisServer, password: str | None = None) -> list[dict[str, str]]:
    """Returns the connections of clients that a server has, as ``CLIENT LIST`` tells them; not that of the question."""
    lines = str(await run(server, "CLIENT LIST TYPE normal", password=password)).splitlines()
    found = [dict(part.split("=", 1) for part in line.split()) for line in lines]
    return [client for client in found if client["cmd"] not in ("client", "client|list")]
