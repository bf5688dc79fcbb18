"""What python-socketio expects of a client manager: :class:`AsyncRedisStreamsManager` takes the place of its own."""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import pytest
import socketio
from fakeredis import FakeAsyncRedis
from socketio import async_admin
from socketio.redis_manager import parse_redis_sentinel_url
from socketio_recovery import AsyncRedisStreamsManager

from .upstream import server

#: What the manager has of its own.
OVERRIDDEN = {
    *("__init__", "set_server", "initialize"),
    *("emit", "trigger_callback"),
    *("enter_room", "leave_room", "close_room", "basic_enter_room", "basic_leave_room"),
    *("pre_connect", "connect", "is_pre_connected", "is_connected"),
    *("can_disconnect", "pre_disconnect", "disconnect"),
    *("sid_from_eio_sid", "eio_sid_from_sid"),
    *("get_namespaces", "get_participants", "get_rooms", "is_sid_room"),
}
#: What it inherits, and why that does no harm.
INHERITED = {
    "basic_disconnect": "only upstream's disconnect calls it",
    "basic_close_room": "only upstream's close_room calls it",
    "_generate_ack_id": "only upstream's emit calls it",
    "_get_logger": "is used as it is",
}
PARENT = socketio.AsyncManager


def functions(owner: type) -> set[str]:
    """The names of the methods of a class and its base classes."""
    return {name for name, value in inspect.getmembers(owner, inspect.isfunction) if value.__module__ != "builtins"}


def test_a_manager_of_python_socketio_has_these_methods_and_no_others() -> None:
    """A new one would work on the registry of the base class, which is empty here."""
    assert functions(PARENT) == OVERRIDDEN | INHERITED.keys()


def test_this_librarys_manager_overrides_them() -> None:
    assert {name for name in functions(PARENT) if name in vars(AsyncRedisStreamsManager)} == OVERRIDDEN


@pytest.mark.parametrize("name", sorted(OVERRIDDEN - {"__init__"}))
def test_an_override_takes_what_python_socketios_method_takes(name: str) -> None:
    """Parameters of the same names, in the same order, and none besides that has to be given."""
    methods = [getattr(owner, name) for owner in (PARENT, AsyncRedisStreamsManager)]
    theirs, ours = (list(inspect.signature(method).parameters.values()) for method in methods)
    named = [p for p in theirs if p.kind is not p.VAR_KEYWORD]
    assert [p.name for p in ours[: len(named)]] == [p.name for p in named]
    for here, there in zip(ours, named, strict=False):
        assert here.default is not here.empty or there.default is there.empty, here.name
    for more in ours[len(named) :]:
        assert more.default is not more.empty or more.kind is more.VAR_KEYWORD, more.name
    if len(named) < len(theirs):
        assert ours[-1].kind is inspect.Parameter.VAR_KEYWORD
    assert len(set(map(inspect.iscoroutinefunction, methods))) == 1


def used_by(owner: type) -> set[str]:
    """What a class uses of ``self.manager`` or ``self.sio.manager``."""
    return set(re.findall(r"self\.(?:sio\.)?manager(?:\s|\\)*\.(\w+)", inspect.getsource(owner)))


def test_the_server_asks_its_manager_for_nothing_else() -> None:
    used = used_by(socketio.AsyncServer) | used_by(socketio.AsyncServer.__mro__[1])
    assert used <= OVERRIDDEN
    assert {"pre_connect", "connect", "disconnect", "emit"} <= used


def test_the_admin_ui_uses_and_replaces_nothing_else() -> None:
    """``sio.instrument()`` reads ``rooms`` and ``host_id``, keeps ``_timestamps``, and wraps three methods."""
    used = used_by(async_admin.InstrumentedAsyncServer)
    kept = {name for name in used if not name.startswith("__")}  # those are the originals of what it wraps
    assert kept - OVERRIDDEN == {"rooms", "host_id", "_timestamps"}
    replaced = set(re.findall(r"self\.sio\.manager\.(\w+) = self\._", inspect.getsource(async_admin)))
    assert replaced == {"basic_enter_room", "basic_leave_room", "emit"}


def test_the_admin_ui_replaces_only_what_works_around_the_hooks() -> None:
    """One hook is wrapped, and the two handlers that it registers call the hooks by name."""
    source = inspect.getsource(async_admin.InstrumentedAsyncServer)
    assert set(re.findall(r"self\.sio\.(_\w+) = self\._", source)) == {"_trigger_event"}
    assert set(re.findall(r"self\.sio\.eio\.(_\w+) = self\._", source)) == {"_ok"}
    assert set(re.findall(r"AsyncSocket\.([a-z_]\w*) = functools", source)) == {
        *("handle_post_request", "_websocket_handler", "_send_ping")
    }
    assert set(re.findall(r"self\.sio\.eio\.on\('(\w+)'", source)) == {"connect", "disconnect"}
    for handler in ("_handle_eio_connect", "_handle_eio_disconnect"):
        method = inspect.getsource(getattr(async_admin.InstrumentedAsyncServer, handler))
        assert f"await self.sio.{handler}(" in method


def test_the_constructor_sets_rooms_which_must_be_possible_though_nothing_is_kept() -> None:
    """``rooms`` is a property here: a view. Its setter exists for this."""
    written = []

    class Manager(socketio.AsyncManager):  # type: ignore[misc]
        @property
        def rooms(self) -> Any:
            return None

        @rooms.setter
        def rooms(self, value: Any) -> None:
            written.append(value)

    Manager()
    assert written == [{}]
    assert AsyncRedisStreamsManager(FakeAsyncRedis()).rooms == {}


def test_the_constructor_sets_the_attributes_that_this_library_reads_or_replaces() -> None:
    manager = PARENT()
    assert {"logger", "server", "json"} <= vars(manager).keys()
    assert (manager.logger, manager.server) == (None, None)


def test_the_constructor_takes_no_arguments() -> None:
    assert list(inspect.signature(PARENT).parameters) == []


def test_set_server_keeps_the_server_and_takes_the_json_module_of_its_packets() -> None:
    manager = PARENT()
    sio = server(client_manager=manager)
    assert manager.server is sio
    assert manager.json is sio.packet_class.json


def test_a_synchronous_server_is_refused_when_it_is_made() -> None:
    """Its methods are none that it awaits: each call would be a coroutine that nobody runs."""
    with pytest.raises(TypeError, match=r"use socketio\.AsyncServer"):
        socketio.Server(async_mode="threading", client_manager=AsyncRedisStreamsManager(FakeAsyncRedis()))


def test_the_logger_is_the_managers_own_or_else_the_servers() -> None:
    own, of_server = logging.getLogger("own"), logging.getLogger("of the server")
    manager = PARENT()
    server(client_manager=manager, logger=of_server)
    assert manager._get_logger() is of_server
    manager.logger = own
    assert manager._get_logger() is own
    assert isinstance(PARENT()._get_logger(), logging.Logger)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("redis+sentinel://one:1,two:2/0/chat", ([("one", 1), ("two", 2)], "chat", {"db": 0})),
        ("redis+sentinel://one:1", ([("one", 1)], None, {})),
        ("redis+sentinel://one:1//chat", ([("one", 1)], "chat", {})),
        ("redis+sentinel://me:secret@one:1/3", ([("one", 1)], None, {"username": "me", "password": "secret", "db": 3})),
        ("valkey+sentinel://:secret@one:1,two:2/0", ([("one", 1), ("two", 2)], None, {"password": "secret", "db": 0})),
    ],
)
def test_a_sentinel_url_gives_hosts_service_and_arguments_of_a_client(url: str, parsed: Any) -> None:
    """``redis_client.py`` gives the hosts and the arguments to ``Sentinel()``."""
    assert parse_redis_sentinel_url(url) == parsed
