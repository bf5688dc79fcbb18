"""Runs the examples for uvicorn, gunicorn and hypercorn of ``docs/deploying.md``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from .page import blocks, replaced
from .program import Program

SECTION = "uvicorn, gunicorn and hypercorn"
#: What the example's handlers would be: a client asks which worker it is connected to, and who left is in the log.
HANDLERS = """
import os

@sio.event
async def state(sid):
    return {"process": os.getpid(), "recovered": manager.recovered(sid)}


@sio.event
async def disconnect(sid, reason):
    print("left", sid, reason, flush=True)
"""
#: How the page's first command is told from the second.
WORKERS = "--workers"


class Example(Program):
    """The page's ``main.py``, run by one of its commands.

    :param program: ``"uvicorn"``, ``"gunicorn"`` or ``"hypercorn"``, and options beside those of the page. With
        ``--workers``, the page's command that has it.
    :param redis: URL of the Redis server.
    :param channel: the name of the cluster.
    :param folder: for the files.
    :param over: how long the node drains, in seconds.
    :param polling: also allow HTTP long-polling.
    """

    def __init__(
        self, program: str, redis: str, channel: str, folder: Path, over: float = 10, polling: bool = False
    ) -> None:
        super().__init__(folder, folder / "log")
        name, *options = program.split()
        texts = blocks(SECTION, "python")
        main = texts[0]
        manager = f"{json.dumps(redis)}, channel={json.dumps(channel)}"
        main = replaced(main, {'"redis://localhost:6379/0"': manager, "app = ": HANDLERS + "\n\napp = "})
        if polling:
            main = replaced(main, {', transports=["websocket"]': ""})
        if name == "hypercorn":
            self.command = ["main.py", *options]
            main = replaced(main, {"    drain_on_sigterm(manager, over=10)": "    #"})
            main += replaced(texts[1], {"127.0.0.1:8000": f"127.0.0.1:{self.port}"})
        else:
            self.command = ["-m", *self._command(name, [o for o in options if o != WORKERS], WORKERS in options)]
        self.workers = 2 if WORKERS in options or name == "gunicorn" else 1
        (folder / "main.py").write_text(replaced(main, {"over=10": f"over={over}"}))

    def _command(self, name: str, options: list[str], several: bool) -> list[str]:
        (commands,) = blocks(SECTION, "console")
        found = [line for line in commands.splitlines() if line.startswith(name + " ")]
        line = next(line for line in found if name == "gunicorn" or (WORKERS in line) is several)
        line = replaced(line, {"8000": str(self.port)} | ({"--workers 4": "--workers 2"} if WORKERS in line else {}))
        return [*shlex.split(line), *options]

    async def run(self) -> Example:
        """Starts it, and waits until all workers serve clients."""
        await self.start(self.command)
        return self

    def all_started(self) -> bool:
        return self.workers == 1 or len(re.findall("Application startup complete", self.log())) == self.workers
