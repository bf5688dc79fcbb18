"""Events between nodes: entries of the log that no client gets. Each other node runs its handler for them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from ..entries import Entry, callback_head, payload_fields, server_head
from ..packets import Codec
from .log import Append, Log
from .tasks import KeyedQueue

#: What an application registers: called with the arguments of the event. What it returns is this node's answer.
ServerSideHandler = Callable[..., Any]


def server_side_entry(codec: Codec, node: str, event: str, arguments: tuple[Any, ...], id: int = 0) -> Append:
    """An event to all nodes but ``node``, which emits it.

    :param id: the number by which the others answer; 0 if they are not asked to.
    :raises TypeError: for an event that is no str, and for arguments that can't be serialised.
    """
    if not isinstance(event, str):
        raise TypeError(f"the name of an event must be a str, not {type(event).__name__}: {event!r}")
    payload = codec.encode(arguments)
    return Append(server_head(node, id, str.__str__(event), payload), payload_fields(payload))


class ServerSide:
    """The handlers of one node.

    :param tasks: runs them: those for one event of one process in order.
    """

    def __init__(self, log: Log, codec: Codec, tasks: KeyedQueue, logger: logging.Logger) -> None:
        #: This node's name.
        self.node = ""
        self.log = log
        self.codec = codec
        self.tasks = tasks
        self.logger = logger
        self._handlers: dict[str, ServerSideHandler] = {}

    def handle(self, event: str, handler: ServerSideHandler) -> None:
        """Has ``handler`` run for an event from now on, in place of the one before."""
        self._handlers[event] = handler

    def received(self, entry: Entry) -> None:
        """Another process emitted an event: starts to run its handler, and to answer."""
        assert entry.callback is not None
        emitter, id = entry.callback
        handler = self._handlers.get(entry.event)
        if handler is not None or id:
            self.tasks.start(("server_side", entry.event, emitter), lambda: self._run(entry, handler))

    async def _run(self, entry: Entry, handler: ServerSideHandler | None) -> None:
        assert entry.callback is not None
        if not entry.callback[1]:
            await self._handle(entry, handler)  # what it raises is logged
            return
        try:
            answer = self.codec.encode((True, await self._handle(entry, handler)))
        except Exception as error:  # also if what it returned can't be serialised
            if handler is not None:
                self.logger.exception("the handler of the server-side event %r failed", entry.event)
            answer = self.codec.encode((False, f"{type(error).__name__}: {error}"))
        await self.log.append(Append(callback_head(*entry.callback, answer, self.node), payload_fields(answer)))

    async def _handle(self, entry: Entry, handler: ServerSideHandler | None) -> Any:
        if handler is None:
            raise LookupError(f"no handler is registered for {entry.event!r}")
        assert entry.payload is not None
        result = handler(*self.codec.decode(entry.payload))
        return await result if inspect.isawaitable(result) else result
