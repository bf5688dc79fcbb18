"""What the manager accepts means what it means to python-socketio's own manager, and all nodes can read it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.aio.log import Append
from socketio_recovery.entries import EVENT, Entry, parse_entry
from socketio_recovery.reasons import AppendResult

from .upstream import server


class Writer:
    """A manager whose entries are queued here, and not stored."""

    def __init__(self, serializer: str = "default") -> None:
        self.queued: list[Append] = []
        self.manager = AsyncRedisStreamsManager(FakeAsyncRedis())
        server(client_manager=self.manager, serializer=serializer)
        assert self.manager.node is not None
        first = self.manager.node.first
        first.log.queue = self.queue  # type: ignore[method-assign, assignment]
        asks = SimpleNamespace(find=self.nobody, place=self.nobody)
        writing: Any = SimpleNamespace(log=first.log, membership=first.membership, participants=asks)
        life: Any = SimpleNamespace(shards=SimpleNamespace(use=lambda namespace: writing))
        self.manager._start = lambda: life  # type: ignore[method-assign]

    async def nobody(self, *arguments: Any) -> dict[str, Any]:
        return {}

    def queue(self, append: Append) -> None:
        self.queued.append(append)
        append.future = asyncio.get_running_loop().create_future()
        append.future.set_result(AppendResult.STORED)

    def entries(self) -> Iterator[Entry]:
        """What was queued, as a node reads it.

        :raises ValueError: for what nodes leave out.
        """
        for n, append in enumerate(self.queued):
            yield parse_entry(n, 1, [field.encode() if isinstance(field, str) else field for field in append.fields])


#: What an application might pass for anything, by mistake or not.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats()
    | st.text(max_size=3)
    | st.text(st.characters(), max_size=3)
    | st.binary(max_size=3)
    | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(st.none() | st.text(max_size=2) | st.integers(0, 3), max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
names = st.sampled_from(["/", "/n", "red", "s1", "", None]) | anything
callbacks = st.none() | st.just(print) | anything


@given(st.sampled_from(["default", "msgpack"]), names, anything, names, names, names, names, callbacks, st.booleans())
async def test_what_emit_takes_every_node_reads(
    serializer: str, event: Any, data: Any, namespace: Any, room: Any, to: Any, skip: Any, callback: Any, volatile: bool
) -> None:
    writer = Writer(serializer)
    try:
        await writer.manager.emit(event, data, namespace, room, skip, callback, to, volatile)
    except (TypeError, ValueError, OverflowError):
        assert not writer.queued
        assert not writer.manager.node.first.callbacks._kept  # type: ignore[union-attr]
    assert all(entry.kind == EVENT for entry in writer.entries())


@given(st.sampled_from(["enter_room", "leave_room", "close_room", "disconnect", "can_disconnect"]), names, names, names)
async def test_changes_of_membership_that_are_taken_every_node_reads(
    method: str, sid: Any, namespace: Any, room: Any
) -> None:
    writer = Writer()
    arguments = {
        "close_room": (room, namespace),
        "disconnect": (sid, namespace),
        "can_disconnect": (sid, namespace),
    }.get(method, (sid, namespace, room))
    try:
        await getattr(writer.manager, method)(*arguments)
    except (TypeError, ValueError):
        assert not writer.queued
    list(writer.entries())


@pytest.mark.parametrize(
    ("arguments", "rooms", "skip"),
    [
        ({"to": [None]}, (), ()),
        ({"to": ["red", None]}, (), ()),
        ({"room": {"red"}}, ("red",), ()),
        ({"skip_sid": [None]}, (), ()),
        ({"skip_sid": ["s1", None]}, (), ("s1",)),
        ({"skip_sid": {"s1"}}, (), ("s1",)),
    ],
    ids=str,
)
async def test_none_among_rooms_is_everybody_and_among_ids_nobody(
    arguments: Any, rooms: tuple[Any, ...], skip: tuple[str, ...]
) -> None:
    writer = Writer()
    await writer.manager.emit("e", 1, "/", **arguments)
    (entry,) = writer.entries()
    assert (entry.rooms, entry.skip) == (rooms, skip)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        ("a room must be a str or an int", {"to": [["red"]]}),
        ("a room must be a str or an int", {"to": b"red"}),
        ("a namespace must be a str", {"namespace": 7}),
        ("the name of an event must be a str", {"event": None}),
        ("a callback must be callable", {"callback": "f", "to": "s1"}),
    ],
    ids=str,
)
async def test_what_no_node_could_read_is_refused_at_once(error: str, arguments: dict[str, Any]) -> None:
    writer = Writer()
    with pytest.raises(TypeError, match=error):
        await writer.manager.emit(**{"event": "e", "data": 1, **arguments})
    assert not writer.queued


async def test_an_id_that_is_no_str_is_nobodys() -> None:
    writer = Writer()
    for sid in (None, 7):
        await writer.manager.disconnect(sid, "/")  # type: ignore[arg-type]
        await writer.manager.enter_room(sid, "/", "red")  # type: ignore[arg-type]
        await writer.manager.leave_room(sid, "/", "red")  # type: ignore[arg-type]
    assert not writer.queued
