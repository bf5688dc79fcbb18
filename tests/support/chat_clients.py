"""Official JavaScript clients of the chat: they talk to it, and tell what they have seen."""

from __future__ import annotations

import itertools
from typing import Any

from .js_clients import WEBSOCKET, JsClient, JsClients
from .waiting import until

#: Options of a client that connects as a browser does: polling first, then an upgrade. A cookie keeps it on one node.
BROWSER = {"withCredentials": True}
BROWSER_POLLING = {"withCredentials": True, "transports": ["polling"]}


async def open_client(clients: JsClients, cluster: Any, **arguments: Any) -> JsClient:
    """Opens a client of the load balancer: ``cluster`` is anything that has a ``url``."""
    return await clients.open(cluster, **arguments)


def texts(client: JsClient) -> list[str]:
    """Returns the texts of all messages that the client has received."""
    return [message["text"] for message in messages(client)]


def has(client: JsClient, text: str) -> bool:
    """Tells whether the client has received a message with this text."""
    return text in texts(client)


def welcome(client: JsClient) -> dict[str, Any]:
    """Returns the latest ``welcome`` event, which a node sends after each connect."""
    found: dict[str, Any] = [event[1] for event in client.events() if event[0] == "welcome"][-1]
    return found


def messages(client: JsClient) -> list[dict[str, Any]]:
    """Returns all messages that the client has received."""
    return [event[1] for event in client.events() if event[0] == "message"]


async def welcomed(client: JsClient, times: int) -> dict[str, Any]:
    """Waits until the client has received ``times`` ``welcome`` events, and returns the latest."""
    await until(lambda: [e[0] for e in client.events()].count("welcome") >= times, lambda: client.reports)
    return welcome(client)


_ids = itertools.count(10_000_000)


async def say(client: JsClient, text: object, room: object = "lobby", **more: object) -> Any:
    """Sends a message, and returns the server's answer."""
    return await client.call("say", {"id": str(next(_ids)), "room": room, "text": text, **more})


async def elsewhere(clients: JsClients, cluster: Any, node: str) -> JsClient:
    """Opens clients until one is connected to another node than ``node``, and returns that one."""
    for _ in range(20):
        client = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "bob"})
        if (await welcomed(client, 1))["node"] != node:
            return client
        await client.run("shut")
    raise AssertionError(f"all clients come to {node}")


def people(client: JsClient) -> dict[str, tuple[str, str]]:
    """Returns who is in the chat, by the latest list that the client received: name -> (node, state)."""
    return {person["name"]: (person["node"], person["state"]) for person in _list(client)}


def rooms_of(client: JsClient) -> dict[str, list[str]]:
    """Returns the rooms of each person in the chat, as :func:`people`: name -> rooms."""
    return {person["name"]: person["rooms"] for person in _list(client)}


def _list(client: JsClient) -> list[dict[str, Any]]:
    lists = [e[1] if e[0] == "people" else e[1]["people"] for e in client.events() if e[0] in ("people", "welcome")]
    found: list[dict[str, Any]] = lists[-1]
    return found
