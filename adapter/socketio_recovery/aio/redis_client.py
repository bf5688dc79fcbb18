"""Redis clients for URLs, in the forms that python-socketio's ``AsyncRedisManager`` takes."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import ParseResult, unquote, urlparse

#: The part of a URL's scheme that says what is behind it.
_SENTINEL, _CLUSTER = "+sentinel", "+cluster"
SCHEMES = (
    *("redis", "rediss", "unix", "valkey", "valkeys", "redis+sentinel", "valkey+sentinel"),
    *("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster"),
)


def client_for(url: str, options: dict[str, Any], service: str) -> Any:
    """An asyncio client for a URL.

    :param url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``, or
        ``redis+sentinel://[user:password@]host:port,host:port/db/service`` (or ``valkey+sentinel://``), or
        ``redis+cluster://[user:password@]host:port,host:port`` (or ``rediss+cluster://``, ``valkey+cluster://``,
        ``valkeys+cluster://``), which names some servers of the cluster.
    :param options: keyword arguments for ``Redis.from_url()``, for ``Sentinel()``, or for ``RedisCluster()``.
    :param service: the Sentinel service, if the URL names none.
    :raises ValueError: for another URL.
    :raises RuntimeError: if the package the URL needs is not installed.
    """
    scheme = urlparse(url).scheme.lower()
    family = "valkey" if scheme.startswith("valkey") else "redis"
    if scheme not in SCHEMES:
        known = [f"{name}://" for name in SCHEMES]
        raise ValueError(f"unsupported Redis URL scheme {scheme!r}: use {', '.join(known[:-1])} or {known[-1]}")
    try:
        module = import_module(family + ".asyncio")
    except ImportError:
        raise RuntimeError(f"{url.split(':')[0]}:// needs the package {family}: pip install {family}") from None
    if scheme.endswith(_CLUSTER):
        return _cluster_client(urlparse(url), family, options)
    if not scheme.endswith(_SENTINEL):
        return getattr(module, family.capitalize()).from_url(url, **options)
    from socketio.redis_manager import parse_redis_sentinel_url

    hosts, name, connection = parse_redis_sentinel_url(url)
    sentinel = import_module(family + ".asyncio.sentinel").Sentinel(hosts, **{**options, **connection})
    return sentinel.master_for(name or service)


def _cluster_client(url: ParseResult, family: str, options: dict[str, Any]) -> Any:
    """A client for Redis Cluster.

    :raises ValueError: for a URL that is not ``<scheme>://[user:password@]host:port,host:port``.
    """
    module = import_module(family + ".asyncio.cluster")
    form = f"{url.scheme}://[user:password@]host:port,host:port"
    nodes = []
    for place in url.netloc.rpartition("@")[2].split(","):
        host, colon, port = place.rpartition(":")
        if not host or not colon or not port.isdecimal():
            raise ValueError(f"{place!r} is not host:port: a cluster's URL has the form {form}")
        nodes.append(module.ClusterNode(host.strip("[]"), int(port)))
    if url.path not in ("", "/", "/0"):
        raise ValueError(f"Redis Cluster has no databases, so {url.path!r} can't be used: the form is {form}")
    if url.query:
        raise ValueError(f"options can't be in a cluster's URL: pass {url.query!r} as redis_options")
    login = {"username": unquote(url.username) if url.username else None}
    login["password"] = unquote(url.password) if url.password else None
    given = {name: value for name, value in login.items() if value is not None}
    if url.scheme.startswith(("rediss", "valkeys")):
        given["ssl"] = True  # type: ignore[assignment]
    return getattr(module, family.capitalize() + "Cluster")(startup_nodes=nodes, **{**options, **given})
