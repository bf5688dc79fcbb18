"""The options of a manager, and the durations that follow from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.continuity import can_recover
from socketio_recovery.settings import IDLE, Durations, Settings

OPTIONS: dict[str, Any] = {
    "max_disconnection_duration": 120,
    "skip_connect_handler": False,
    "can_recover": can_recover,
    "max_length": 0,
    "window_bytes": 1 << 20,
    "max_queue": 10,
    "max_queue_bytes": 1 << 20,
    "heartbeat_interval": 10,
    "publish_timeout": 10,
    "handshake_timeout": 10,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_disconnection_duration", 0),
        ("max_disconnection_duration", float("nan")),
        ("max_length", -1),
        ("window_bytes", -1),
        ("max_queue", 0),
        ("max_queue_bytes", 0),
        ("heartbeat_interval", 0),
        ("publish_timeout", -1),
        ("handshake_timeout", 0),
    ],
)
def test_a_number_that_can_not_be_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        Settings(**{**OPTIONS, name: value})


seconds = st.floats(0.01, 1000)


@given(away=seconds, heartbeat=seconds, interval=seconds, timeout=seconds)
def test_what_lives_long_enough(away: float, heartbeat: float, interval: float, timeout: float) -> None:
    settings = Settings(**{**OPTIONS, "max_disconnection_duration": away, "heartbeat_interval": heartbeat})
    durations = Durations.of(settings, interval, timeout)
    unnoticed = 1000 * (interval + 2 * timeout)
    assert durations.max_disconnection == pytest.approx(1000 * away, abs=1)
    # a session whose node died lives until its client has noticed that, and has been away for as long as it may; if the
    # client was idle, its last heartbeat is older
    assert durations.ttl >= durations.max_disconnection + unnoticed + IDLE * 1000 * heartbeat - 1
    assert durations.lease >= 3 * 1000 * heartbeat
    # the log reaches back to whatever a client may still go on from: confirmed by the pong to a ping that was sent
    # before, and stored with the heartbeat of an idle client
    assert durations.retention >= durations.max_disconnection + 2 * unnoticed + IDLE * 1000 * heartbeat - 1
