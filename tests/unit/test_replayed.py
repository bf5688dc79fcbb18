"""Messages that clients which recover at once share."""

from __future__ import annotations

import pytest
from socketio_recovery import replayed
from socketio_recovery.packets import Message
from socketio_recovery.replayed import Replayed


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "REPLAYED", 10)
    kept = Replayed()
    messages = {n: [Message("x" * 2), Message(b"y" * 2)] for n in range(1, 4)}
    for n, some in messages.items():
        kept.keep(n, some)
    assert [kept.get(n) for n in range(4)] == [[], [], messages[2], messages[3]]
    kept.keep(4, [Message("x" * 11)])
    assert [kept.get(n) for n in range(5)] == [[]] * 5
    kept.keep(5, [Message("x")])
    assert len(kept.get(5)) == 1
