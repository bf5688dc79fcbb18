"""What Redis says about its memory, and what an operator is told of it."""

from __future__ import annotations

import pytest
from socketio_recovery.redis.eviction import eviction_policy, eviction_warning


@pytest.mark.parametrize(
    ("info", "policy"),
    [
        (b"# Memory\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n", ("allkeys-lru", 1000)),
        ("maxmemory:0\nmaxmemory_policy:volatile-ttl\n", ("volatile-ttl", 0)),
        (b"", ("noeviction", 0)),
        (b"maxmemory:?\xff\nno colon\n", ("noeviction", 0)),
    ],
)
def test_the_policy_is_read(info: bytes | str, policy: tuple[str, int]) -> None:
    assert eviction_policy(info) == policy


def test_nothing_is_said_if_nothing_is_evicted() -> None:
    assert eviction_warning("noeviction", 1000) is None


@pytest.mark.parametrize(
    ("policy", "limit", "parts"),
    [
        ("allkeys-lfu", 1000, ["allkeys-lfu", "the log", "1000 bytes", "maxmemory-policy noeviction"]),
        ("volatile-ttl", 0, ["volatile-ttl", "sessions and the notes of closed rooms", "none now"]),
    ],
)
def test_the_warning_says_what_may_be_lost_and_what_to_do(policy: str, limit: int, parts: list[str]) -> None:
    warning = eviction_warning(policy, limit)
    assert warning is not None
    assert [part for part in parts if part not in warning] == []
