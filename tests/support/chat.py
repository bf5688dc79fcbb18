"""The chat as an official JavaScript client sees it, wherever it runs."""

from __future__ import annotations

import itertools
from typing import Any

from .cluster import Client, Clients, until

#: What a browser does: polling first, then an upgrade; the cookie keeps it on one node.
BROWSER = {"withCredentials": True}
POLLING = {"withCredentials": True, "transports": ["polling"]}
WEBSOCKET = {"transports": ["websocket"]}


async def open_client(clients: Clients, cluster: Any, **arguments: Any) -> Client:
    """A client of the load balancer, which has a URL as a node has."""
    return await clients.open(cluster, **arguments)


def texts(client: Client) -> list[str]:
    return [message["text"] for message in messages(client)]


def has(client: Client, text: str) -> bool:
    return text in texts(client)


def welcome(client: Client) -> dict[str, Any]:
    """What the server said when it took the client in, the last time."""
    found: dict[str, Any] = [event[1] for event in client.events() if event[0] == "welcome"][-1]
    return found


def messages(client: Client) -> list[dict[str, Any]]:
    return [event[1] for event in client.events() if event[0] == "message"]


async def welcomed(client: Client, times: int) -> dict[str, Any]:
    """Waits until the server took the client in so often."""
    await until(lambda: [e[0] for e in client.events()].count("welcome") >= times, lambda: client.reports)
    return welcome(client)


_ids = itertools.count(10_000_000)


async def say(client: Client, text: object, room: object = "lobby", **more: object) -> Any:
    """Says something; the answer."""
    return await client.call("say", {"id": str(next(_ids)), "room": room, "text": text, **more})


async def elsewhere(clients: Clients, cluster: Any, node: str) -> Client:
    """A client that is on another node than ``node``; the first one may not be."""
    for _ in range(20):
        client = await open_client(clients, cluster, options=WEBSOCKET, auth={"name": "bob"})
        if (await welcomed(client, 1))["node"] != node:
            return client
        await client.run("shut")
    raise AssertionError(f"all clients come to {node}")


def people(client: Client) -> dict[str, tuple[str, str]]:
    """Who is here, as a client was told last: name -> (node, state)."""
    lists = [e[1] if e[0] == "people" else e[1]["people"] for e in client.events() if e[0] in ("people", "welcome")]
    return {person["name"]: (person["node"], person["state"]) for person in lists[-1]}
