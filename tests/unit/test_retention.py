"""How far back a client could recover: from notes of where the log ends, and of what it lost."""

from __future__ import annotations

import pytest
from socketio_recovery.retention import NOTES, Extent, Retention, shortage

#: How long entries are kept, in ms.
MOST = 200_000
NOW = 1_000_000


def noted(*extents: tuple[int, int, int, int], epoch: int = 1) -> Retention:
    """After notes of (now, last, ms, lost)."""
    retention = Retention(MOST)
    for now, last, ms, lost in extents:
        retention.note(Extent(now, epoch, last, ms, lost))
    return retention


def test_nothing_is_known_before_it_was_looked_at() -> None:
    assert Retention(MOST).stream(NOW) is None
    assert Retention(MOST).window(5, NOW) is None


def test_a_young_log_reaches_back_as_far_as_anybody_needs() -> None:
    assert noted((NOW, 1, NOW, 0)).stream(NOW + 1000) == MOST / 1000


def test_what_was_lost_before_the_first_note_is_taken_for_old() -> None:
    assert noted((NOW, 500, NOW, 490), (NOW + 2000, 510, NOW + 2000, 490)).stream(NOW + 2000) == MOST / 1000


def test_what_was_lost_since_counts_from_when_it_was_stored() -> None:
    retention = noted((NOW, 100, NOW, 0), (NOW + 2000, 200, NOW + 2000, 0), (NOW + 4000, 300, NOW + 4000, 150))
    # Entry 150 was stored at NOW + 2000 at the latest.
    assert retention.stream(NOW + 4000) == 2
    assert retention.stream(NOW + 10_000) == 8
    assert retention.stream(NOW + 10 * MOST) == MOST / 1000


def test_the_last_entry_was_stored_when_redis_says() -> None:
    """All of a quiet log was deleted, just after the node began to look."""
    assert noted((NOW, 100, NOW - 7000, 100)).stream(NOW) == 7


def test_a_clock_that_is_behind_makes_no_negative_time() -> None:
    assert noted((NOW, 100, NOW, 100)).stream(NOW - 50) == 0


def test_more_was_lost_than_was_noted() -> None:
    retention = noted((NOW, 100, NOW, 0))
    retention.note(Extent(NOW + 100, 1, 100, NOW, 100))  # nothing new was stored
    assert retention.stream(NOW + 3000) == 3
    assert noted((NOW, 100, NOW, 0), (NOW + 1, 101, NOW + 1, 102)).stream(NOW + 2001) == 2


def test_another_epoch_begins_with_nothing_lost() -> None:
    retention = noted((NOW, 100, NOW, 0), (NOW + 2000, 200, NOW + 2000, 200))
    assert retention.stream(NOW + 2000) == 0
    retention.note(Extent(NOW + 3000, 2, 201, NOW + 3000, 0))
    assert retention.stream(NOW + 3000) == MOST / 1000


def test_the_window_reaches_to_where_it_begins_or_to_when_the_node_began() -> None:
    retention = noted((NOW, 100, NOW, 0), (NOW + 2000, 200, NOW + 2000, 0), (NOW + 9000, 300, NOW + 9000, 0))
    assert retention.window(150, NOW + 10_000) == 8
    assert retention.window(50, NOW + 10_000) == 10
    assert retention.window(300, NOW + 10_000) == 1


def test_notes_are_few_and_exact_enough() -> None:
    retention = Retention(MOST)
    for second in range(1000):
        retention.note(Extent(NOW + 1000 * second, 1, 10 * second, NOW + 1000 * second, max(0, 10 * (second - 150))))
    assert len(retention._numbers) <= NOTES + 2
    now = NOW + 999_000
    reaches = retention.stream(now)
    assert reaches is not None
    assert 148 <= reaches <= 150


def test_many_notes_within_a_moment_are_one() -> None:
    retention = Retention(MOST)
    for i in range(100):
        retention.note(Extent(NOW + i, 1, i, NOW + i, 0))
    assert len(retention._numbers) <= 3


@pytest.mark.parametrize("max_length", [0, 1000])
def test_an_operator_is_told_what_to_do(max_length: int) -> None:
    said = shortage(12.34, 120, 1010, max_length, "{chat}:log")
    assert "away for more than 12.3 s" in said
    assert "max_disconnection_duration is 120 s" in said
    if max_length:
        assert "Raise max_length, which is 1000" in said
        assert str(round(1010 * 120 / 12.34 * 1.5)) in said
    else:
        assert "trims or deletes '{chat}:log' in Redis" in said
