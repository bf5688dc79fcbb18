"""Runs one node of the chat: a process with an aiohttp server. ``python -m chat.node``

Environment variables configure it; :mod:`chat.settings` lists them.
"""

from __future__ import annotations

import os
import sys

from aiohttp import web
from socketio_recovery import tuning

from . import CLIENT_FILE, journal
from .events import Chat
from .pages import application
from .settings import ChatSettings


def main() -> int:
    """Runs the node until a signal ends it.

    :returns: the exit status: 0, or 1 if the node could not start; standard error says why.
    """
    try:
        settings = ChatSettings.of(os.environ)
        journal.configure(settings.log_level)
        if not (settings.client_js / CLIENT_FILE).exists():
            raise FileNotFoundError("socket.io-client is not installed: run `make chat`")

        async def serve() -> web.Application:
            return application(Chat(settings))

        tuning.allow_files()
        tuning.collect_less()
        web.run_app(
            serve(),
            host=settings.host,
            port=settings.port,
            print=None,
            access_log=None,
            shutdown_timeout=1,
            backlog=tuning.backlog(),
        )
    except (OSError, ValueError) as error:
        print(f"chat.node: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
