"""A real browser for tests: Chromium, and the chat's page in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from .cluster import ROOT, until
from .supervisor import Supervisor

#: Chromium has no sandbox where tests run as root, and is to ask nobody for anything.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SCREENSHOTS = ROOT / "tests" / "screenshots"


def find_chromium() -> str | None:
    """The one that ``CHROMIUM`` names, else one on the PATH."""
    if named := os.environ.get("CHROMIUM"):
        return named
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


class Window:
    """The chat's page in a window of its own, with cookies and storage of its own."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        #: What must not happen: exceptions, and what the content security policy refused.
        self.errors: list[str] = []
        #: Two hands on one keyboard: a click between a focus and a key sends the key elsewhere.
        self._hands = asyncio.Lock()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if "Refused to" in line.text else None)

    @classmethod
    async def open(cls, browser: Browser, cluster: Supervisor, name: str, **context: Any) -> Window:
        """Opens the page, and waits until it is connected."""
        made = await browser.new_context(viewport=context.pop("viewport", {"width": 1180, "height": 720}), **context)
        await made.add_init_script(f"localStorage.getItem('name') || localStorage.setItem('name', {name!r})")
        window = cls(await made.new_page(), name)
        await window.page.goto(cluster.url)
        await window.state("here")
        return window

    async def state(self, state: str) -> None:
        await self.page.wait_for_selector(f"body[data-state={state}]", timeout=30_000)

    async def text(self, selector: str) -> str:
        return await self.page.text_content(selector) or ""

    async def say(self, text: str) -> str:
        async with self._hands:
            await self.page.fill("#text", text)
            await self.page.press("#text", "Enter")
        return text

    async def click(self, selector: str) -> None:
        async with self._hands:
            await self.page.click(selector)

    async def node(self) -> str:
        return await self.text("#node")

    async def conversation(self) -> list[tuple[str, str]]:
        """The messages as they are shown: (id, text)."""
        found: list[list[str]] = await self.page.eval_on_selector_all(
            "#messages > [data-id]", "all => all.map(li => [li.dataset.id, li.querySelector('.text').textContent])"
        )
        return [(id, text) for id, text in found]

    async def texts(self) -> list[str]:
        return [text for _, text in await self.conversation()]

    async def pending(self) -> list[str]:
        return [await item.inner_text() for item in await self.page.query_selector_all("#messages .pending .text")]

    async def shows(self, text: str) -> None:
        """Waits until a message is shown."""
        await until(lambda: self._has(text), f"{self.name} shows {text!r}", patience=30)

    async def _has(self, text: str) -> bool:
        return text in await self.texts()

    async def picture(self, name: str) -> Path:
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        await self.page.screenshot(path=path)
        return path


async def agree(windows: Sequence[Window], said: Sequence[Sequence[str]]) -> None:
    """All windows show the same conversation: all that was said, once each, in order.

    :param said: what each author said, in the order in which they did.
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
