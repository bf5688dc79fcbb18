"""The events of a burst, which the program sends and the tests expect."""

from __future__ import annotations

#: How many events are in a burst.
COUNT = 300
#: How many events of 20 kB are in a flood: more than TCP takes for a client that does not read.
FLOOD = 1000
#: How long the arguments are, in turn. A node writes up to 128 kB at once past the queue.
SIZES = (10, 200, 1100, 70_000, 30, 5_000, 200, 1, 140_000, 20)


def argument(i: int) -> str | bytes:
    """The argument of event ``i``: text, or bytes for every third."""
    size = SIZES[i % len(SIZES)]
    return bytes([i % 256]) * size if i % 3 == 2 else chr(ord("a") + i % 26) * size


def received(i: int) -> tuple[object, ...]:
    """Event ``i`` as :class:`tests.support.js_clients.JsClient` reports it."""
    sent = argument(i)
    return ("event", i, {"bytes": sent.hex()} if isinstance(sent, bytes) else sent)
