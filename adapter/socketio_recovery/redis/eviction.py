"""What Redis may remove when it is full, from what ``INFO memory`` says.  No I/O.

https://redis.io/docs/latest/develop/reference/eviction/
"""

from __future__ import annotations


def eviction_policy(info: bytes | str) -> tuple[str, int]:
    """``maxmemory-policy``, and ``maxmemory`` in bytes (0 = no limit). What is not said is ``noeviction``, 0."""
    text = info.decode(errors="replace") if isinstance(info, bytes) else info
    said = dict(line.strip().partition(":")[::2] for line in text.splitlines())
    limit = said.get("maxmemory", "")
    return said.get("maxmemory_policy", "noeviction"), int(limit) if limit.isdecimal() else 0


def eviction_warning(policy: str, limit: int) -> str | None:
    """What an operator should know of a policy; ``None`` for the one that this library needs."""
    if policy == "noeviction":
        return None
    volatile = policy.startswith("volatile-")
    lost = "sessions and the notes of closed rooms" if volatile else "sessions, and the log with all events,"
    when = f"when it is full (maxmemory is {limit} bytes)" if limit else "once it has a maxmemory (it has none now)"
    return (
        f"Redis has maxmemory-policy {policy}: it may remove {lost} {when}. Clients could not recover then. Set "
        "maxmemory-policy noeviction, and give Redis enough memory, or a server of its own"
    )
