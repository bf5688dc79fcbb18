"""Who is here, on which node, who is reconnecting (no I/O).

What Redis holds: a record of each person, written by the node that has its connection; and a record of each
node, which it refreshes twice a second. A node that is killed can write nothing. So a person counts as here
only while the node that says so is alive, and whichever node notices first that it is not writes that down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: A node that has not been heard of for so long, in milliseconds, is down.
DOWN_AFTER = 2000
#: A node that is down is forgotten after so long, in milliseconds.
FORGET_AFTER = 600_000
#: So many are listed to a page at most.
MAX_PEOPLE = 200


@dataclass
class Presence:
    """Who is here, and what is to be written down because nobody else could.

    :ivar people: for the pages, in the order of names.
    :ivar lost: people whose node died: (id, connection).
    :ivar gone: people who did not come back in time: (id, connection).
    """

    people: list[dict[str, Any]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)


def alive(node: Mapping[str, Any], now: int) -> bool:
    """Whether a node is up: it was heard of lately, and has not said goodbye."""
    return bool(now - node["at"] < DOWN_AFTER) and node["state"] != "stopped"


def presence_of(people: Mapping[str, Any], nodes: Mapping[str, Any], now: int, keep: int) -> Presence:
    """Works out who is here.

    :param people: id -> record: ``name``, ``sid``, ``node``, ``boot``, ``conn``, ``rooms``, ``lost`` (ms, or 0).
    :param nodes: name -> record: ``boot``, ``at`` (ms), ``state``.
    :param now: Redis's time, in ms.
    :param keep: for how long a client can come back, in ms.
    """
    found = Presence()
    up = {(name, node["boot"]) for name, node in nodes.items() if alive(node, now)}
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
    """People that Redis believes to be on this node, though they are not: their leaving could not be written.

    :param here: connection -> id, of this node.
    :returns: (id, connection)
    """
    return [
        (id, person["conn"])
        for id, person in people.items()
        if (person["node"], person["boot"]) == (node, boot) and not person["lost"] and here.get(person["conn"]) != id
    ]
