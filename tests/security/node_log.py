"""Looks for errors in the log of a node."""

from __future__ import annotations

from tests.support.node_process import NodeProcess


def library_errors(node: NodeProcess) -> list[str]:
    """Returns the errors in a node's log that this library raised or logged. It looks at the last 50 kB.

    When a packet can't be read, python-engineio logs an error with a traceback, in which this library may occur
    because it passed the packet on. The error counts as this library's only if the last frame is in it.
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
