"""What ``sio.instrument()``, python-socketio's support for the Socket.IO Admin UI, needs beside the hooks.

It wraps the server's methods after this library has, and that works: its wrappers call what they find, and it calls
``sio._handle_eio_connect`` and ``sio._handle_eio_disconnect`` by name, which are hooks. Three things are left.

* It shows rooms when ``manager.basic_enter_room`` and ``basic_leave_room`` are called. The manager calls them for each
  client of its node that enters or leaves a room.
* It emits before it lets a handler run and before each ping. If Redis does not take such an event, handlers and pings
  must go on all the same: the manager only logs it.
* It forgets when a client connected, in each ``disconnect`` handler. That must not fail where it does not know it: a
  session can have two connections on one node for a moment, and a dead node's sessions end on another node.
"""

from __future__ import annotations

from typing import Any

from socketio.admin import InstrumentedServer
from socketio.async_admin import InstrumentedAsyncServer


class Timestamps(dict[str, float]):
    """When clients connected, by ``sid`` (seconds since 1970). To forget an unknown one is no error."""

    def __delitem__(self, sid: str) -> None:
        self.pop(sid, None)


class KeepsTimestamps:
    """A manager in which ``sio.instrument()`` keeps when clients connected."""

    @property
    def _timestamps(self) -> Timestamps:
        return self._timestamps_of_admin_ui

    @_timestamps.setter
    def _timestamps(self, value: dict[str, float]) -> None:
        self._timestamps_of_admin_ui = Timestamps(value)


def is_admin_ui(server: Any, namespace: str) -> bool:
    """Whether a namespace of a server is the Admin UI's.

    :param server: a Socket.IO server, or ``None``.
    """
    handler = server.handlers.get(namespace, {}).get("connect") if server is not None else None
    return isinstance(getattr(handler, "__self__", None), (InstrumentedAsyncServer, InstrumentedServer))
