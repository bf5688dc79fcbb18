"""The options of a manager, and the durations that follow from them.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypedDict

#: A session whose client is idle is refreshed with every so many heartbeats.
IDLE: Final = 3


class Options(TypedDict, total=False):
    """The options of a manager, as :class:`AsyncRedisStreamsManager` documents them."""

    max_disconnection_duration: float
    skip_connect_handler: bool
    can_recover: Callable[[Mapping[str, Any]], bool]
    max_length: int
    window_bytes: int
    max_queue: int
    max_queue_bytes: int
    heartbeat_interval: float
    publish_timeout: float
    handshake_timeout: float
    inbox: bool
    pubsub_bridge: bool
    shards: int


@dataclass(frozen=True)
class Settings:
    """The options of a manager, as :class:`AsyncRedisStreamsManager` documents them.

    :raises ValueError: for a number that can't be.
    """

    max_disconnection_duration: float
    skip_connect_handler: bool
    can_recover: Callable[[Mapping[str, Any]], bool]
    max_length: int
    window_bytes: int
    max_queue: int
    max_queue_bytes: int
    heartbeat_interval: float
    publish_timeout: float
    handshake_timeout: float
    inbox: bool = True
    pubsub_bridge: bool = False
    shards: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("max_disconnection_duration", 0.001),
            ("max_length", 0),
            ("window_bytes", 0),
            ("max_queue", 1),
            ("max_queue_bytes", 1),
            ("heartbeat_interval", 0.001),
            ("publish_timeout", 0.001),
            ("handshake_timeout", 0.001),
            ("shards", 1),
        ):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")


class Durations(NamedTuple):
    """How long sessions and entries live, in milliseconds."""

    #: How long a detached session waits.
    max_disconnection: int
    #: How long a session lives without a heartbeat.
    ttl: int
    #: How long an owner has, past its session's deadline, to show that it lives.
    lease: int
    #: How long entries are kept.
    retention: int
    #: Between two heartbeats of a node.
    node_heartbeat: int
    #: How long a node counts as alive without one.
    node_lease: int

    @classmethod
    def of(cls, settings: Settings, ping_interval: float, ping_timeout: float) -> Durations:
        """The durations for a server.

        :param ping_interval: of python-engineio, with its grace period, in seconds.
        :param ping_timeout: of python-engineio, in seconds.
        """
        away, heartbeat = settings.max_disconnection_duration, settings.heartbeat_interval
        # The longest time for which a dead client can go unnoticed: a ping, its timeout, and Engine.IO looks at each
        # socket once per timeout.
        unnoticed = ping_interval + 2 * ping_timeout
        return cls(
            max_disconnection=_ms(away),
            ttl=_ms(away + unnoticed + (2 + IDLE) * heartbeat),
            lease=_ms(3 * heartbeat + 3),  # 3 s: an owner that lost Redis may wait so long before its next try
            retention=_ms(away + 2 * (unnoticed + 2 * heartbeat)),
            node_heartbeat=max(1, _ms(heartbeat / 5)),
            node_lease=_ms(3 * heartbeat / 5 + 1),
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
