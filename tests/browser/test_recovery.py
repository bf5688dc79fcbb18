"""Two windows on different nodes. Whatever happens: both show the same conversation, once each, in order."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Awaitable, Callable

import redis
from playwright.async_api import WebSocketRoute
from socketio_recovery.aio.tasks import cancelled

from tests.support.browser import BrowserWindow, OpenWindow, WindowPair, agree
from tests.support.supervisor import Supervisor
from tests.support.waiting import until


async def talk(pair: WindowPair, while_: Callable[[], Awaitable[object]]) -> tuple[list[str], list[str]]:
    """Both talk before, while and after something happens; returns what each said."""
    ann, bob = pair
    said: tuple[list[str], list[str]] = ([], [])

    async def both(when: str) -> None:
        said[0].append(await ann.say(f"ann {when}"))
        said[1].append(await bob.say(f"bob {when}"))

    await both("before")
    await asyncio.gather(ann.shows("bob before"), bob.shows("ann before"))
    happening = asyncio.create_task(asyncio.wait_for(while_(), 90))
    try:
        for i in itertools.count():
            await both(f"meanwhile {i}")
            if happening.done():
                break
            await asyncio.wait([happening], timeout=0.15)
        await happening
    finally:
        await cancelled([happening])
    await asyncio.gather(ann.state("here"), bob.state("here"))
    await both("after")
    return said


async def recoveries(window: BrowserWindow) -> int:
    return len(await window.page.query_selector_all("#events .recovered"))


async def test_a_dropped_connection(pair: WindowPair) -> None:
    ann, _ = pair
    sid = await ann.text("#sid")

    async def drop() -> None:
        await ann.click("#drop")
        await until(lambda: recoveries(ann), "recovered")

    await agree(pair, await talk(pair, drop))
    assert await ann.text("#sid") == sid
    assert await ann.text("#recovered") == "yes"


async def test_a_killed_node(cluster: Supervisor, pair: WindowPair) -> None:
    ann, _ = pair
    sid, node = await ann.text("#sid"), await ann.node()

    async def kill() -> None:
        cluster.process.send_signal(signal.SIGSTOP)  # it does not start the node again before she is back
        await ann.click("#kill")
        await until(lambda: recoveries(ann), "recovered")
        cluster.process.send_signal(signal.SIGCONT)
        await cluster.line(f"{node} was killed (SIGKILL)")

    await agree(pair, await talk(pair, kill))
    assert await ann.text("#sid") == sid
    assert await ann.text("#recovered") == "yes"
    assert await ann.node() != node


async def test_a_node_that_is_restarted(cluster: Supervisor, pair: WindowPair) -> None:
    ann, _ = pair
    node = await ann.node()

    async def restart() -> None:
        cluster.process.send_signal(signal.SIGSTOP)  # it does not start the node again before she is back
        cluster.signal(node, signal.SIGTERM)
        await until(lambda: recoveries(ann), "recovered")
        cluster.process.send_signal(signal.SIGCONT)
        await cluster.line(f"{node} is back")

    await agree(pair, await talk(pair, restart))
    assert await ann.node() != node


async def test_a_rolling_restart_of_all_nodes(cluster: Supervisor, pair: WindowPair) -> None:
    sids = [await window.text("#sid") for window in pair]

    async def roll() -> None:
        for node in ("node-a", "node-b", "node-c"):
            cluster.signal(node, signal.SIGTERM)
            await cluster.line(f"{node} is back")

    await agree(pair, await talk(pair, roll))
    assert [await window.text("#sid") for window in pair] == sids
    for window in pair:
        assert await recoveries(window) >= 1
        assert await window.page.query_selector("#events .fresh") is None


async def test_redis_is_restarted(cluster: Supervisor, pair: WindowPair) -> None:
    sids = [await window.text("#sid") for window in pair]

    async def restart() -> None:
        cluster.signal("redis", signal.SIGKILL)
        await cluster.line("redis is back")

    await agree(pair, await talk(pair, restart))
    assert [await window.text("#sid") for window in pair] == sids


async def test_leaving_on_purpose(pair: WindowPair) -> None:
    """A new session; what was said meanwhile comes from the room's history, and what was pending goes out."""
    ann, bob = pair
    sid = await ann.text("#sid")
    said = ([await ann.say("ann before")], [await bob.say("bob before")])
    await agree(pair, said)
    await ann.click("#toggle")
    await ann.state("left")
    assert await ann.text("#notice") != ""
    said[1].append(await bob.say("bob meanwhile"))
    await bob.shows("bob meanwhile")
    await bob.page.wait_for_selector("#people li:only-child")  # Ann left
    said[0].append(await ann.say("ann, pending"))
    assert await ann.pending() == ["ann, pending"]
    await ann.click("#toggle")
    await agree(pair, said)
    assert await ann.text("#sid") != sid
    assert await ann.page.get_attribute("#recovered", "data-recovered") == "unknown"
    assert await ann.page.query_selector("#messages .incident.fresh.calm")


async def test_recovery_is_impossible(cluster: Supervisor, pair: WindowPair) -> None:
    """Redis was wiped: both pages say so, keep what they show, and go on."""
    ann, bob = pair
    sid = await ann.text("#sid")
    said = ([await ann.say("ann before")], [await bob.say("bob before")])
    await agree(pair, said)
    url = next(line for line in cluster.said().splitlines() if line.startswith("Redis: "))
    with redis.Redis(port=int(url.rpartition(" ")[2])) as client:
        client.flushall()
    for window in pair:
        await window.page.wait_for_selector("#messages .incident.fresh", timeout=30_000)
        await window.state("here")
        assert await window.page.is_visible("#notice")
    assert await ann.text("#sid") != sid
    said[0].append(await ann.say("ann after"))
    await bob.shows("ann after")
    said[1].append(await bob.say("bob after"))
    await agree(pair, said)


async def test_an_answer_that_is_lost(window: OpenWindow) -> None:
    """The server took the message, but neither its answer nor its event arrives: after that it is there, once."""
    bob = await window("Bob")
    ann = await window("Ann")
    lost: list[str] = []
    sent: list[str | bytes] = []

    async def lossy(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        async def back(data: str | bytes) -> None:
            text = data if isinstance(data, str) else ""
            ours = text.startswith("43") or (text.startswith("42") and "ann once" in text)
            if len(lost) < 2 and ours and "ann once" in "".join(map(str, sent)):
                lost.append(text)  # in either order
                if len(lost) == 2:
                    await route.close()
            else:
                route.send(data)

        def forth(data: str | bytes) -> None:
            sent.append(data)
            server.send(data)

        route.on_message(forth)
        server.on_message(lambda data: asyncio.ensure_future(back(data)))

    await ann.page.route_web_socket("**/socket.io/**", lossy)
    await ann.page.reload()
    await ann.state("here")
    await until(lambda: "5" in sent, "the upgrade from polling")
    said = [await ann.say("ann once"), await ann.say("ann twice")]
    await agree((bob, ann), (said,))
    assert sorted(frame[:2] for frame in lost) == ["42", "43"]


async def test_what_was_pending_survives_a_reload(pair: WindowPair) -> None:
    ann, _ = pair
    await ann.click("#toggle")
    await ann.state("left")
    text = await ann.say("ann, pending")
    ann.page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await ann.page.reload()
    await ann.state("here")
    await agree(pair, ([text],))
