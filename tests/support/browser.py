"""Opens the chat's page in a real browser, Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from .paths import ROOT
from .supervisor import Supervisor
from .waiting import until

#: Chromium can't use its sandbox when tests run as root. It must not send requests of its own.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SCREENSHOTS = ROOT / "tests" / "screenshots"


def find_chromium() -> str | None:
    """Returns the path in the variable ``CHROMIUM``, or else of a Chromium on the PATH; ``None`` if there is none."""
    if named := os.environ.get("CHROMIUM"):
        return named
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class BrowserWindow:
    """A browser window with the chat's page. Each window has its own cookies and storage, as a user of its own."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        #: Exceptions in the page, and loads that the content security policy refused. There should be none.
        self.errors: list[str] = []
        #: Held while typing: a click between setting the focus and pressing a key would send the key elsewhere.
        self._hands = asyncio.Lock()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if "Refused to" in line.text else None)

    @classmethod
    async def open(cls, browser: Browser, cluster: Supervisor, name: str, **context: Any) -> BrowserWindow:
        """Opens the page, and waits until it is connected."""
        made = await browser.new_context(viewport=context.pop("viewport", {"width": 1180, "height": 720}), **context)
        await made.add_init_script(f"localStorage.getItem('name') || localStorage.setItem('name', {name!r})")
        window = cls(await made.new_page(), name)
        await window.page.goto(cluster.url)
        await window.state("here")
        return window

    async def state(self, state: str) -> None:
        """Waits until the page shows this connection state: ``"here"``, ..."""
        await self.page.wait_for_selector(f"body[data-state={state}]", timeout=30_000)

    async def text(self, selector: str) -> str:
        """Returns the text of an element."""
        return await self.page.text_content(selector) or ""

    async def say(self, text: str) -> str:
        """Types a message and sends it; returns its text."""
        async with self._hands:
            await self.page.fill("#text", text)
            await self.page.press("#text", "Enter")
        return text

    async def click(self, selector: str) -> None:
        async with self._hands:
            await self.page.click(selector)

    async def node(self) -> str:
        """Returns the name of the node that the page is connected to."""
        return await self.text("#node")

    async def conversation(self) -> list[tuple[str, str]]:
        """Returns the messages as the page shows them: (id, text)."""
        found: list[list[str]] = await self.page.eval_on_selector_all(
            "#messages > [data-id]", "all => all.map(li => [li.dataset.id, li.querySelector('.text').textContent])"
        )
        return [(id, text) for id, text in found]

    async def texts(self) -> list[str]:
        """Returns the texts of the messages that the page shows."""
        return [text for _, text in await self.conversation()]

    async def pending(self) -> list[str]:
        """Returns the texts of messages that no node has taken yet."""
        return [await item.inner_text() for item in await self.page.query_selector_all("#messages .pending .text")]

    async def shows(self, text: str) -> None:
        """Waits until the page shows a message."""
        await until(lambda: self._has(text), f"{self.name} shows {text!r}", patience=30)

    async def _has(self, text: str) -> bool:
        return text in await self.texts()

    async def picture(self, name: str) -> Path:
        """Takes a screenshot, into ``tests/screenshots``."""
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        await self.page.screenshot(path=path)
        return path


#: The type of the fixture ``window``: opens a window.
OpenWindow = Callable[..., Awaitable[BrowserWindow]]
#: The type of the fixture ``pair`` of the browser tests.
WindowPair = tuple[BrowserWindow, BrowserWindow]


async def agree(windows: Sequence[BrowserWindow], said: Sequence[Sequence[str]]) -> None:
    """Waits until all windows show the same conversation: every message once, in the order of its author.

    :param said: for each author, the texts in the order in which the author said them.
    """
    everything = sorted(text for author in said for text in author)

    async def complete() -> bool:
        return all([sorted(set(await window.texts())) == everything for window in windows])

    async def got() -> list[list[str]]:
        return [await window.texts() for window in windows]

    try:
        await until(complete, patience=30)
    except AssertionError:
        raise AssertionError(f"expected {everything}, got {await got()}") from None
    first = await windows[0].conversation()
    assert len({id for id, _ in first}) == len(first) == len(everything)
    for author in said:
        assert [text for _, text in first if text in author] == list(author)
    for window in windows:
        assert await window.conversation() == first
        assert await window.pending() == []
        proof = {name: int(await window.text(f"#{name}")) for name in ("seen", "missing", "doubled")}
        assert proof == {"seen": len(everything), "missing": 0, "doubled": 0}, f"{window.name}: {proof}"
        assert window.errors == []
