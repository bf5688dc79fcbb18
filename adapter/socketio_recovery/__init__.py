"""Connection state recovery for Socket.IO clusters in Python, on Redis Streams."""

from .aio.manager import AsyncRedisStreamsManager
from .aio.stopping import drain_on_sigterm
from .answers import Answers
from .continuity import can_recover
from .errors import (
    HooksReplaced,
    LogRefused,
    OtherPartitions,
    PublishAbandoned,
    PublishTimeout,
    RedisUnavailable,
    SessionGone,
    UnsupportedFormat,
    UnsupportedVersion,
)
from .metrics import Metrics, NoMetrics, Reading
from .participants import Change, Count, Participant, ParticipantState
from .reasons import NODE_LOST, Fate, Outcome
from .threads.manager import RedisStreamsManager

__all__ = [
    "NODE_LOST",
    "Answers",
    "AsyncRedisStreamsManager",
    "Change",
    "Count",
    "Fate",
    "HooksReplaced",
    "LogRefused",
    "Metrics",
    "NoMetrics",
    "OtherPartitions",
    "Outcome",
    "Participant",
    "ParticipantState",
    "PublishAbandoned",
    "PublishTimeout",
    "Reading",
    "RedisStreamsManager",
    "RedisUnavailable",
    "SessionGone",
    "UnsupportedFormat",
    "UnsupportedVersion",
    "can_recover",
    "drain_on_sigterm",
]
__version__ = "0.1.0"
