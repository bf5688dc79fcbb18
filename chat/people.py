"""The people in the chat, on all nodes: who is here, and who is only reconnecting.

The library knows this. A person is a client with the data ``{"id", "name", "node"}`` in its session: the person's
public id, the name that others see, and the name of the node that has the connection, or had it last.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from socketio_recovery import AsyncRedisStreamsManager, Participant

from .rules import chat_rooms
from .store import UNAVAILABLE

#: The most people that are listed to a page.
MAX_PEOPLE = 200
#: The least time between two lists, in seconds.
PAUSE = 0.1


class People:
    """The list of people, which a node shows to its own clients.

    :param manager: the client manager of the node's Socket.IO server.
    :param show: sends the list to this node's clients.
    """

    def __init__(
        self, manager: AsyncRedisStreamsManager, show: Callable[[list[dict[str, Any]]], Awaitable[None]]
    ) -> None:
        self._manager = manager
        self._show = show
        self._everybody: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        #: Whether :meth:`follow` is to end.
        self.stopped = False
        self.look_again()
        manager.on_participants(observer=lambda *_: self.look_again())

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The people as pages show them: see :func:`people_of`; no more than :data:`MAX_PEOPLE`."""
        return self._everybody[:MAX_PEOPLE]

    def count(self, state: str) -> Counter[str]:
        """How many people are in a state, by the names of their nodes."""
        return Counter(person["node"] for person in self._everybody if person["state"] == state)

    def node_of(self, id: str) -> str | None:
        """The name of the node that a person was last seen on; ``None`` for one who is not in the chat."""
        return next((person["node"] for person in self._everybody if person["id"] == id), None)

    def look_again(self) -> None:
        """Something changed: has the list made again, and shown if it is another one."""
        self._changed.set()

    async def follow(self) -> None:
        """Keeps the list as it is in the cluster, until :attr:`stopped` is set and the task is cancelled."""
        while not self.stopped:
            await self._changed.wait()
            self._changed.clear()
            try:
                found = people_of(await self._manager.participants())
                if found != self._everybody:
                    await self._show(found[:MAX_PEOPLE])
                    self._everybody = found
            except UNAVAILABLE:
                self.look_again()
            except Exception:  # the list must not stay as it is for ever
                logging.getLogger(__name__).exception("the list of people could not be shown; trying again")
                self.look_again()
            await asyncio.sleep(PAUSE)


def people_of(participants: Iterable[Participant]) -> list[dict[str, Any]]:
    """Returns what the pages show of each person, sorted by name: ``id``, ``name``, ``node``, ``state`` ("here" or
    "reconnecting") and ``rooms``. Who has several clients is there once, as the latest of those that are connected.

    :param participants: in the order in which they came; those who have not introduced themselves yet are left out.
    """
    people = {
        participant.data["id"]: {
            **{field: participant.data[field] for field in ("id", "name", "node")},
            "state": "here" if participant.state == "connected" else "reconnecting",
            "rooms": chat_rooms(participant.rooms),
        }
        for participant in sorted(participants, key=lambda participant: participant.state == "connected")
        if "node" in participant.data
    }
    return sorted(people.values(), key=lambda person: (person["name"].casefold(), person["id"]))
