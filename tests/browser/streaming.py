"""Runs ``examples/streaming`` by the command of its README, and opens its page."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from local.ports import free_port
from local.processes import running_processes
from tests.support.paths import ROOT
from tests.support.waiting import until

EXAMPLE = ROOT / "examples" / "streaming"


class Streaming:
    """The example: its Redis server, its nodes and its worker.

    :param output: the file for what it prints.
    :param environ: environment variables.
    """

    def __init__(self, output: Path, **environ: str) -> None:
        self.output = output
        self.port = free_port()
        page = (EXAMPLE / "README.md").read_text()
        (command,) = (line for line in page.splitlines() if line.startswith("python -m examples.streaming"))
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *shlex.split(command)[1:], "--port", str(self.port)],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name != "REDIS_URL"} | environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """Returns everything that it has printed so far."""
        return self.output.read_text(errors="replace")

    async def address(self) -> str:
        """Waits until it prints its address, and returns it."""

        def find() -> str | None:
            assert self.process.poll() is None, self.said()
            return next((word for word in self.said().split() if word.startswith("http://")), None)

        return str(await until(find, self.said))

    async def ended(self) -> None:
        """Ends it as a user does, by Ctrl-C, and waits until all of its processes have ended."""
        mine = set(self._descendants())
        self.process.send_signal(signal.SIGINT)
        await until(lambda: self.process.poll() is not None, self.said)
        assert self.process.returncode == 0, self.said()
        assert "Traceback" not in self.said(), self.said()
        assert self.said().splitlines()[-2:] == ["stopping", "stopped"]
        # uvicorn's tracker of resources ends a moment later. What has ended has no command line any more.
        await until(lambda: not mine & {pid for pid, (_, command) in running_processes() if command}, str(mine))

    def stop(self) -> None:
        """Kills what still runs. For the end of a test."""
        for pid in [*self._descendants(), self.process.pid]:  # uvicorn before its workers: it would start them again
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _descendants(self) -> dict[int, tuple[int, str]]:
        running, found = dict(running_processes()), {self.process.pid: (0, "")}
        for _ in range(4):
            found |= {pid: it for pid, it in running.items() if it[0] in found}
        del found[self.process.pid]
        return found


class StreamingPage:
    """The example's page in a browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        #: Exceptions in the page. There should be none.
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @classmethod
    async def open(cls, browser: Browser, address: str, **context: Any) -> StreamingPage:
        """Opens the page in a context of its own, and waits until it is connected."""
        made = cls(await (await browser.new_context(**context)).new_page())
        await made.page.goto(address)
        await made.state("here")
        return made

    async def state(self, state: str) -> None:
        """Waits until the page is in this state: ``"here"``, ``"lost"`` or ``"offline"``."""
        await self.page.wait_for_selector(f"body[data-state={state}]")

    async def lost(self) -> None:
        """Waits until the page says that it lost its connection. It goes on saying so; the state may be over by now."""
        await self.page.wait_for_selector(".mark.lost")

    async def sid(self) -> str:
        return await self.page.inner_text("#sid")

    async def node(self) -> str:
        return await self.page.inner_text("#state")

    async def words(self) -> list[str]:
        """Returns the words of the answers that the page shows, in its order."""
        found: list[str] = await self.page.eval_on_selector_all(".word", "all => all.map((word) => word.textContent)")
        return found

    async def has(self, words: int) -> None:
        """Waits until the page shows so many words."""

        async def enough() -> bool:
            return len(await self.words()) >= words

        await until(enough, f"{words} words")

    async def proof(self) -> str:
        """What the page says of the last answer: how many words came."""
        return (await self.page.locator(".proof").all_inner_texts())[-1]

    async def recoveries(self) -> list[dict[str, str]]:
        """For each time that the connection came back: ``sid``, ``recovered``, ``node``."""
        found: list[dict[str, str]] = await self.page.eval_on_selector_all(
            ".mark.back[data-sid]", "all => all.map((mark) => ({...mark.dataset}))"
        )
        return found

    async def replayed(self) -> int:
        """How many of the words were replayed."""
        return await self.page.locator(".word.replayed").count()
