"""Connection state recovery for Socket.IO clusters in Python, on Redis Streams."""

from .errors import PublishTimeout, RedisUnavailable, SessionGone
from .manager import AsyncRedisStreamsManager, offset_for
from .orphans import NODE_LOST

__all__ = ["NODE_LOST", "AsyncRedisStreamsManager", "PublishTimeout", "RedisUnavailable", "SessionGone", "offset_for"]
__version__ = "0.1.0"
