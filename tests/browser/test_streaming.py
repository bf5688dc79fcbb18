"""``examples/streaming`` in a real browser: whatever happens to its connection, each page shows the whole answer."""

from __future__ import annotations

import re
import runpy

from playwright.async_api import Browser

from local.processes import running_processes

from .streaming import EXAMPLE, Streaming, StreamingPage

#: Faster than anybody could read.
ENVIRON = {"PACE": "0.1"}
QUESTION = "What if my server dies?"


def answer() -> list[str]:
    """The words that the worker is to send."""
    return re.findall(r"\s*\S+", runpy.run_path(str(EXAMPLE / "answers.py"))["ANSWERS"][QUESTION])


async def test_a_page_whose_node_is_killed_and_one_that_was_away(streaming: Streaming, browser: Browser) -> None:
    """In the middle of a sentence. A page that comes later reads the history, and goes on with what is being said."""
    address = (await streaming.address()).replace("localhost", "127.0.0.1")  # there, the client minds being offline
    killed, away = [await StreamingPage.open(browser, address) for _ in range(2)]
    elsewhere = await StreamingPage.open(browser, f"{address}?conversation=another")
    sids, node = [await page.sid() for page in (killed, away)], await killed.node()
    expected = answer()

    await killed.page.click(f"#questions :text('{QUESTION}')")
    await away.has(10)
    await away.page.context.set_offline(True)
    await away.state("lost")
    await killed.has(len(await away.words()) + 5)
    await killed.page.click("#kill")
    await killed.lost()
    before = len(await killed.words())
    assert 0 < before < len(expected)
    assert int(node.split()[1]) not in {pid for pid, (_, command) in running_processes() if command}
    await killed.state("here")
    late = await StreamingPage.open(browser, address)
    await killed.has(before + 10)
    assert len(await away.words()) < before
    await away.page.context.set_offline(False)

    for page in (killed, away, late):
        await page.page.wait_for_selector(".complete, .faulty", timeout=30_000)
        await page.state("here")
        assert await page.words() == expected
        total = len(expected)
        assert (await page.proof()).startswith(f"✓ {total} of {total} words in order, none missing, none twice")
        assert page.errors == []
    for page, sid in zip((killed, away), sids, strict=True):
        (back,) = await page.recoveries()
        assert (back["sid"], back["recovered"]) == (sid, "true")
        assert 0 < await page.replayed() < len(expected)
    assert (await killed.recoveries())[0]["node"] != node
    assert await late.recoveries() == []
    assert await late.replayed() == 0
    assert await elsewhere.words() == []
    # The session of a page that was recovered still knows its conversation. All ends in order during an answer, too.
    await killed.page.click(f"#questions :text('{QUESTION}')")
    await late.has(len(expected) + 1)
    await streaming.ended()
