"""How much to read at once: as many entries as fit, whatever their size."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.read_size import EXCESS, FIRST, ReadSize


def items(count: int, size: int) -> list[Any]:
    """What Redis returns: ``count`` entries of ``size`` bytes."""
    return [(b"1-%d" % n, [b"head", b"x" * (size - 4)]) for n in range(count)]


def settled(size: ReadSize, each: int) -> int:
    """The count after many reads of entries that have ``each`` bytes."""
    for _ in range(20):
        size.read(items(size.count, each))
    return size.count


def test_the_first_read_is_a_small_one() -> None:
    assert ReadSize(512, 1 << 20).count == FIRST
    assert ReadSize(5, 1 << 20).count == 5


@given(each=st.integers(10, 5000), most=st.integers(1, 600))
def test_the_count_follows_the_size_of_entries(each: int, most: int) -> None:
    assert settled(ReadSize(most, 10_000), each) == max(1, min(most, 10_000 // each))


def test_it_grows_slowly_and_shrinks_at_once() -> None:
    size = ReadSize(512, 100_000)
    counts = []
    for _ in range(4):
        size.read(items(size.count, 10))
        counts.append(size.count)
    assert counts == [4 * FIRST, 512, 512, 512]
    size.read(items(3, 25_000))
    assert size.count == 4


def test_a_reply_with_fewer_entries_than_asked_for_tells_their_size_as_well() -> None:
    size = ReadSize(512, 1000)
    size.read(items(2, 100))
    assert size.count == 10


def test_the_bytes_of_the_reply_count_if_they_are_known() -> None:
    size = ReadSize(512, 1000)
    size.read(items(10, 10), 1000)
    assert size.count == 10


def test_nothing_read_changes_nothing() -> None:
    size = ReadSize(512, 1000)
    size.read([], 17)
    assert size.count == FIRST


def test_entries_without_bytes_do_no_harm() -> None:
    size = ReadSize(512, 1000)
    size.read([(b"1-1", [])])
    assert size.count == 4 * FIRST


@given(most=st.integers(1, 1000), gives_up=st.integers(0, 6))
def test_a_reply_that_was_too_large_is_asked_for_in_parts_until_one_entry_has_to_come(most: int, gives_up: int) -> None:
    size = ReadSize(most, 1000)
    for _ in range(gives_up):
        before = size.count
        size.too_large()
        assert 1 <= size.count <= before
        assert size.count < before or before == 1
    assert size.limit == (1000 * EXCESS if size.count > 1 else 0)
    for _ in range(6):
        size.too_large()
    assert (size.count, size.limit) == (1, 0)
