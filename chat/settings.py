"""A node's configuration, which it reads from environment variables and checks. README.md has the same list.

=====================  =============================================================  ==============================
``NODE_NAME``          the node's name on the pages; each node needs its own          the machine's name
``HOST``               the address the node listens on                                ``127.0.0.1``
``PORT``               the port it listens on                                         ``8000``
``REDIS_URL``          the Redis that all nodes share                                 ``redis://localhost:6379/0``
``CLIENT_JS``          the ``dist`` folder of ``socket.io-client``                    where ``make chat`` installs it
``DEMO``               ``1`` lets anybody kill nodes from the page                    ``0``
``RECOVER_WITHIN``     how long after losing its connection a client can recover      ``120``
                       its session, in seconds
``SESSION_HEARTBEAT``  how often the node refreshes its sessions, in seconds. A node  ``2.5``
                       that dies is noticed after three fifths of it and a second
``DRAIN_OVER``         how long the node takes to close its connections after         ``0.5``
                       SIGTERM, in seconds
``MAX_LAG``            the node is not ready while it is further behind the log       ``5``
                       than this, in seconds
``MESSAGE_RATE``       how many messages per second one client may send on            ``10``
                       average; three times as many at once
``LOG_LEVEL``          ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``                  ``INFO``
=====================  =============================================================  ==============================
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import CLIENT_JS


@dataclass(frozen=True)
class ChatSettings:
    """A node's configuration. The top of this file explains the fields."""

    name: str
    host: str
    port: int
    redis_url: str
    client_js: Path
    demo: bool
    recover_within: float
    session_heartbeat: float
    drain_over: float
    max_lag: float
    message_rate: float
    log_level: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ChatSettings:
        """Reads the settings from environment variables; those that are missing or empty have their defaults.

        :raises ValueError: if a value is not allowed. The message names the variable.
        """

        def number(name: str, default: float, least: float, most: float) -> float:
            text = environ.get(name) or str(default)
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not least <= value <= most:
                raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {text!r}")
            return value

        name = environ.get("NODE_NAME") or platform.node() or "node"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name):
            raise ValueError(f"NODE_NAME must be 1 to 40 letters, digits, dots, hyphens or underscores, not {name!r}")
        demo = environ.get("DEMO") or "0"
        if demo not in ("0", "1"):
            raise ValueError(f"DEMO must be 0 or 1, not {demo!r}")
        level = (environ.get("LOG_LEVEL") or "INFO").upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError(f"LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not {level!r}")
        port = number("PORT", 8000, 1, 65535)
        if port != int(port):
            raise ValueError(f"PORT must be a whole number, not {port:g}")
        return cls(
            name=name,
            host=environ.get("HOST") or "127.0.0.1",
            port=int(port),
            redis_url=environ.get("REDIS_URL") or "redis://localhost:6379/0",
            client_js=Path(environ.get("CLIENT_JS") or CLIENT_JS),
            demo=demo == "1",
            recover_within=number("RECOVER_WITHIN", 120, 1, 86400),
            session_heartbeat=number("SESSION_HEARTBEAT", 2.5, 0.1, 3600),
            drain_over=number("DRAIN_OVER", 0.5, 0, 3600),
            max_lag=number("MAX_LAG", 5, 0.1, 3600),
            message_rate=number("MESSAGE_RATE", 10, 0.1, 1000000),
            log_level=level,
        )
