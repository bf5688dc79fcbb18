"""Films pages for the README: screenshots, one after the other, as an animated picture."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from PIL import Image
from playwright.async_api import Page

from tests.support.browser import SCREENSHOTS


class Film:
    """Films while it is entered (``async with``), as many pictures as the machine can take.

    :param pages: shown side by side, each in the size of its viewport.
    :param scale: how large the film is, beside the pages.
    """

    #: How long the last picture stays, in seconds.
    END = 3.0

    def __init__(self, *pages: Page, scale: float) -> None:
        self.pages = pages
        self.scale = scale
        self._frames: list[tuple[float, Sequence[bytes]]] = []
        self._done = asyncio.Event()
        self._filming: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Film:
        self._filming = asyncio.create_task(self._film())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        assert self._filming is not None
        await self._filming

    async def _film(self) -> None:
        while not self._done.is_set():
            at = monotonic()
            self._frames.append((at, await asyncio.gather(*(page.screenshot(type="png") for page in self.pages))))

    def save(self, name: str, largest: int) -> None:
        """Writes the film into ``tests/screenshots``.

        :param largest: how many bytes it may have: a README is to load quickly.
        """
        pictures: list[Image.Image] = []
        starts: list[float] = []
        for at, pngs in self._frames:
            picture = self._picture(pngs)
            if not pictures or picture.tobytes() != pictures[-1].tobytes():
                pictures.append(picture)
                starts.append(at)
        ends = [*starts[1:], self._frames[-1][0] + self.END]
        lengths = [max(20, round((end - start) * 1000)) for start, end in zip(starts, ends, strict=True)]
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / name
        # Each picture is stored as its difference from the one before: half of the size.
        how: dict[str, Any] = {"quality": 60, "method": 4, "minimize_size": True}
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lengths, loop=0, **how)
        assert path.stat().st_size < largest

    def _picture(self, pngs: Sequence[bytes]) -> Image.Image:
        parts = [Image.open(io.BytesIO(png)).convert("RGB") for png in pngs]
        whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)))
        left = 0
        for part in parts:
            whole.paste(part, (left, 0))
            left += part.width
        size = round(whole.width * self.scale), round(whole.height * self.scale)
        return whole.resize(size, Image.Resampling.LANCZOS)
