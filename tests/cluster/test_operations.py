"""Operations on many clients, and questions to many: exact, in one order with the events, on all nodes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from socketio_recovery import Answers, AsyncRedisStreamsManager
from socketio_recovery.errors import RedisUnavailable

from tests.support.js_clients import WEBSOCKET, JsClient, JsClients, settle
from tests.support.node_process import NodePair, NodeProcess, StartNode
from tests.support.waiting import until


def sid(client: JsClient, nsp: str = "/") -> str:
    return str(client.connects(nsp)[0]["sid"])


async def ask(node: NodeProcess, method: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of the node's manager."""
    return (await node.do((method, args, kwargs), on="manager"))[0]


async def answers(node: NodeProcess, method: str, *args: Any, **kwargs: Any) -> Answers:
    """The same, for a method that gathers answers."""
    found = Answers(*await ask(node, method, *args, **kwargs))
    return found._replace(missing=sorted(found.missing))


async def names(*nodes: NodeProcess) -> list[str]:
    return [str(await ask(node, "host_id")) for node in nodes]


async def server_side(node: NodeProcess) -> list[list[Any]]:
    """The arguments of the events of other nodes that the node has handled."""
    return [seen["args"] for seen in (await node.look())["seen"] if seen["what"] == "server side"]


async def reconnecting(node: NodeProcess, client: JsClient) -> None:
    """The client loses its connection, and can't come back until ``"back"``; its node knows it."""
    await client.run("away")
    await until(lambda: _is(node, client, "reconnecting"))


async def _is(node: NodeProcess, client: JsClient, state: str) -> bool:
    return any(found[0] == sid(client) and found[2] == state for found in await ask(node, "fetch_sockets"))


# -- clients ----------------------------------------------------------------------------------------


async def test_many_enter_and_leave_rooms_wherever_they_are(start_node: StartNode, clients: JsClients) -> None:
    """Those of all nodes, those that are reconnecting, and nobody else; in one order with the events."""
    a, b = await start_node(), await start_node()
    on_a, on_b, away = [await clients.open(node, options=WEBSOCKET, urls=[a.url, b.url]) for node in (a, b, a)]
    outside, skipped = await clients.open(b, options=WEBSOCKET), await clients.open(a, options=WEBSOCKET)
    for client in (on_a, on_b, away, skipped):
        await client.call("join", "lobby")
    await reconnecting(a, away)

    moved = ("sockets_join", [["red", "blue"]], {"to": "lobby", "skip_sid": sid(skipped)})
    before, count, after = (
        ("emit", ["before", None, "/", "red"]),
        moved,
        ("emit", ["after", None, "/", ["red", "blue"]]),
    )
    assert (await a.do(before, count, after, on="manager"))[1] == 3
    await b.emit("elsewhere", to="blue")
    assert await ask(b, "sockets_join", "red", to="lobby", skip_sid=[sid(skipped)]) == 0, "they are there already"
    assert {found[0] for found in await ask(b, "fetch_sockets", ["red"])} == {sid(c) for c in (on_a, on_b, away)}

    assert await ask(b, "sockets_leave", ["red", "nowhere"], to=["red", sid(outside)]) == 3
    await b.emit("left", to="red")
    await away.run("back")
    assert (await away.connected(2))["recovered"] is True
    for client in (on_a, on_b, away):
        assert await settle(a, client) == [("after",), ("elsewhere",)]
        assert (await client.state())["rooms"] == sorted([sid(client), "lobby", "blue"])
    for client in (outside, skipped):
        assert await settle(a, client) == []


async def test_one_client_enters_several_rooms(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    await b.do(
        ("enter_room", [sid(client), ["red", 7]]), ("emit", ["e", 1], {"to": 7}), ("emit", ["e", 2], {"to": "red"})
    )
    await b.do(("leave_room", [sid(client), ["red", 7, "other"]]), ("emit", ["e", 3], {"to": [7, "red"]}))
    assert await settle(a, client) == [("e", 1), ("e", 2)]


async def test_everybody_in_a_namespace_and_nobody(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    namespaces = ["/", "/other"]
    one, two = [await clients.open(node, options=WEBSOCKET, namespaces=namespaces) for node in (a, b)]
    assert await ask(a, "sockets_join", 7, namespace="/other") == 2
    assert await ask(b, "sockets_join", "red", to=[]) == 0
    assert await ask(b, "sockets_join", [], to=None) == 0
    assert await ask(b, "sockets_join", "red", to="nobody is there") == 0
    await a.emit("e", to=7, namespace="/other")
    for client in (one, two):
        await client.received(1, "/other")
        assert (await client.state())["rooms"] == [sid(client)]
        assert (await client.state("/other"))["rooms"] == sorted([sid(client, "/other"), "7"])
    with pytest.raises(RuntimeError, match="TypeError: a room must be a str or an int"):
        await ask(a, "sockets_join", 2.5)
    with pytest.raises(RuntimeError, match="TypeError: a room must be a str or an int"):
        await ask(a, "sockets_leave", "red", to=2.5)
    with pytest.raises(RuntimeError, match="ValueError: cannot enter a sid room"):
        await ask(b, "sockets_join", sid(one))
    assert (await two.state())["rooms"] == [sid(two)]


async def test_more_than_one_append_takes(pair: NodePair, clients: JsClients) -> None:
    """One client in very many rooms costs as many entries as very many clients."""
    a, b = pair
    client = await clients.open(a, options=WEBSOCKET)
    other = await clients.open(b, options=WEBSOCKET)
    rooms = list(range(600))
    assert await ask(b, "sockets_join", rooms, to=[sid(client), sid(other)]) == 2
    await settle(b, client)  # its own node has the change of rooms by then, too
    for one in (client, other):
        assert len((await one.state())["rooms"]) == 601
    assert await ask(a, "count", 599) == [2, 0]
    assert await ask(a, "sockets_leave", rooms, to=300) == 2
    assert (await client.state())["rooms"] == [sid(client)]


async def test_many_are_disconnected_wherever_they_are(start_node: StartNode, clients: JsClients) -> None:
    """None of them recovers, and none is in a room any more, also those that are reconnecting."""
    a, b = await start_node(), await start_node()
    on_a, on_b, away = [await clients.open(node, options=WEBSOCKET, urls=[a.url, b.url]) for node in (a, b, a)]
    stays, skipped = await clients.open(b, options=WEBSOCKET), await clients.open(b, options=WEBSOCKET)
    for client in (on_a, on_b, away, skipped):
        await client.call("join", "lobby")
    await reconnecting(a, away)
    await a.emit("last", to="lobby")
    assert await ask(b, "disconnect_sockets", "lobby", skip_sid=sid(skipped)) == 3
    await a.emit("too late", to="lobby")
    for client in (on_a, on_b):
        await until(partial(client.of, "disconnect"))
        assert client.of("disconnect")[0]["reason"] == "io server disconnect"
        assert client.events() == [("last",)]
    await away.run("back")
    again = await away.connected(2)
    assert (again["recovered"], again["sid"] == sid(away)) == (False, False)
    assert ("too late",) not in away.events()
    await until(lambda: _ended(a, 2))
    await until(lambda: _ended(b, 1))
    assert [found[0] for found in await ask(a, "fetch_sockets", "lobby")] == [sid(skipped)]
    assert await ask(a, "count", "lobby") == [1, 0]
    assert await settle(a, stays) == []
    assert await settle(a, skipped) == [("last",), ("too late",)]
    assert await ask(a, "disconnect_sockets") == 3
    await until(lambda: _nobody(a))


async def _ended(node: NodeProcess, times: int) -> bool:
    return [seen["what"] for seen in (await node.look())["seen"]].count("disconnect") == times


async def _nobody(node: NodeProcess) -> bool:
    return bool(await ask(node, "count") == [0, 0])


async def test_a_process_that_only_writes(pair: NodePair, clients: JsClients) -> None:
    a, b = pair
    one, two = await clients.open(a, options=WEBSOCKET), await clients.open(b, options=WEBSOCKET)
    here = [sid(one), sid(two)]
    async with AsyncRedisStreamsManager(a.config["redis"], write_only=True, **a.config["manager"]) as manager:
        assert await manager.sockets_join("red", to=here) == 2
        await manager.emit("e", 1, room="red")
        assert {found.sid for found in await manager.fetch_sockets("red")} == set(here)
        assert await manager.sockets_leave("red", to="red", skip_sid=here[1]) == 1
        await manager.emit("e", 2, room="red")
        await manager.server_side_emit("note", "from outside", {"a": [1]})
        for node in pair:
            await until(partial(server_side, node))
            assert await server_side(node) == [["from outside", {"a": [1]}]]
        with pytest.raises(RuntimeError, match="only a manager that serves clients can gather answers"):
            await manager.server_side_call("answer", "x")
        with pytest.raises(RuntimeError, match="only a manager that serves clients can gather answers"):
            await manager.emit_with_ack("e", 3)
        with pytest.raises(RuntimeError, match="only a manager that serves clients can handle"):
            manager.on_server_side("note", print)
        with pytest.raises(TypeError, match="the name of an event must be a str"):
            await manager.server_side_emit(7)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await manager.server_side_emit("note", object())
        assert await manager.disconnect_sockets(here) == 2
    await until(lambda: one.of("disconnect") and two.of("disconnect"))
    assert (one.events(), two.events()) == ([("e", 1)], [("e", 1), ("e", 2)])


async def test_while_redis_is_away_nothing_is_changed() -> None:
    manager = AsyncRedisStreamsManager("redis://127.0.0.1:1/0", write_only=True, publish_timeout=0.1)
    for call in (manager.sockets_join("red"), manager.sockets_leave("red"), manager.disconnect_sockets()):
        with pytest.raises(RedisUnavailable):
            await call
    await manager.close()


# -- nodes ------------------------------------------------------------------------------------------


async def test_events_between_nodes_come_in_order_to_all_others(start_node: StartNode) -> None:
    a, b, c = await start_node(), await start_node(), await start_node()
    await a.do(*(("server_side_emit", ["note", i, {"x": [None]}]) for i in range(20)), on="manager")
    await ask(b, "server_side_emit", "note", "from b")
    await ask(b, "server_side_emit", "nobody handles it")
    await until(lambda: server_side(a))
    assert await server_side(a) == [["from b"]]
    for node, count in ((b, 20), (c, 21)):
        await until(partial(_heard, node, count))
        heard = [note[0] for note in await server_side(node)]
        assert [n for n in heard if n != "from b"] == list(range(20))
    with pytest.raises(RuntimeError, match="TypeError"):
        await ask(a, "server_side_emit", 7)


async def _heard(node: NodeProcess, count: int) -> bool:
    return len(await server_side(node)) == count


async def test_a_call_of_all_nodes(start_node: StartNode) -> None:
    """Each other node answers; one whose handler raises, or that has none, says so."""
    a, b, c = await start_node(), await start_node(), await start_node()
    _, name_b, name_c = await names(a, b, c)
    both = {name_b: "b got nobody", name_c: "c got nobody"}
    assert await answers(a, "server_side_call", "answer", "nobody") == Answers(both, [], {})
    assert await server_side(a) == []
    found = await answers(a, "server_side_call", "answer", "b")
    assert found == Answers({name_c: "c got b"}, [], {name_b: "ValueError: it has no time"})
    assert "the handler of the server-side event 'answer' failed" in b.log()
    found = await answers(a, "server_side_call", "what")
    assert found == Answers({}, [], dict.fromkeys((name_b, name_c), "LookupError: no handler is registered for 'what'"))


async def test_a_node_is_killed_in_the_middle_of_a_call(start_node: StartNode) -> None:
    """It is named, and so is one that takes too long; what comes later is dropped."""
    a, b, c, d = [await start_node(manager={"heartbeat_interval": 5}) for _ in range(4)]
    _, name_b, name_c, name_d = await names(a, b, c, d)
    call = asyncio.create_task(answers(a, "server_side_call", "answer", "c", 30, timeout=8))
    await until(lambda: server_side(c))
    c.kill()
    assert await call == Answers({name_b: "b got c", name_d: "d got c"}, [name_c], {})
    found = await answers(a, "server_side_call", "answer", "d", 5, timeout=0.2)
    assert name_d in found.missing
    await until(lambda: _alive(a, {name_b, name_d}))
    assert await answers(a, "server_side_call", "answer", "nobody", timeout=20) == Answers(
        {name_b: "b got nobody", name_d: "d got nobody"}, [], {}
    )


async def _alive(node: NodeProcess, names: set[str]) -> bool:
    found = await answers(node, "server_side_call", "what", timeout=0.3)
    return not set(found.missing) - names


async def test_a_node_alone(start_node: StartNode) -> None:
    a = await start_node()
    assert await answers(a, "server_side_call", "answer", "nobody") == Answers({}, [], {})
    assert await answers(a, "emit_with_ack", "question") == Answers({}, [], {})


# -- questions to many clients ----------------------------------------------------------------------


async def test_the_answers_of_a_room(start_node: StartNode, clients: JsClients) -> None:
    """Of all nodes; who does not answer, and who is reconnecting, is named."""
    a, b = await start_node(), await start_node()
    one, two = await clients.open(a, options=WEBSOCKET), await clients.open(b, options=WEBSOCKET, answer=[1, {"x": 2}])
    nothing = await clients.open(b, options=WEBSOCKET, answer=[])
    silent = await clients.open(b, options=WEBSOCKET, answer=False)
    away = await clients.open(a, options=WEBSOCKET, urls=[a.url, b.url])
    outside = await clients.open(a, options=WEBSOCKET)
    for client in (one, two, nothing, silent, away):
        await client.call("join", "red")
    expected = {sid(one): f"{one.name} got question", sid(two): [1, {"x": 2}], sid(nothing): None}

    everybody = expected | {sid(away): f"{away.name} got question"}
    found = await answers(b, "emit_with_ack", "question", ["q"], room="red", skip_sid=sid(silent), timeout=3600)
    assert found == Answers(everybody, [], {}), "it does not wait for the timeout"
    await reconnecting(a, away)
    found = await answers(a, "emit_with_ack", "question", "q", room="red", skip_sid=[sid(silent)], timeout=3600)
    assert found == Answers(expected, [sid(away)], {}), "nor for who is reconnecting"
    found = await answers(a, "emit_with_ack", "question", room=["red", "blue"], timeout=8)
    assert found == Answers(expected, sorted([sid(away), sid(silent)]), {})
    found = await answers(b, "emit_with_ack", "question", to=sid(one))
    assert found == Answers({sid(one): f"{one.name} got question"}, [], {})

    await away.run("back")
    assert (await away.connected(2))["recovered"] is True
    assert await settle(b, away) == [("question", ["q"], {"callback": True})], "what it missed is not asked again"
    assert await settle(b, outside) == []


async def test_the_answers_of_everybody(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    everybody = [await clients.open(node, options=WEBSOCKET) for node in (a, a, b, b, b)]
    expected = {sid(client): f"{client.name} got question" for client in everybody}
    for node in (a, b):
        assert await answers(node, "emit_with_ack", "question") == Answers(expected, [], {})
    with pytest.raises(RuntimeError, match="ValueError: 'connect' is reserved"):
        await ask(a, "emit_with_ack", "connect")
    assert await answers(a, "emit_with_ack", "question", room=[]) == Answers({}, [], {})


async def test_an_answer_that_comes_too_late(start_node: StartNode, clients: JsClients) -> None:
    a, b = await start_node(), await start_node()
    late = await clients.open(b, options=WEBSOCKET, answer="held")
    assert await answers(a, "emit_with_ack", "first", timeout=0.1) == Answers({}, [sid(late)], {})
    await late.received(1)
    await late.run("answer", args=["first"])
    call = asyncio.create_task(answers(a, "emit_with_ack", "second"))
    await late.received(2)
    await late.run("answer", args=["second"])
    assert await call == Answers({sid(late): "second"}, [], {})
