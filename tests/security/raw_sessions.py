"""Sessions of raw clients: to connect them, and to see whether their node still serves them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.node_process import NodeProcess
from tests.support.raw_client import RawClient, payload, raw


@asynccontextmanager
async def connected(
    node: NodeProcess, auth: dict[str, Any] | None = None, nsp: str = ""
) -> AsyncIterator[tuple[RawClient, Any]]:
    """Opens a raw client and connects it to a namespace.

    :param nsp: the namespace as it is in a packet: ``""``, or ``"/other,"``.
    :returns: the client, and what the server answered: ``sid`` and ``pid``.
    """
    async with raw(node) as client:
        await client.send(f"40{nsp}" + json.dumps(auth or {}))
        yield client, payload(await client.read(), f"40{nsp}")


async def state(client: RawClient, nsp: str = "") -> dict[str, Any]:
    """Asks the node for the state of the client's session."""
    await client.send(f'42{nsp}9["state"]')
    (found,) = payload(await client.read(), f"43{nsp}9")
    assert isinstance(found, dict)
    return found


async def serves(node: NodeProcess, bystander: RawClient, number: int) -> None:
    """Asserts that the node still runs, and still answers another client: the ``bystander``."""
    await bystander.send(f'427["echo",{number}]')
    assert await bystander.read() == f"437[{number}]"
    assert node.process is not None
    assert node.process.poll() is None
