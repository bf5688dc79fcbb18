"""The hooks in a synchronous server, where the core has ended."""

from __future__ import annotations

import socketio
from socketio_recovery import RedisStreamsManager


def test_a_transport_that_is_lost_while_the_process_ends_is_no_error() -> None:
    manager = RedisStreamsManager()
    server = socketio.Server(async_mode="threading", client_manager=manager)
    manager.close()
    server._handle_eio_disconnect("transport", "transport close")
