from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from chat import CLIENT_FILE, CLIENT_JS
from tests.support.browser import ARGUMENTS, BrowserWindow, OpenWindow, WindowPair, find_chromium
from tests.support.supervisor import Supervisor


@pytest.fixture
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Supervisor]:
    """The local cluster: three nodes and a load balancer."""
    if find_chromium() is None:
        pytest.skip("browser tests were skipped: no Chromium here, and CHROMIUM names none")
    assert (CLIENT_JS / CLIENT_FILE).exists(), "socket.io-client is not installed: make chat/node_modules/ready"
    supervisor = Supervisor(tmp_path / "output", "--restart-after", str(getattr(request.module, "RESTART_AFTER", 1)))
    try:
        await supervisor.started()
        yield supervisor
    finally:
        supervisor.stop()
    assert "Traceback" not in supervisor.said(), supervisor.said()


@pytest.fixture
async def window(cluster: Supervisor) -> AsyncIterator[OpenWindow]:
    """Opens windows of one browser, with the chat's page."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)

        async def open_window(name: str, **context: Any) -> BrowserWindow:
            return await BrowserWindow.open(browser, cluster, name, **context)

        yield open_window
        await browser.close()


@pytest.fixture
async def pair(window: OpenWindow) -> WindowPair:
    """Two windows that are connected to different nodes."""
    ann = await window("Ann")
    for _ in range(10):
        bob = await window("Bob")
        if await bob.node() != await ann.node():
            return ann, bob
        await bob.page.context.close()
    raise AssertionError("both come to the same node")
