from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from chat import CLIENT_FILE, CLIENT_JS
from tests.support.browser import ARGUMENTS, BrowserWindow, OpenWindow, WindowPair, find_chromium
from tests.support.supervisor import Supervisor

from .streaming import Streaming

NO_CHROMIUM = "browser tests were skipped: no Chromium here, and CHROMIUM names none"


@pytest.fixture
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Supervisor]:
    """The local cluster: three nodes and a load balancer."""
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    assert (CLIENT_JS / CLIENT_FILE).exists(), "socket.io-client is not installed: make chat/node_modules/ready"
    supervisor = Supervisor(tmp_path / "output", "--restart-after", str(getattr(request.module, "RESTART_AFTER", 1)))
    try:
        await supervisor.started()
        yield supervisor
    finally:
        supervisor.process.send_signal(signal.SIGCONT)  # a test that failed may have stopped it
        supervisor.stop()
    assert "Traceback" not in supervisor.said(), supervisor.said()


@pytest.fixture
async def streaming(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Streaming]:
    """``examples/streaming``, started by its command. ``ENVIRON`` of the test module adds environment variables."""
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    example = Streaming(tmp_path / "output", **getattr(request.module, "ENVIRON", {}))
    yield example
    example.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def window(cluster: Supervisor, browser: Browser) -> OpenWindow:
    """Opens windows of one browser, with the chat's page."""

    async def open_window(name: str, **context: Any) -> BrowserWindow:
        return await BrowserWindow.open(browser, cluster, name, **context)

    return open_window


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
