"""What the tests of security share."""

from __future__ import annotations

from tests.cluster.test_raw import Raw
from tests.support.cluster import Node


def ours(node: Node) -> list[str]:
    """The errors in a node's log that this library raised, or logged.

    A packet that can't be read is an error that python-engineio logs, with a traceback through whoever passed
    the packet on. It is this library's only if the last frame is. Looks at the last 50 kB.
    """
    found: list[str] = []
    last = ""
    with node.log_file.open("rb") as log:
        log.seek(max(0, node.log_file.stat().st_size - 50_000))
        lines = log.read().decode(errors="replace").splitlines()
    for line in lines:
        if line.startswith("  File "):
            last = line
        elif last and line and not line.startswith(" "):
            if "socketio_recovery" in last:
                found.append(f"{last}: {line}")
            last = ""
        if line.startswith((f"{node.name} ERROR recovery: ", f"{node.name} WARNING recovery: ")):
            found.append(line)
    return found


async def serves(node: Node, bystander: Raw, number: int) -> None:
    """The node still serves somebody else."""
    await bystander.send(f'427["echo",{number}]')
    assert await bystander.read() == f"437[{number}]"
    assert node.process is not None
    assert node.process.poll() is None
