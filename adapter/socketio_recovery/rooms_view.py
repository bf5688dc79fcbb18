"""``manager.rooms``: who is in which room on this node, for applications to read.  No I/O.

It is ``rooms[namespace][room][sid] = eio_sid``, as python-socketio's own managers have it. Nothing is copied until
somebody iterates. Then it is the keys, so that the application may await between two of them.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TypeVar

from .connections import Connection, Connections, NodeConnections
from .entries import Room

K = TypeVar("K")
V = TypeVar("V")


class _View(Mapping[K, V]):
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def copy(self) -> dict[K, V]:
        """What it shows now; rooms in it are views still."""
        return {key: self[key] for key in self}

    def items(self) -> ItemsView[K, V]:
        return self.copy().items()

    def values(self) -> ValuesView[V]:
        return self.copy().values()

    def __repr__(self) -> str:
        return repr(self.copy())


class RoomsView(_View[str, "RoomsOfNamespace"]):
    """The namespaces that have clients on this node."""

    def __init__(self, connections: NodeConnections) -> None:
        self._all = connections

    def __getitem__(self, namespace: str) -> RoomsOfNamespace:
        if namespace not in self._all.namespaces():
            raise KeyError(namespace)
        return RoomsOfNamespace(self._all.of(namespace), namespace)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all.namespaces())

    def __len__(self) -> int:
        return len(self._all.namespaces())


class RoomsOfNamespace(_View[Room, "Members"]):
    """The rooms of a namespace. ``None`` is everybody."""

    def __init__(self, connections: Connections, namespace: str) -> None:
        super().__init__(connections)
        self._namespace = namespace

    def __getitem__(self, room: Room) -> Members:
        if room not in self._connections.live.rooms(self._namespace):
            raise KeyError(room)
        return Members(self._connections, self._namespace, room)

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._connections.live.rooms(self._namespace)))

    def __len__(self) -> int:
        return len(self._connections.live.rooms(self._namespace))


class Members(_View[str, str]):
    """The clients in a room: ``sid`` -> ``eio_sid``."""

    def __init__(self, connections: Connections, namespace: str, room: Room) -> None:
        super().__init__(connections)
        self._namespace = namespace
        self._room = room

    def _members(self) -> Mapping[Connection, None]:
        return self._connections.live.rooms(self._namespace).get(self._room, {})

    def __getitem__(self, sid: str) -> str:
        members = self._members()
        for connection in self._connections.live.rooms(self._namespace).get(sid, ()):  # a client's own room
            if connection.sid == sid and connection in members:
                return connection.transport
        raise KeyError(sid)

    def copy(self) -> dict[str, str]:
        return {connection.sid: connection.transport for connection in self._members()}

    def __iter__(self) -> Iterator[str]:
        return iter([connection.sid for connection in self._members()])

    def __len__(self) -> int:
        return len(self._members())
