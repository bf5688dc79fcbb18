"""The log's cursor: what a node concludes from what it reads, without a connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.entries import EPOCH, Position
from socketio_recovery.errors import LogBroken
from socketio_recovery.log_cursor import LogCursor, Restart
from socketio_recovery.reasons import RestartReason

from tests.support.logger import LOGGER


def item(n: int, epoch: int = 7, ms: int | None = None) -> Any:
    fields = [b"epoch", b"%d" % epoch, b"head", b'["event","/"]', b"data", b'["e"]']
    return (f"{1000 + n if ms is None else ms}-{n}".encode(), fields)


def cursor_at(n: int, epoch: int = 7) -> LogCursor:
    cursor = LogCursor(LOGGER)
    cursor.begin(RestartReason.BOOT, Position(epoch, n), 1000 + n)
    return cursor


def told(cursor: LogCursor, items: list[Any], since: str | None = None) -> list[Any]:
    """The verdicts, with batches as their numbers."""
    verdicts = cursor.read(items, cursor.id if since is None else since)
    return [verdict if isinstance(verdict, Restart) else [entry.n for entry in verdict] for verdict in verdicts]


@given(first=st.integers(0, 5), known=st.integers(0, 10), count=st.integers(0, 10), overlap=st.integers(0, 10))
def test_what_reader_and_writer_have_both_read_is_dispatched_once(
    first: int, known: int, count: int, overlap: int
) -> None:
    cursor = cursor_at(first)
    since = cursor.id
    numbers = range(first + 1, first + known + 1)
    assert told(cursor, [item(n) for n in numbers]) == ([list(numbers)] if known else [])
    start = first + max(0, known - overlap)
    more = [item(n) for n in range(start + 1, first + known + count + 1)]
    new = list(range(first + known + 1, first + known + count + 1))
    assert told(cursor, more, since if known else None) == ([new] if new else [])
    assert cursor.at == Position(7, first + known + count)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from(["gap", "epoch"]), st.integers(1, 4)), max_size=7),
)
def test_each_hole_is_told_between_the_batches_around_it(sizes: list[int], holes: list[tuple[str, int]]) -> None:
    cursor = cursor_at(0)
    items: list[Any] = []
    expected: list[Any] = []
    n, epoch = 0, 7
    for i, size in enumerate(sizes):
        if 0 < i <= len(holes):
            kind, by = holes[i - 1]
            n, epoch = (n + by, epoch) if kind == "gap" else (by, epoch + by)
            why = RestartReason.TRIMMED if kind == "gap" else RestartReason.EPOCH
            expected.append(Restart(Position(epoch, n), why))
        batch = list(range(n + 1, n + size + 1))
        items += [item(number, epoch, 2000 + len(items) + k) for k, number in enumerate(batch)]
        if expected and isinstance(expected[-1], list):
            expected[-1] = expected[-1] + batch
        else:
            expected.append(batch)
        n += size
    assert told(cursor, items) == expected
    assert cursor.at == Position(epoch, n)


@given(last=st.integers(1, 20), again=st.integers(1, 20), before=st.integers(0, 5))
def test_a_number_that_comes_again_breaks_the_log(last: int, again: int, before: int) -> None:
    cursor = cursor_at(last)
    numbers = [*range(last + 1, last + before + 1), min(again, last + before)]
    with pytest.raises(LogBroken) as error:
        told(cursor, [item(n, ms=5000 + i) for i, n in enumerate(numbers)])
    assert cursor.at == Position(7, last + before)
    assert not cursor.broken
    cursor.break_(error.value)
    assert cursor.broken


@given(epoch=st.integers(1, 6), n=st.integers(1, 20), before=st.integers(0, 5))
def test_an_older_epoch_that_comes_again_breaks_the_log(epoch: int, n: int, before: int) -> None:
    """A server took over that had not heard of this epoch yet: what clients saw in it is lost."""
    cursor = cursor_at(3)
    with pytest.raises(LogBroken) as error:
        told(cursor, [*(item(3 + i) for i in range(1, before + 1)), item(n, epoch, 5000)])
    assert cursor.at == Position(7, 3 + before)
    cursor.break_(error.value)
    assert cursor.broken


def test_what_was_found_late_does_not_break_the_next_epoch() -> None:
    cursor = cursor_at(3)
    error = LogBroken(7, "lost")
    cursor.begin(RestartReason.EPOCH, Position(8, 1), 5000)
    cursor.break_(error)
    assert not cursor.broken


def test_a_batch_that_could_not_be_dispatched_is_not_passed_over_unseen() -> None:
    cursor = cursor_at(0)
    assert next(cursor.read([item(1), item(2)], cursor.id))  # the code that dispatches raises
    assert told(cursor, [item(3)]) == [Restart(Position(7, 2), RestartReason.TRIMMED), [3]]
    assert cursor.restarts == 2


@pytest.mark.parametrize("found", [[], [item(5)], [(b"9-9", [b"not", b"ours"])]])
def test_on_a_new_connection_the_last_entry_may_be_there_or_trimmed(found: list[Any]) -> None:
    cursor = cursor_at(4)
    told(cursor, [item(5)])
    cursor.look_back(cursor.mark(), found)


@pytest.mark.parametrize("found", [item(4), item(5, epoch=8), (item(5)[0], [*item(5)[1][:-1], b'["other"]']), item(6)])
def test_on_a_new_connection_another_last_entry_breaks_the_log(found: Any) -> None:
    cursor = cursor_at(4)
    told(cursor, [item(5)])
    with pytest.raises(LogBroken):
        cursor.look_back(cursor.mark(), [found])


def test_where_nothing_was_read_yet_only_the_position_is_compared() -> None:
    cursor = cursor_at(5)
    cursor.look_back(cursor.mark(), [item(5)])
    with pytest.raises(LogBroken):
        cursor.look_back(cursor.mark(), [item(4)])


@pytest.mark.parametrize("ahead", [[], [item(7)], [(b"9-9", [b"not", b"ours"])]])
def test_on_a_new_connection_what_redis_told_of_may_be_there_or_trimmed(ahead: list[Any]) -> None:
    cursor = cursor_at(5)
    cursor.expect(Position(7, 7), 1007)
    cursor.expect(Position(7, 6), 1006)  # an answer that came late
    mark = cursor.mark()
    assert mark.ahead is not None
    assert mark.ahead == (Position(7, 7), "1007-7")
    cursor.look_back(mark, [item(5)], ahead)


@pytest.mark.parametrize("ahead", [item(5), item(6), item(7, epoch=8)])
def test_on_a_new_connection_another_entry_than_redis_told_of_breaks_the_log(ahead: Any) -> None:
    """A session begins with that entry; the entries that took the place of those before it are not what it missed."""
    cursor = cursor_at(5)
    cursor.expect(Position(7, 7), 1007)
    with pytest.raises(LogBroken, match="7"):
        cursor.look_back(cursor.mark(), [item(5)], [ahead])


def test_what_redis_told_of_is_not_looked_for_once_it_was_read() -> None:
    cursor = cursor_at(5)
    cursor.expect(Position(7, 6), 1006)
    told(cursor, [item(6)])
    assert cursor.mark().ahead is None
    cursor.expect(Position(7, 9), 1009)
    cursor.begin(RestartReason.EPOCH, Position(8, 1), 5000)
    assert cursor.mark().ahead is None


@given(at=st.integers(0, 20), tail=st.integers(0, 20))
def test_a_quiet_log_ends_where_the_node_stands(at: int, tail: int) -> None:
    cursor = cursor_at(at)
    here = cursor.at
    assert here is not None
    if tail < at:
        with pytest.raises(LogBroken, match="ends at"):
            cursor.quiet(here, Position(7, tail), 0)
        return
    assert cursor.quiet(here, Position(7, tail), 0) is None
    if tail > at:  # once it may be that an entry has just been stored; twice it is behind where nobody reads
        with pytest.raises(LogBroken, match="clock went back"):
            cursor.quiet(here, Position(7, tail), 0)
    else:
        assert cursor.quiet(here, Position(7, tail), 0) is None


def test_a_quiet_log_that_was_begun_anew_is_followed_from_its_end() -> None:
    cursor = cursor_at(5)
    assert cursor.at is not None
    assert cursor.quiet(cursor.at, Position(8, 2), 9000) == Restart(Position(8, 2), RestartReason.EPOCH)
    assert (cursor.at, cursor.id, cursor.restarts) == (Position(8, 2), "9000-2", 2)


def test_a_quiet_log_of_an_older_epoch_is_broken() -> None:
    cursor = cursor_at(5)
    assert cursor.at is not None
    with pytest.raises(LogBroken) as error:
        cursor.quiet(cursor.at, Position(6, 9), 9000)
    cursor.break_(error.value)
    assert cursor.broken
    assert cursor.at == Position(7, 5)


positions = st.builds(Position, st.integers(6, 8), st.integers(0, 20))


@given(asked=positions, tail=positions)
def test_no_answer_may_say_that_the_log_ends_before_what_was_read_when_it_was_asked(
    asked: Position, tail: Position
) -> None:
    if tail < asked:
        with pytest.raises(LogBroken, match="ends at") as error:
            LogCursor.told(asked, tail)
        assert error.value.epoch == asked.epoch
    else:
        LogCursor.told(asked, tail)


def test_a_look_at_a_quiet_log_that_comes_late_says_nothing() -> None:
    cursor = cursor_at(5)
    before = cursor.at
    assert before is not None
    told(cursor, [item(6)])
    assert cursor.quiet(before, Position(7, 1), 0) is None


def test_an_entry_that_can_not_be_read_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    bad = (b"1001-1", [b"epoch", b"7", b"head", b"not JSON"])
    (batch,) = cursor_at(0).read([bad, item(2)], "1000-0")
    assert not isinstance(batch, Restart)
    assert [(entry.n, entry.kind) for entry in batch] == [(1, EPOCH), (2, "event")]
    assert "can't be read" in caplog.text
