"""What ``sio.instrument()``, python-socketio's support for the Socket.IO Admin UI, needs beside the hooks.

It wraps the server's methods after this library has, and that works: its wrappers call what they find, and it calls
``sio._handle_eio_connect`` and ``sio._handle_eio_disconnect`` by name, which are hooks. Two things are left.

* It shows rooms when ``manager.basic_enter_room`` and ``basic_leave_room`` are called. The manager calls them for each
  client of its node that enters or leaves a room.
* It forgets when a client connected, in each ``disconnect`` handler. That must not fail where it does not know it: a
  session can have two connections on one node for a moment, and a dead node's sessions end on another node.
"""

from __future__ import annotations


class Timestamps(dict[str, float]):
    """When clients connected, by ``sid`` (seconds since 1970). To forget an unknown one is no error."""

    def __delitem__(self, sid: str) -> None:
        self.pop(sid, None)
