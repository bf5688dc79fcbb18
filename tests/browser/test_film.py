"""The README's animation: a node is killed, its client carries on. Filmed, not drawn."""

from __future__ import annotations

import asyncio
import io
from time import monotonic

from PIL import Image

from tests.support.browser import SCREENSHOTS, WindowPair, agree
from tests.support.supervisor import Supervisor
from tests.support.waiting import until

#: Bytes: a README is to load quickly.
SMALL = 1_000_000


async def test_the_film_of_a_recovery(cluster: Supervisor, pair: WindowPair) -> None:
    ann, bob = pair
    await ann.page.set_viewport_size({"width": 1000, "height": 600})
    said: tuple[list[str], list[str]] = ([], [])
    frames: list[tuple[float, bytes]] = []
    done = asyncio.Event()

    async def film() -> None:
        while not done.is_set():
            frames.append((monotonic(), await ann.page.screenshot(type="png")))

    async def say(who: int, text: str) -> None:
        said[who].append(await pair[who].say(text))
        await ann.shows(text)
        await asyncio.sleep(0.8)  # for whoever watches it later

    await say(0, "Hi Bob. Which node are you on?")
    filming = asyncio.create_task(film())
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
    done.set()
    await filming
    await agree(pair, said)

    pictures = [
        Image.open(io.BytesIO(png)).convert("RGB").resize((800, 480), Image.Resampling.LANCZOS) for _, png in frames
    ]
    ends = [at for at, _ in frames[1:]] + [frames[-1][0] + 3]
    lengths = [max(20, round((end - at) * 1000)) for (at, _), end in zip(frames, ends, strict=True)]
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / "recovery.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lengths, loop=0, quality=60, method=4)
    assert path.stat().st_size < SMALL
