"""The README's animations: a node is killed, its clients carry on. Filmed, not drawn."""

from __future__ import annotations

import asyncio

from playwright.async_api import Browser

from tests.support.browser import WindowPair, agree
from tests.support.supervisor import Supervisor
from tests.support.waiting import until

from .film import Film
from .streaming import Streaming, StreamingPage


async def test_the_film_of_a_recovery(cluster: Supervisor, pair: WindowPair) -> None:
    ann, bob = pair
    await ann.page.set_viewport_size({"width": 1000, "height": 600})
    said: tuple[list[str], list[str]] = ([], [])
    film = Film(ann.page, scale=0.8)

    async def say(who: int, text: str) -> None:
        said[who].append(await pair[who].say(text))
        await ann.shows(text)
        await asyncio.sleep(0.8)  # for whoever watches it later

    await say(0, "Hi Bob. Which node are you on?")
    async with film:
        await say(1, f"On {await bob.node()}. And you?")
        await say(0, f"On {await ann.node()}. Watch: I kill it.")
        # He writes until she is back, as fast as he can.
        await ann.click("#kill")
        for i in range(1, 100):
            said[1].append(await bob.say(f"Still writing, {i}"))
            if i >= 3 and await ann.page.query_selector("#events .recovered"):
                break
        await until(lambda: ann.page.query_selector("#events .recovered"), "recovered")
        await ann.shows(said[1][-1])
        await asyncio.sleep(1)
        await say(0, "Back, on another node. Same session, nothing missed.")
        await asyncio.sleep(1)
    await agree(pair, said)
    film.save("recovery.webp", largest=500_000)


async def test_the_film_of_an_answer(streaming: Streaming, browser: Browser) -> None:
    """Two pages: the node of one is killed in the middle of a sentence, the other is offline for a while."""
    address = await streaming.address()
    small = {"width": 520, "height": 780}
    left = await StreamingPage.open(browser, address, viewport=small)
    right = await StreamingPage.open(browser, address, viewport=small, color_scheme="dark")

    async def apart() -> bool:
        await right.page.reload()
        await right.state("here")
        return await right.node() != await left.node()

    await until(apart, "two nodes")
    node, sid = await left.node(), await right.sid()
    async with Film(left.page, right.page, scale=0.8) as film:
        await asyncio.sleep(0.5)  # for whoever watches it later
        await left.page.click("#questions button")
        await right.has(18)
        await right.page.click("#offline")
        await left.has(38)
        await left.page.click("#kill")
        await left.lost()
        await left.state("here")
        await left.has(76)
        await right.page.click("#offline")
        for page in (left, right):
            await page.page.wait_for_selector(".complete, .faulty", timeout=60_000)
            await page.state("here")
    film.save("streaming.webp", largest=500_000)
    assert await left.words() == await right.words()
    assert await left.node() != node
    assert [(back["sid"], back["recovered"]) for back in await right.recoveries()] == [(sid, "true")]
    for page in (left, right):
        assert (await page.proof()).startswith("✓")
        assert await page.replayed() > 0
        assert page.errors == []
    await streaming.ended()
