"""Where a node stands in the log, and what it concludes from what it reads.  No I/O.

Stream ids show that entries are in order. They do not show that none is missing. So entries are numbered, without gaps,
within an *epoch*. When a node reads number n and the one before it was not n - 1, it has found a hole:

* a later number: the log was trimmed past this node, which was frozen. The node starts again from there;
* a later epoch: the log was begun anew, because Redis was wiped. No earlier position means anything any more;
* an earlier number or epoch: the log lost its tail in a failover, and what clients saw is not what it holds now. The
  log is *broken*. One node begins a new epoch (``redis/lua/renew.lua``), from which all others learn of it.

A log can lose its tail while nothing is read. So a node also looks back on each new connection, whether the last entry
that it read is still there, and when the log is quiet, whether the log ends where the node stands. And where an answer
of Redis says where the log ends, that is not before what the node had read when it asked, or the log is broken: nobody
is let in who would take the lost entries for new ones.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .entries import EPOCH, Entry, Position, parse_entry
from .errors import LogBroken
from .reasons import RestartReason


class Stamped(NamedTuple):
    """An entry as the stream has it: not parsed yet."""

    epoch: int
    n: int
    ms: int
    fields: Sequence[bytes]


class Restart(NamedTuple):
    """A verdict: this node knows nothing of the log before ``position``."""

    position: Position
    why: RestartReason


class Ahead(NamedTuple):
    """An entry that Redis told of, and that was not read yet."""

    at: Position
    id: str  #: its id, or a later one, but not that of the entry after it


class Mark(NamedTuple):
    """A place in the log that a node has read, to be looked at again."""

    at: Position
    id: str
    newest: Any  #: the entry there as it was read, or ``None``
    ahead: Ahead | None  #: an entry after it that is waited for


class LogCursor:
    """How far a node has read the log."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        #: The last entry that was read and dispatched; ``None`` before the node follows the log.
        self.at: Position | None = None
        #: The stream id of the last entry that was read.
        self.id = ""
        #: How often the node lost its place, and went on at another: entries between were not read.
        self.restarts = 0
        self._newest: Any = None
        self._broken: int | None = None
        self._unread: Position | None = None
        self._ahead: Ahead | None = None

    @property
    def broken(self) -> bool:
        """Whether the log lost entries of the epoch that this node is in."""
        return self.at is not None and self._broken == self.at.epoch

    def begin(self, why: RestartReason, at: Position, ms: int) -> Restart:
        """Goes on from ``at``, the end of the log as Redis tells it."""
        self.at, self.id, self._newest = at, f"{ms}-{at.n}", None
        self.restarts += 1
        return Restart(at, why)

    def break_(self, error: LogBroken) -> None:
        """Notes that the log is broken, unless this node has gone on to another epoch since that was found."""
        if self.at is not None and error.epoch == self.at.epoch and not self.broken:
            self.logger.error("the log lost entries that clients have seen; beginning a new epoch: %s", error)
            self._broken = error.epoch

    def read(self, items: Sequence[Any], since: str) -> Iterator[list[Entry] | Restart]:
        """Says what to do with entries that were read: batches to dispatch, and restarts between them.

        Each must be carried out before the next is asked for. The cursor moves on after it.

        :param items: what Redis returned, or :func:`written`: pairs (id, fields).
        :param since: the id behind which they were read.
        :raises LogBroken: if they do not follow what was read before.
        """
        if since != self.id:  # the reader and the writer have both read: leave out what is known already
            items = items[bisect_right(items, _id(self.id.encode()), key=lambda item: _id(item[0])) :]
        if not items:
            return
        self.id = items[-1][0].decode()
        self._newest = None
        entries = []
        for item in items:
            try:
                entries.append(_stamped(item))
                self._newest = item
            except ValueError as error:  # its number, if it had one, shows as a hole
                self.logger.error("passing over an entry of the log: %s", error)
        while entries:
            assert self.at is not None
            epoch, last = self.at
            batch: list[Entry] = []
            hole: Stamped | None = None
            for stamped in entries:
                if stamped.epoch != epoch or stamped.n != last + 1:
                    hole = stamped
                    break
                last = stamped.n
                batch.append(parsed(stamped, self.logger))
            if batch:
                yield batch
                self.at = Position(epoch, last)
            if hole is None:
                return
            if (hole.epoch, hole.n) <= (epoch, last):
                raise LogBroken(epoch, f"entry {hole.n} of epoch {hole.epoch} follows {last}")
            self.at = Position(hole.epoch, hole.n - 1)
            self.restarts += 1
            why = RestartReason.TRIMMED if hole.epoch == epoch else RestartReason.EPOCH
            yield Restart(self.at, why)
            entries = entries[len(batch) :]

    def expect(self, at: Position, ms: int) -> None:
        """Notes where the log ended when Redis answered: a session begins there, though this node has not read it yet.

        :param ms: when that entry was stored, or later.
        """
        if self._ahead is None or at > self._ahead.at:
            self._ahead = Ahead(at, f"{ms}-{at.n}")

    def mark(self) -> Mark:
        """The place up to which this node has read, to compare it with the log on a new connection."""
        assert self.at is not None
        ahead = self._ahead if self._ahead is not None and self._ahead.at > self.at else None
        return Mark(self.at, self.id, self._newest, ahead)

    def look_back(self, mark: Mark, found: Sequence[Any], ahead: Sequence[Any] = ()) -> None:
        """Compares a mark with the newest entries up to it, and up to what is ahead of it, that the log holds now.

        A new connection may lead to a server that took over without the end of the log.

        :param found: the entry up to the mark in a list; an empty list if there is none, which what is read next
            explains.
        :param ahead: the same for what is ahead.
        :raises LogBroken: if it is not the entry that this node has read, or that a session begins with.
        """
        read = self._known(found)
        if read is not None and (read != mark.at or mark.newest not in (None, found[0])):
            raise LogBroken(mark.at.epoch, f"it does not hold entry {mark.at.n} as this node has read it")
        told = self._known(ahead)
        if told is not None and mark.ahead is not None and told != mark.ahead.at:
            raise LogBroken(mark.at.epoch, f"it does not hold entry {mark.ahead.at.n}, of which it has told")

    @staticmethod
    def _known(found: Sequence[Any]) -> Position | None:
        """The position of an entry; ``None`` if there is none, or something else wrote it."""
        try:
            stamped = _stamped(found[0]) if found else None
        except ValueError:
            return None
        return Position(stamped.epoch, stamped.n) if stamped is not None else None

    @staticmethod
    def told(asked: Position, tail: Position) -> None:
        """Compares the end of the log, as an answer of Redis tells it, with what this node had read before.

        :param asked: where this node stood when it asked.
        :raises LogBroken: if the log ends before that.
        """
        if tail < asked:
            raise LogBroken(asked.epoch, f"it ends at {tail}, this node has read {asked}")

    def quiet(self, at: Position, tail: Position, ms: int) -> Restart | None:
        """Compares the place where nothing was read for a while with the end of the log.

        A log that was begun anew on a machine whose clock is behind looks like a quiet log.

        :param at: where this node stood when it asked.
        :param tail: the end of the log, stored at ``ms`` or before.
        :returns: a restart, if the log was begun anew.
        :raises LogBroken: if the log ends before the node, or holds more but nothing that follows.
        """
        if self.at is not at:  # the writer has read meanwhile
            return None
        self.told(at, tail)
        if tail.epoch != at.epoch:
            return self.begin(RestartReason.EPOCH, tail, ms)
        if tail.n > at.n and self._unread == at:
            raise LogBroken(at.epoch, f"it ends at {tail.n}, but nothing follows {at.n}: its clock went back")
        self._unread = at if tail.n > at.n else None
        return None


def written(asked: Position, last: Position, ms: int, entries: Sequence[Sequence[str | bytes]]) -> list[Any] | None:
    """Entries that this process has written, as :meth:`LogCursor.read` takes them, so that it need not read them back.

    :param asked: where this node stood when it wrote.
    :param last: the end of the log right after that.
    :param ms: when the entries were stored; 0 if they were not, or by an earlier try.
    :param entries: the fields of each.
    :returns: ``None`` if that is not all that follows ``asked``: others have written, too.
    """
    if last != Position(asked.epoch, asked.n + len(entries)) or (entries and not ms):
        return None
    epoch = b"%d" % last.epoch
    return [
        [b"%d-%d" % (ms, n), [b"epoch", epoch, *(f.encode() if isinstance(f, str) else f for f in fields)]]
        for n, fields in enumerate(entries, asked.n + 1)
    ]


def parsed(stamped: Stamped, logger: logging.Logger) -> Entry:
    """The entry; one without content if it can't be read, so that its number is not missing."""
    try:
        return parse_entry(stamped.n, stamped.ms, stamped.fields)
    except Exception as error:  # something else wrote it; it must not stop the entries that follow
        logger.error("skipping an entry of the log that can't be read: %s", error)
        return Entry(EPOCH, stamped.n, stamped.ms)


def _id(id: bytes) -> tuple[int, int]:
    ms, _, n = id.partition(b"-")
    return int(ms), int(n)


def _stamped(item: Any) -> Stamped:
    ms, n = _id(item[0])
    fields = item[1]
    if fields[0] != b"epoch":
        raise ValueError(f"entry {item[0].decode()} has no epoch: something else writes to this stream")
    return Stamped(int(fields[1]), n, ms, fields[2:])
