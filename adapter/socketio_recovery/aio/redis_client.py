"""Redis clients for URLs, in the forms that python-socketio's ``AsyncRedisManager`` takes."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlparse


def client_for(url: str, options: dict[str, Any], service: str) -> Any:
    """An asyncio client for a URL.

    :param url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``, or
        ``redis+sentinel://[user:password@]host:port,host:port/db/service`` (or ``valkey+sentinel://``).
    :param options: keyword arguments for ``Redis.from_url()``, or for ``Sentinel()``.
    :param service: the Sentinel service, if the URL names none.
    :raises ValueError: for another URL.
    :raises RuntimeError: if the package the URL needs is not installed.
    """
    scheme = urlparse(url).scheme.lower()
    family = "valkey" if scheme.startswith("valkey") else "redis"
    if scheme not in ("redis", "rediss", "unix", "valkey", "valkeys", "redis+sentinel", "valkey+sentinel"):
        raise ValueError(
            f"unsupported Redis URL scheme {scheme!r}: use redis://, rediss://, unix://, valkey://, valkeys://, "
            "redis+sentinel:// or valkey+sentinel://"
        )
    try:
        module = import_module(family + ".asyncio")
    except ImportError:
        raise RuntimeError(f"{url.split(':')[0]}:// needs the package {family}: pip install {family}") from None
    if not scheme.endswith("+sentinel"):
        return getattr(module, family.capitalize()).from_url(url, **options)
    from socketio.redis_manager import parse_redis_sentinel_url

    hosts, name, connection = parse_redis_sentinel_url(url)
    sentinel = import_module(family + ".asyncio.sentinel").Sentinel(hosts, **{**options, **connection})
    return sentinel.master_for(name or service)
