"""The table of what is relied on: it is complete, and what is missing is named.

Also what happens when something else takes a hook away after the manager was set.
"""

from __future__ import annotations

import asyncio
import inspect
import pkgutil
import re
from collections.abc import AsyncIterator, Callable
from importlib import import_module, metadata
from types import MethodType
from typing import Any

import engineio
import pytest
import socketio
from fakeredis import FakeAsyncRedis
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.aio.upstream.table import (
    ASGI_ATTRIBUTES,
    ASGI_PROTOCOLS,
    ATTRIBUTES,
    ENGINEIO_ATTRIBUTES,
    HOOKS,
    RELIED_ON,
    AsgiProtocol,
    Target,
    missing,
    verify,
)
from socketio_recovery.errors import HooksReplaced, UnsupportedVersion

import tests.contract
from tests.support.paths import ROOT
from tests.support.waiting import until

from .upstream import COVERED, Client, open_websocket, relies_on, server

TARGETS = HOOKS + RELIED_ON


def line(target: Target) -> str:
    """How tests name a line of the table: package, class and name."""
    return f"{target.owner.__module__.split('.')[0]}.{target.owner.__qualname__}.{target.name}"


def attributes(known: AsgiProtocol) -> tuple[str, ...]:
    """What is used of one of uvicorn's implementations."""
    return (known.send, known.state, known.busy, known.extensions, *ASGI_ATTRIBUTES)


# -- the table ------------------------------------------------------------------------------------------


@relies_on("socketio.AsyncServer().eio")
def test_each_line_of_the_table_has_a_contract_test_and_each_test_a_line() -> None:
    for module in pkgutil.iter_modules(tests.contract.__path__):
        import_module(f"tests.contract.{module.name}")
    lines = {line(target) for target in TARGETS}
    lines |= {f"socketio.AsyncServer().{name}" for name in ATTRIBUTES}
    lines |= {f"engineio.AsyncServer().{name}" for name in ENGINEIO_ATTRIBUTES}
    lines |= {f"uvicorn.{known.name}.{attribute}" for known in ASGI_PROTOCOLS for attribute in attributes(known)}
    assert lines - COVERED == set()
    assert COVERED - lines == set()


@pytest.mark.parametrize("target", TARGETS, ids=line)
def test_what_is_installed_has_it(target: Target) -> None:
    assert missing((target,)) == []
    assert target.why


@pytest.mark.parametrize("target", HOOKS, ids=line)
def test_a_hook_is_a_coroutine_function_of_the_async_server(target: Target) -> None:
    """The server awaits it."""
    assert inspect.iscoroutinefunction(getattr(target.owner, target.name))


@pytest.mark.parametrize("target", HOOKS, ids=line)
def test_a_hook_is_called_with_no_other_parameters(target: Target) -> None:
    """A new parameter would be dropped by the wrapper, or would be an error there."""
    parameters = inspect.signature(getattr(target.owner, target.name)).parameters
    assert tuple(parameters)[1:] == target.parameters


@pytest.mark.parametrize("name", [target.name for target in TARGETS] + [*ATTRIBUTES, *ENGINEIO_ATTRIBUTES])
def test_the_page_about_it_names_each_line(name: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / "docs" / "upstream.md").read_text())


@pytest.mark.parametrize("known", ASGI_PROTOCOLS, ids=lambda known: known.name)
def test_the_page_about_it_names_what_is_used_of_uvicorn(known: AsgiProtocol) -> None:
    page = (ROOT / "docs" / "upstream.md").read_text()
    assert [name for name in (known.name, *attributes(known)) if f"`{name}`" not in page] == []


# -- verify ---------------------------------------------------------------------------------------------


def take_away(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Removes a method from a class and from its base classes, as a release without it."""
    for cls in owner.__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)


def named(error: pytest.ExceptionInfo[UnsupportedVersion]) -> str:
    """What an error says, which must name the versions that are installed."""
    text = str(error.value)
    for package in ("python-socketio", "python-engineio"):
        assert f"{package} {metadata.version(package)}" in text
    assert "known to work with" in text
    return text


@pytest.mark.parametrize("target", TARGETS, ids=line)
def test_a_method_that_is_missing_is_named_with_the_versions(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    sio = server()
    take_away(monkeypatch, target.owner, target.name)
    with pytest.raises(UnsupportedVersion) as error:
        verify(sio)
    assert f"{target.owner.__module__}.{target.owner.__qualname__}.{target.name}" in named(error)


@pytest.mark.parametrize("target", [target for target in TARGETS if target.parameters], ids=line)
def test_a_parameter_that_is_renamed_is_named_with_the_method(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    sio = server()
    monkeypatch.setattr(target.owner, target.name, lambda self, other: None)
    with pytest.raises(UnsupportedVersion) as error:
        verify(sio)
    assert target.parameters is not None
    assert f"{target.parameters[0]}" in named(error)
    assert f"{target.owner.__module__}.{target.owner.__qualname__}.{target.name}()" in str(error.value)


class Without:
    """A server that lacks an attribute."""

    def __init__(self, original: Any, name: str, **replaced: Any) -> None:
        self._original = original
        self._name = name
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._original, name)


@pytest.mark.parametrize("name", sorted(set(ATTRIBUTES) - {"eio"}))
def test_an_attribute_of_the_server_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(UnsupportedVersion) as error:
        verify(Without(server(), name))
    assert f"socketio.AsyncServer().{name}" in named(error)


@pytest.mark.parametrize("name", ENGINEIO_ATTRIBUTES)
def test_an_attribute_of_the_engineio_server_that_is_missing_is_named(name: str) -> None:
    sio = server()
    with pytest.raises(UnsupportedVersion) as error:
        verify(Without(sio, "", eio=Without(sio.eio, name)))
    assert f"engineio.AsyncServer().{name}" in named(error)


@relies_on("socketio.AsyncServer().eio")
def test_a_server_without_an_engineio_server_is_named() -> None:
    with pytest.raises(UnsupportedVersion) as error:
        verify(Without(server(), "eio"))
    assert "socketio.AsyncServer().eio" in named(error)


def test_a_method_that_somebody_has_wrapped_to_take_anything_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tracers do, and ``mock.patch.object``."""
    emit = socketio.AsyncServer.emit

    async def traced(*args: Any, **kwargs: Any) -> Any:
        return await emit(*args, **kwargs)

    monkeypatch.setattr(socketio.AsyncServer, "emit", traced)
    verify(socketio.AsyncServer(async_mode="asgi"))


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sio = server()
    take_away(monkeypatch, socketio.AsyncServer, "_trigger_event")
    take_away(monkeypatch, engineio.AsyncServer, "generate_id")
    with pytest.raises(UnsupportedVersion) as error:
        verify(sio)
    assert "socketio.async_server.AsyncServer._trigger_event" in named(error)
    assert "engineio.async_server.AsyncServer.generate_id" in str(error.value)


def test_a_server_that_this_library_does_not_work_with_is_refused_when_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before any client connects."""
    take_away(monkeypatch, engineio.AsyncServer, "generate_id")
    with pytest.raises(UnsupportedVersion, match="generate_id"):
        socketio.AsyncServer(async_mode="asgi", client_manager=AsyncRedisStreamsManager(FakeAsyncRedis()))


# -- hooks that were taken away -------------------------------------------------------------------------


@pytest.fixture
async def sio() -> AsyncIterator[Any]:
    """A server with this library's manager, on a fake Redis."""
    manager = AsyncRedisStreamsManager(FakeAsyncRedis())
    made = server(client_manager=manager)
    made.on("connect", lambda sid, environ, auth: None)
    yield made
    await manager.close()


async def connects(sio: Any) -> tuple[Client, list[BaseException]]:
    """A client sends CONNECT. Returns it with what ``pre_connect`` raised."""
    raised: list[BaseException] = []
    original = sio.manager.pre_connect
    called = 0

    async def pre_connect(transport: str, namespace: str) -> Any:
        nonlocal called
        called += 1
        try:
            return await original(transport, namespace)
        except BaseException as error:
            raised.append(error)
            raise

    sio.manager.pre_connect = pre_connect
    client = await open_websocket(sio)
    client.websocket.client_sends("40")
    await until(lambda: raised or any(str(m).startswith("40") for m in client.websocket.sent), "an outcome")
    assert called == 1
    return client, raised


async def test_with_all_hooks_in_place_a_client_connects_and_gets_its_pid(sio: Any) -> None:
    client, raised = await connects(sio)
    assert raised == []
    [greeting] = [m for m in client.websocket.sent if str(m).startswith("40")]
    assert '"pid":' in str(greeting)
    await client.leave()


@pytest.mark.parametrize("name", [target.name for target in HOOKS])
@pytest.mark.parametrize("how", ["deleted", "set back"])
async def test_a_method_that_was_put_back_is_named_when_the_first_client_connects(
    sio: Any, name: str, how: str
) -> None:
    """Recovery would be off silently. Everything else that is in the way of it is named, too."""
    if how == "deleted":
        delattr(sio, name)
    else:
        setattr(sio, name, MethodType(getattr(socketio.AsyncServer, name), sio))
    client, [error] = await connects(sio)
    assert isinstance(error, HooksReplaced)
    assert name in str(error)
    await client.leave()


ENGINEIO_HANDLERS = {
    "connect": "_handle_eio_connect",
    "message": "_handle_eio_message",
    "disconnect": "_handle_eio_disconnect",
}


@pytest.mark.parametrize("event", ENGINEIO_HANDLERS)
async def test_an_engineio_handler_that_was_put_back_is_named(sio: Any, event: str) -> None:
    original = MethodType(getattr(socketio.AsyncServer, ENGINEIO_HANDLERS[event]), sio)
    sio.eio.on(event, original)
    client, [error] = await connects(sio)
    assert isinstance(error, HooksReplaced)
    assert f"the Engine.IO handler of {event!r}" in str(error)
    await client.leave()


async def test_an_engineio_connect_handler_that_does_not_call_the_hook_is_named(sio: Any) -> None:
    async def own(transport: str, environ: Any) -> None:
        sio.environ[transport] = environ

    sio.eio.on("connect", own)
    client, [error] = await connects(sio)
    assert "the Engine.IO handler of 'connect'" in str(error)
    await client.leave()


async def test_a_handle_connect_that_does_not_call_the_hook_is_named(sio: Any) -> None:
    original = MethodType(socketio.AsyncServer._handle_connect, sio)

    async def own(transport: str, namespace: str, data: Any) -> None:
        await original(transport, namespace, data)

    sio._handle_connect = own
    client, [error] = await connects(sio)
    assert isinstance(error, HooksReplaced)
    assert "_handle_connect" in str(error)
    await client.leave()


async def test_queues_that_are_made_elsewhere_are_named(sio: Any) -> None:
    sio.eio.create_queue = asyncio.Queue
    client, [error] = await connects(sio)
    assert "create_queue" in str(error)
    await client.leave()


async def test_the_transport_is_closed_so_that_no_client_waits_for_ever(sio: Any) -> None:
    del sio._trigger_event
    client, [error] = await connects(sio)
    assert isinstance(error, HooksReplaced)
    await client.task
    assert client.websocket.closed


def wrapped(original: Callable[..., Any], calls: list[str], name: str) -> Callable[..., Any]:
    """Calls through."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return await original(*args, **kwargs)

    return wrapper


async def test_wrappers_that_call_what_they_find_are_accepted(sio: Any) -> None:
    """Around each hook and each Engine.IO handler, also those that call a hook by its name as ``instrument()`` does."""
    calls: list[str] = []
    for target in HOOKS:
        setattr(sio, target.name, wrapped(getattr(sio, target.name), calls, target.name))
    for event, name in ENGINEIO_HANDLERS.items():
        sio.eio.on(event, wrapped(getattr(sio, name), calls, event))
    client, raised = await connects(sio)
    assert raised == []
    assert {"connect", "_handle_eio_connect", "message", "_handle_connect", "_trigger_event", "_send_packet"} <= set(
        calls
    )
    await client.leave()


async def test_the_hooks_are_looked_at_once(sio: Any) -> None:
    client, raised = await connects(sio)
    assert raised == []
    del sio._trigger_event
    second, raised = await connects(sio)
    assert raised == []
    for one in (client, second):
        await one.leave()
