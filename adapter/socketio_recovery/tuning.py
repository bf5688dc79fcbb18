"""What a process with many clients sets once, when it starts: the garbage collector, open files, the listen backlog.

Nothing here is done by itself: it concerns the whole process, which may hold more than this library.

Garbage collection.  Python frees what is no longer used at once, by counting references. The collector is only for
what refers to itself in a circle. It often looks at young objects, which is cheap: they are still in the processor's
cache. Those that stay it looks at once more, after ten such *young* collections, in a *middle* one: each takes more
than twice as long then. And now and then it looks at all objects there are: a *full* collection. A client that
connects makes hundreds of objects that stay. So when thousands come at once there are several full collections, and
each holds up everything for up to a second, to find next to nothing: half of the processor's time goes into that. See
https://docs.python.org/3/library/gc.html.
"""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import Final

try:
    import resource
except ImportError:  # pragma: no cover - not on Windows
    resource = None  # type: ignore[assignment]

_LOGGER: Final = logging.getLogger(__name__)
#: One of the middle generation comes after more young ones than this: few, so that objects are still in the cache.
MIDDLE: Final = 3
#: Collections of the middle generation before a full one.
FULL: Final = 2500
#: Connections that wait until the process accepts them.
BACKLOG: Final = 4096
#: Connections of clients that a process is prepared for.
CLIENTS: Final = 10_000
#: Files that are open besides the connections of clients.
OTHER_FILES: Final = 200
_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")


def collect_less(full: int = FULL) -> None:
    """Makes full garbage collections rare. Call it once, when the application has imported and built what it needs.

    It collects once, and *freezes* what there is: the collector does not look at that any more. From then on a full
    collection comes after ``full`` of the middle ones. Young objects are looked at as often as before, and those that
    stay sooner, which takes a quarter off both. So circles of objects that have become old before nothing refers to
    them any more stay for longer. A client that has left leaves some 30 such objects; with some 280 objects for each
    that connects, a full collection comes after 25,000 of them.

    :param full: collections of the middle generation; 2,500 by default. Python has 10.
    :raises ValueError: if it is not above 0.
    """
    if full <= 0:
        raise ValueError("full must be above 0: use gc.disable() to turn the collector off")
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    if sys.version_info < (3, 14):  # from then on this number says how little of what is old each collection looks at
        middle = MIDDLE
    gc.set_threshold(young, middle, full)


def allow_files(clients: int = CLIENTS) -> int:
    """Lets the process have so many connections of clients at once: each is an open file.

    It raises the soft limit (``ulimit -n``) up to the hard one. If that is too low, it logs a warning which says how
    many clients fit; only the operator can raise it (``docs/deploying.md``, Linux).

    :param clients: connections that are expected on this process at most; 10,000 by default.
    :returns: how many there can be.
    :raises ValueError: if ``clients`` is not above 0.
    """
    if clients <= 0:
        raise ValueError("clients must be above 0")
    if resource is None:  # pragma: no cover - Windows has no such limit
        return clients
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _LOGGER.warning(
            "%d clients need %d open files, and this process may have %d: raise the hard limit (ulimit -Hn, "
            "LimitNOFILE=, docker run --ulimit nofile=%d)",
            clients,
            wanted,
            soft,
            wanted,
        )
        return max(0, soft - OTHER_FILES)
    return clients


def backlog(wanted: int = BACKLOG) -> int:
    """How many connections may wait until the process accepts them, for ``listen()``: what Linux allows of ``wanted``.

    When a node dies, its clients come to the others at once. If the backlog is full, Linux does not answer, and a
    client tries again after 1 s, then 3 s, then 7 s. Servers have 128 (aiohttp), 2048 (uvicorn, gunicorn) or 100
    (hypercorn, asyncio) by default: give them this. A warning says so if Linux allows less than ``wanted``.

    :param wanted: connections; 4096 by default.
    """
    try:
        allowed = int(_SOMAXCONN.read_text())
    except (OSError, ValueError):  # not Linux
        return wanted
    if allowed < wanted:
        _LOGGER.warning(
            "Linux lets %d connections wait, not %d: raise it with sysctl -w net.core.somaxconn=%d",
            allowed,
            wanted,
            wanted,
        )
    return min(allowed, wanted)
