"""The pages themselves: what they show, in which words, and how they look."""

from __future__ import annotations

from tests.support.browser import BrowserWindow, OpenWindow, WindowPair, agree
from tests.support.supervisor import Supervisor
from tests.support.waiting import until

#: How long a killed node stays away, in seconds: long enough to be seen.
RESTART_AFTER = 10
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


async def test_hostile_text_is_text(pair: WindowPair) -> None:
    ann, bob = pair
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    await bob.page.fill("#name", "<b onclick=alert(3)>Bob</b>")
    await bob.page.press("#name", "Enter")
    said = [await bob.say(evil)]
    await agree(pair, (said,))
    await ann.page.wait_for_selector("#people :text('<b onclick=alert(3)>Bob</b>')")
    assert await ann.page.query_selector("#messages img, #messages script, #people b") is None


async def test_rooms(pair: WindowPair) -> None:
    ann, bob = pair
    await ann.page.fill("#room", "Ops Team")
    await ann.page.press("#room", "Enter")
    await ann.page.wait_for_selector("#rooms .current [data-room=ops-team]")
    await ann.say("only here")
    await bob.say("in the lobby")
    await ann.page.wait_for_selector("#rooms [data-room=lobby] .badge:text('1')")
    await bob.shows("in the lobby")
    assert await bob.texts() == ["in the lobby"]

    await ann.click("#drop")  # rooms are kept
    await until(lambda: ann.page.query_selector("#events .recovered"), "recovered")
    await bob.page.fill("#room", "ops-team")
    await bob.page.press("#room", "Enter")
    await bob.shows("only here")  # what was said lately
    await bob.say("me too")
    await ann.shows("me too")
    await ann.click("#rooms [data-room=lobby]")
    await ann.shows("in the lobby")
    await until(lambda: _no_badge(ann), "no unread messages")
    await ann.click("#rooms .leave")
    await bob.page.wait_for_selector("#people-count:text('1')")
    await bob.say("alone")
    await bob.shows("alone")
    assert "alone" not in await ann.texts()
    assert ann.errors == bob.errors == []


async def _no_badge(window: BrowserWindow) -> bool:
    return await window.page.query_selector("#rooms .badge") is None


async def test_a_tab_that_is_closed_is_gone(pair: WindowPair) -> None:
    """Nobody waits for who left; who reloads is there once, and is still the author of what they said."""
    ann, bob = pair
    await bob.page.wait_for_selector("#people li:nth-child(2)")
    await ann.say("mine")
    await ann.shows("mine")
    await ann.page.reload()
    await ann.state("here")
    await ann.page.wait_for_selector("#messages .mine")
    await bob.page.wait_for_selector("#people [data-state=here]:nth-child(2)")
    await ann.page.close(run_before_unload=True)
    await bob.page.wait_for_selector("#people li:only-child")


async def test_chinese_on_a_phone(window: OpenWindow) -> None:
    page = (wei := await window("张伟", locale="zh-CN", **PHONE)).page
    assert await page.get_attribute("html", "lang") == "zh-CN"
    assert await page.inner_text("#say button") == "发送"
    await wei.say("大家好")
    await wei.shows("大家好")
    assert not await page.is_visible("#panel")
    await page.click("#open-panel")
    await page.wait_for_selector("#panel:visible")
    assert await page.get_attribute("#open-panel", "aria-expanded") == "true"
    await page.press("body", "Escape")
    await page.wait_for_selector("#panel", state="hidden")
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width == 390
    assert wei.errors == []


async def test_every_control_has_a_name(window: OpenWindow) -> None:
    ann = await window("Ann")
    nameless = await ann.page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, [role=img], [role=log]")].filter((e) =>
          !(e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels[0]?.textContent.trim()))
        ).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    untranslated = await ann.page.evaluate(
        "() => [...document.querySelectorAll('[data-t]')].filter((e) => !e.textContent).map((e) => e.dataset.t)"
    )
    assert untranslated == []
    # Enter writes, and the keyboard reaches everything.
    await ann.page.focus("#name")
    reached = set()
    for _ in range(14):
        await ann.page.keyboard.press("Tab")
        reached.add(await ann.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"room", "messages", "text", "drop", "kill", "toggle"} <= reached, reached


async def test_the_cluster_view(cluster: Supervisor, pair: WindowPair) -> None:
    ann, _ = pair
    node = await ann.node()
    page = await ann.page.context.new_page()
    await page.goto(cluster.url + "/cluster")
    await page.wait_for_selector("#nodes .up:nth-child(3)")
    await page.wait_for_selector("[data-total=total-here] b:text('2')")
    await page.click(f"[data-kill={node}]")
    await page.wait_for_selector(f"#nodes .down[data-name={node}]")
    await ann.page.bring_to_front()
    await until(lambda: ann.page.query_selector("#events .recovered"), "recovered")
    await page.bring_to_front()
    await page.wait_for_selector("#news .recovered:has-text('Ann')")
    await page.wait_for_selector(f"#nodes .up[data-name={node}]", timeout=20_000)
    await page.wait_for_selector("#outcomes .recovered b:text('1')")


async def test_how_the_states_look(cluster: Supervisor, pair: WindowPair, window: OpenWindow) -> None:
    """Pictures of the main states, for people to look at: tests/screenshots."""
    ann, bob = pair
    dark = await window("Dana", color_scheme="dark")
    wei = await window("张伟", locale="zh-CN", **PHONE)
    windows = (ann, bob, dark, wei)
    said: list[list[str]] = [[], [], [], []]

    async def say(who: int, text: str) -> None:
        said[who].append(await windows[who].say(text))
        for other in windows:
            await other.shows(text)

    await ann.picture("empty")
    await say(0, "Morning! Is the deploy through?")
    await say(1, "Going out now, one node after the other.")
    await say(3, "我这边一切正常。")
    await say(2, "Nobody will notice.")
    await dark.page.type("#text", "And ")
    await ann.page.wait_for_selector("#typing:not(:empty)")
    await ann.picture("talking")
    await dark.click("#toggle")
    await dark.state("left")
    said[2].append(await dark.say("I left, so this waits."))
    said[1].append(await bob.say("Dana?"))
    await bob.shows("Dana?")
    await dark.picture("left-dark")
    await dark.click("#toggle")
    await dark.shows("Dana?")
    await dark.picture("fresh-dark")
    await wei.picture("phone-zh")
    await wei.click("#open-panel")
    await wei.page.wait_for_selector("#panel:visible")
    await wei.picture("phone-panel-zh")
    await wei.page.press("body", "Escape")
    await ann.page.context.set_offline(True)
    await ann.state("lost")
    for text in ("Ann is away.", "She will be back."):
        said[1].append(await bob.say(text))
    await bob.shows("She will be back.")
    said[0].append(await ann.say("Written while offline."))
    await ann.page.wait_for_selector("#notice:visible")
    await ann.picture("offline")
    await bob.page.wait_for_selector("#people .lost")
    await bob.picture("somebody-is-reconnecting")
    await ann.page.context.set_offline(False)
    await ann.state("here")
    await agree(windows, said)
    await ann.picture("recovered")
    page = await dark.page.context.new_page()
    await page.goto(cluster.url + "/cluster")
    await page.wait_for_selector("#nodes .up:nth-child(3)")
    await page.click(f"[data-kill={await bob.node()}]")
    await page.wait_for_selector("#nodes .down")
    await page.wait_for_selector("#news .recovered:has-text('Bob')")
    await BrowserWindow(page, "cluster").picture("cluster-dark")
