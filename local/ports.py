"""TCP ports for servers on this machine: finds a free one, checks one that was chosen."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def free_port(avoid: Collection[int] = (), second: int = 0) -> int:
    """Returns a TCP port on which no program listens, and that no other caller was given.

    A server binds its port a little later than it is chosen. So the port is kept for the calling process, until that
    ends: test processes that run side by side never choose the same one. It is below the ports that systems take for
    outgoing connections (Linux: from 32768 on).

    :param avoid: ports that are reserved for other processes.
    :param second: how much higher another port is that the server needs, too; 0 for none.
    """
    with registry_path().open("a+") as registry:
        fcntl.flock(registry, fcntl.LOCK_EX)
        registry.seek(0)
        # A process that was killed while it wrote leaves half a line.
        noted = [(int(match[1]), int(match[2])) for line in registry if (match := re.fullmatch(r"(\d+) (\d+)\n", line))]
        kept = [(port, pid) for port, pid in noted if _lives(pid)]
        taken = {port for port, _ in kept} | set(avoid)
        while True:
            port = 15_000 + secrets.randbelow(17_000 - second)
            chosen = {port, port + second}
            if not chosen & taken and all(map(_can_bind, chosen)):
                break
        registry.truncate(0)
        registry.writelines(f"{port} {pid}\n" for port, pid in [*kept, *((port, os.getpid()) for port in chosen)])
        return port


def _can_bind(port: int) -> bool:
    with socket.socket() as s, suppress(OSError):
        s.bind(("127.0.0.1", port))
        return True
    return False


def check_port(host: str, port: int) -> None:
    """Checks that a server can listen on this address and port.

    :raises OSError: if it can't, for instance because another program uses the port. The message is for the user.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(address)
            # Two sockets may be bound to the same port, but only one may listen. So bind() alone would prove nothing.
            s.listen()
    except OSError as error:
        raise OSError(f"can't listen on {host} port {port}: {error.strerror}; choose another with --port") from None


def registry_path() -> Path:
    """The file in which this user's processes note the ports that they were given."""
    return Path(tempfile.gettempdir()) / f"socketio-recovery-ports-{os.getuid()}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
