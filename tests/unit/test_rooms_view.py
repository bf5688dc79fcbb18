"""``manager.rooms``: a view of who is in which room on this node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.connections import Connection, Connections
from socketio_recovery.rooms_view import RoomsView

from tests.support.follower import partition


@pytest.fixture
def connections() -> Connections:
    return Connections(partition())


def live(connections: Connections, sid: str, *rooms: str | int, namespace: str = "/") -> Connection:
    """Adds a client that gets events."""
    connection = behind(connections, sid, *rooms, namespace=namespace)
    connections.go_live(connection)
    return connection


def behind(connections: Connections, sid: str, *rooms: str | int, namespace: str = "/") -> Connection:
    """Adds a client that has yet to get what it missed."""
    connection = Connection(sid, namespace, f"transport of {sid}", None, f"token of {sid}")
    connection.rooms, connection.rooms_then = dict.fromkeys(rooms, 0), dict.fromkeys(rooms, 0)
    connections.arrive(connection)
    connections.add(connection)
    return connection


def test_it_shows_who_is_where(connections: Connections) -> None:
    rooms = RoomsView(connections)
    assert rooms == {}
    live(connections, "s1", "red", 7)
    live(connections, "s2", "red")
    live(connections, "s3", namespace="/n")
    behind(connections, "s4", "red", namespace="/empty")
    one, two, three = ({sid: f"transport of {sid}"} for sid in ("s1", "s2", "s3"))
    assert rooms == {
        "/": {None: one | two, "s1": one, "s2": two, "red": one | two, 7: one},
        "/n": {None: three, "s3": three},
        "/empty": {},
    }
    assert (len(rooms), len(rooms["/"]), len(rooms["/"]["red"])) == (3, 5, 2)
    assert list(rooms["/"]["red"].values()) == ["transport of s1", "transport of s2"]
    assert repr(rooms["/n"]) == "{None: {'s3': 'transport of s3'}, 's3': {'s3': 'transport of s3'}}"
    assert "s1" in rooms["/"]["red"]
    assert "s2" not in rooms["/"][7]
    asked: Any = rooms
    assert len(asked.get("/admin", {}).get(None, [])) == 0  # as the Admin UI asks


def test_what_is_not_there_is_a_key_error(connections: Connections) -> None:
    live(connections, "s1", "red")
    rooms = RoomsView(connections)
    for look in (lambda: rooms["/n"], lambda: rooms["/"]["blue"], lambda: rooms["/"]["red"]["s2"]):
        with pytest.raises(KeyError):
            look()
    assert "red" not in rooms["/"]["red"], "the name of a room is no client's id"


def test_it_goes_on_showing_what_is_so(connections: Connections) -> None:
    """Also while somebody iterates, who may await between two clients."""
    first, second = (live(connections, sid, "red") for sid in ("s1", "s2"))
    rooms = RoomsView(connections)["/"]
    red: Mapping[str, str] = rooms["red"]
    for _ in rooms:
        connections.live.enter(first, f"room {len(rooms)}")
    for sid in red:
        connections.live.leave(first, "red")
        assert sid in ("s1", "s2")
    assert list(red) == ["s2"]
    connections.remove(second)
    assert (list(red), len(red), "red" in rooms) == ([], 0, False)


def test_it_can_not_be_changed_and_copies_nothing(connections: Connections) -> None:
    live(connections, "s1", "red")
    rooms = RoomsView(connections)
    with pytest.raises(TypeError):
        rooms["/"]["red"]["s2"] = "transport"  # type: ignore[index]
    assert AsyncRedisStreamsManager(FakeAsyncRedis()).rooms == {}
