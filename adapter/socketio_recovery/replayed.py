"""The messages of events that clients catch up on: when many come back at once, most of them miss the same.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from .packets import Message

#: Bytes of messages that are kept.
REPLAYED = 4 << 20


class Replayed:
    """Messages with their offsets, by the number of their event. The oldest go when there are too many."""

    def __init__(self) -> None:
        self._messages: dict[int, list[Message]] = {}
        self._bytes = 0

    def get(self, n: int) -> list[Message]:
        """The messages of event ``n``; none if they are not kept."""
        return self._messages.get(n, [])

    def keep(self, n: int, messages: list[Message]) -> None:
        """Keeps the messages of event ``n``, which are not kept yet."""
        self._messages[n] = messages
        self._bytes += _size(messages)
        while self._bytes > REPLAYED:
            self._bytes -= _size(self._messages.pop(next(iter(self._messages))))


def _size(messages: Sequence[Message]) -> int:
    return sum(len(message.data) for message in messages)
