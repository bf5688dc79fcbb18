"""The rules that say who is in the chat, on which node, and who is reconnecting (no I/O).

Redis holds two kinds of records. The node that has a person's connection writes the record of that person. Each node
refreshes the record of itself twice a second. A node that is killed can't write any more. So a person counts as here
only while the node that says so is alive. The first node that notices that another one is dead writes down that the
people on it lost their connection. A node that was only frozen, or cut off from Redis, was taken for dead as well. When
it is back, it writes down that its people are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: A node is down when its last heartbeat is this old, in milliseconds.
DOWN_AFTER = 2000
#: The record of a node is removed when its last heartbeat is this old, in milliseconds.
FORGET_AFTER = 600_000
#: The most people that are listed to a page.
MAX_PEOPLE = 200


@dataclass
class Presence:
    """Who is in the chat, and which changes some node still has to write down because a dead node could not.

    :ivar people: what the pages show of each person, sorted by name.
    :ivar lost: people whose node died: pairs of the person's id and the id of the lost connection.
    :ivar gone: people who did not come back in time: the same pairs.
    """

    people: list[dict[str, Any]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)


def alive(node: Mapping[str, Any], now: int, since: int) -> bool:
    """Whether a node runs: its last heartbeat is recent, and did not say that the node was stopped.

    :param node: its record: ``at`` (ms), ``state``.
    :param now: Redis's time, in ms.
    :param since: since when the asking node has reached Redis, in ms. While Redis was away, no node could send a
        heartbeat. So the silence of the others counts from then on.
    """
    return bool(now - max(node["at"], since) < DOWN_AFTER) and node["state"] != "stopped"


def reached_since(since: int, last: int, now: int) -> int:
    """Returns since when a node has reached Redis without a break, in ms.

    :param since: the answer that was right until now; 0 before the node's first heartbeat.
    :param last: when the node's last heartbeat was, in ms; 0 if this is its first.
    :param now: when this heartbeat is. All times are Redis's.
    """
    return now if last and now - last >= DOWN_AFTER else since


def presence_of(people: Mapping[str, Any], nodes: Mapping[str, Any], now: int, since: int, keep: int) -> Presence:
    """Works out who is in the chat.

    :param people: id -> record: ``name``, ``node``, ``boot``, ``conn``, ``rooms``, and ``lost``: when the connection
        was lost, in ms; 0 while there is one.
    :param nodes: name -> record: ``boot``, ``at`` (ms), ``state``.
    :param now: Redis's time, in ms.
    :param since: see :func:`alive`, in ms.
    :param keep: how long after losing its connection a client can recover its session, in ms.
    """
    found = Presence()
    up = {(name, node["boot"]) for name, node in nodes.items() if alive(node, now, since)}
    for id, person in people.items():
        lost = person["lost"]
        if lost and now - lost > keep:
            found.gone.append((id, person["conn"]))
            continue
        here = (person["node"], person["boot"]) in up
        if not here and not lost:
            found.lost.append((id, person["conn"]))
        found.people.append(
            {
                "id": id,
                "name": person["name"],
                "node": person["node"],
                "state": "here" if here and not lost else "reconnecting",
                "rooms": sorted(person["rooms"]),
            }
        )
    found.people.sort(key=lambda person: (person["name"].casefold(), person["id"]))
    del found.people[MAX_PEOPLE:]
    return found


def unrecorded_departures(
    people: Mapping[str, Any], node: str, boot: str, here: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Returns the people that are on this node according to Redis but have left, which could not be written then.

    :param people: id -> record, as for :func:`presence_of`.
    :param node: the name of this node.
    :param boot: identifies this run of the node.
    :param here: this node's clients: id of the connection -> id of the person.
    :returns: pairs of a person's id and the id of the connection that it has no longer.
    """
    return [
        (id, person["conn"])
        for id, person in people.items()
        if (person["node"], person["boot"]) == (node, boot) and not person["lost"] and here.get(person["conn"]) != id
    ]


def unrecorded_arrivals(people: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Returns the connections of this node whose people do not count as here, because this node was taken for dead.

    :param people: id -> record, as for :func:`presence_of`.
    :param here: this node's clients, as they were before ``people`` was read: id of the connection -> id of the person.
    """
    return [
        conn
        for conn, id in here.items()
        if (person := people.get(id)) is None or (person["conn"] == conn and person["lost"])
    ]
