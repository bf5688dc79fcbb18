"""Finds TCP ports that are free on this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection
from contextlib import suppress


def free_port(avoid: Collection[int] = ()) -> int:
    """Returns a TCP port on which no process listens now, and which the system is unlikely to give away soon.

    The port is below those that systems use for outgoing connections (Linux: from 32768 on).

    :param avoid: ports that are reserved for other processes.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            if port not in avoid:
                return port
