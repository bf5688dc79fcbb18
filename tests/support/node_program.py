"""The program of a node under test: a real server, and a port by which tests control it (:mod:`.node_control`).

    python -m tests.support.node_program '{"port": ..., "control": ..., "redis": ..., "node": "a"}'

``"server_kind": "uvicorn"`` chooses one of :data:`.node_servers.SERVERS`; aiohttp is the default.
``"manager": {...}`` and ``"server": {...}`` have options of the manager and of the server.
``"verbose": true`` logs everything, including what python-socketio and python-engineio log.
``"metrics": true`` and ``"tracing": true`` are for :mod:`.observed`.
``"pubsub": true`` takes python-socketio's own ``AsyncRedisManager``.
``"instrument": {...}`` calls ``sio.instrument()`` with these arguments, for the Socket.IO Admin UI.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from .node_control import shift_clock
from .node_servers import SERVERS


def run(config: dict[str, Any]) -> None:
    """Runs a node until a signal ends it."""
    if "clock" in config:
        shift_clock(config["clock"])
    level = logging.DEBUG if config.get("verbose") else logging.INFO
    logging.basicConfig(level=level, format=f"{config['node']} %(levelname)s %(name)s: %(message)s")
    SERVERS[config.get("server_kind", "aiohttp")](config)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
