"""Finds what is wrong with a history, by accounting for every event of every client. No I/O.

The log alone decides which events a session is owed: those to everybody, those to the session itself, and those to
the rooms it was in at that point of the log. So each session is owed one list of events, in one order. Its client
must have received exactly this list, each event once, from the session's greeting (at the latest) to its end. If a
session could not be recovered, it ends with the last event that its client received: later events are not owed,
because the client was told that it has a new session. Volatile events are owed only to clients that did not drop.

The checker also compares the log with what the emitters were told, which finds events that are missing for everybody.
And it compares the clients with the witnesses, without the log: all must have seen the same order.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .history import ClientHistory, Connected, Logged, Received, ReportedState, Room, RunHistory, greeting

#: How many seconds the times that clients and nodes noted for the same thing may differ.
MARGIN = 1.0

Kind = Literal["lost", "doubled", "reordered", "wrongly recovered", "wrongly refused", "foreign", "stuck"]
#: What can be wrong. ``foreign``: the client received an event that was not meant for it, was withdrawn, or was never
#: stored. ``stuck``: the client is not connected at the end.
KINDS: tuple[Kind, ...] = (
    *("lost", "doubled", "reordered", "wrongly recovered", "wrongly refused"),
    *("foreign", "stuck"),
)


@dataclass(frozen=True)
class Violation:
    """Something that should not have happened.

    :param client: the name of the client; ``"log"`` if it concerns the log itself.
    :param count: how many events, or connects, are wrong.
    """

    kind: Kind
    client: str
    sid: str
    count: int
    text: str


@dataclass
class ObservedSession:
    """What one client observed of one of its sessions."""

    sid: str
    start: float
    received: list[Received] = field(default_factory=list)
    #: For each recovery: when it was, and how many events the client had received by then.
    recoveries: list[tuple[float, int]] = field(default_factory=list)
    #: The last time at which the client was known to have this session.
    last: float = 0.0
    #: Whether the client still had this session when the run was over.
    final: bool = False

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.received]

    @property
    def epochs(self) -> set[int]:
        return {event.position[0] for event in self.received}

    @property
    def reason(self) -> str | None:
        """Returns why it was a new session, as the server told the application; ``None`` if the client was not told."""
        return next((e.reason for e in self.received if e.id == greeting(self.sid)), None)


@dataclass
class Verdict:
    """The result of the checker."""

    violations: list[Violation] = field(default_factory=list)
    #: How many connects had each outcome: "recovered", or the reason for a new session.
    outcomes: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    drops: int = 0
    #: How many witnesses never dropped.
    twins: int = 0

    def count(self, kind: Kind) -> int:
        return sum(v.count for v in self.violations if v.kind == kind)


def check(history: RunHistory) -> Verdict:
    """Checks the whole history."""
    verdict = Verdict()
    lineages = lineages_of(history.log)
    verdict.violations += check_log(history, lineages)
    sessions = {client.name: sessions_of(client, verdict.violations) for client in history.clients}
    sids = {session.sid for some in sessions.values() for session in some}
    owed = [Owed(lineage, sids) for lineage in lineages]
    known = {entry.id for entry in history.log}
    sizes = {emit.id: emit.size for emit in history.emits}
    for client in history.clients:
        some = sessions[client.name]
        verdict.violations += check_client(history, client, some, owed, known)
        verdict.violations += check_sizes(client, some, sizes)
        verdict.deliveries += sum(len(session.received) for session in some)
        verdict.drops += drops_of(client)
        for session in some:
            verdict.outcomes["recovered"] += len(session.recoveries)
            verdict.outcomes[session.reason or "not told"] += 1
    twins = [client.name for client in history.clients if client.witness and not drops_of(client)]
    verdict.twins = len(twins)
    for twin in twins:
        order = [event.id for session in sessions[twin] for event in session.received]
        for client in history.clients:
            verdict.violations += check_order(client.name, sessions[client.name], twin, order)
    return verdict


# -- the log ----------------------------------------------------------------------------------------


def lineages_of(log: Sequence[Logged]) -> list[list[Logged]]:
    """Returns the lineages of the log, that is, the sequences of entries that clients may have seen.

    There is one lineage, unless the log lost entries or was begun anew. A new epoch is a new lineage. A log that lost
    its tail and grew again is a new lineage, too, which shares its beginning with the one before.
    """
    lineages: list[list[Logged]] = [[]]
    for entry in log:
        lineage = lineages[-1]
        if lineage and entry.epoch != lineage[-1].epoch:
            lineages.append([])
        elif lineage and entry.n <= lineage[-1].n:
            lineages.append([e for e in lineage if e.n < entry.n])
        lineages[-1].append(entry)
    return lineages


def check_log(history: RunHistory, lineages: Sequence[Sequence[Logged]]) -> Iterable[Violation]:
    """Checks that the log holds what the emitters were told, each event once, in the order of time."""
    emits = {emit.id: emit for emit in history.emits}
    stored: set[str] = set()
    for lineage in lineages:
        times = Counter(entry.id for entry in lineage if entry.kind == "event")
        stored |= times.keys()
        if twice := [id for id, count in times.items() if count > 1]:
            yield Violation("doubled", "log", "", len(twice), f"stored more than once: {_some(twice)}")
        holes = [b.n for a, b in itertools.pairwise(lineage) if b.n != a.n + 1]
        if holes:
            yield Violation("lost", "log", "", len(holes), f"the log has holes before {_some(holes)}")
        latest = float("inf")
        late = []
        for entry in reversed(lineage):  # an event must come after all events whose emit had ended when its own began
            emit = emits.get(entry.id)
            if emit is not None:
                if emit.start > latest:
                    late.append(emit.id)
                if emit.fate == "stored":
                    latest = min(latest, emit.end)
        if late:
            text = f"stored before events whose emit was over when theirs began: {_some(late[::-1])}"
            yield Violation("reordered", "log", "", len(late), text)
        wrong = [e.id for e in lineage if e.id in emits and not _same_target(e, emits[e.id].rooms, emits[e.id].skip)]
        if wrong:
            yield Violation("foreign", "log", "", len(wrong), f"stored for somebody else: {_some(wrong)}")
    if len(lineages) > 1 and not history.losses:
        yield Violation("lost", "log", "", 1, f"the log was begun anew, or went back, {len(lineages) - 1} times")
    missing = [
        e.id
        for e in history.emits
        if e.fate == "stored" and e.id not in stored and not any(e.start <= end for _, end in history.losses)
    ]
    if missing:
        yield Violation("lost", "log", "", len(missing), f"emitted successfully, never stored: {_some(missing)}")
    withdrawn = [e.id for e in history.emits if e.fate == "withdrawn" and e.id in stored]
    if withdrawn:
        yield Violation("foreign", "log", "", len(withdrawn), f"withdrawn, and stored: {_some(withdrawn)}")


def _same_target(entry: Logged, rooms: Iterable[Room], skip: Iterable[str]) -> bool:
    return set(entry.rooms) == set(rooms) and set(entry.skip) == set(skip)


class Owed:
    """Which events each session is owed in one lineage of the log, by the rooms it was in at each point."""

    def __init__(self, lineage: Sequence[Logged], sids: set[str]) -> None:
        self.epoch = lineage[-1].epoch if lineage else 0
        self.events: dict[str, list[str]] = {sid: [] for sid in sids}
        self.at = {entry.id: entry.at for entry in lineage}
        self._positions = {entry.id: (entry.epoch, entry.n) for entry in lineage}
        #: Volatile events. They are not owed to a client that dropped, but may be received only once and in order.
        self.volatile = {entry.id for entry in lineage if entry.volatile}
        members: dict[Room | None, set[str]] = defaultdict(set)
        for entry in lineage:
            if entry.kind == "enter":
                members[entry.room].add(entry.sid)
            elif entry.kind == "leave":
                members[entry.room].discard(entry.sid)
            elif entry.kind == "close":
                members.pop(entry.room, None)
            elif entry.kind == "event":
                to = set(sids) if not entry.rooms else sids.intersection(map(str, entry.rooms))
                for room in entry.rooms:
                    to |= members.get(room, set()) & sids
                for sid in to.difference(entry.skip):
                    self.events[sid].append(entry.id)
        self.rooms = {sid: frozenset(str(r) for r, inside in members.items() if sid in inside) for sid in sids}

    def stored_at(self, event: Received) -> tuple[int, int]:
        """Where the lineage has an event; where it was when it was received, if the lineage does not have it."""
        return self._positions.get(event.id, event.position)


# -- clients ----------------------------------------------------------------------------------------


def sessions_of(client: ClientHistory, violations: list[Violation]) -> list[ObservedSession]:
    """Returns the sessions that a client had, one after the other."""
    sessions: list[ObservedSession] = []
    connected = False
    for step in client.steps:
        if isinstance(step, Connected):
            connected = True
            if step.recovered and sessions and sessions[-1].sid == step.sid:
                sessions[-1].recoveries.append((step.at, len(sessions[-1].received)))
            else:
                if step.recovered:
                    had = f"it had {sessions[-1].sid}" if sessions else "it had none"
                    text = f"recovered as {step.sid}, but {had}"
                    violations.append(Violation("wrongly recovered", client.name, step.sid, 1, text))
                sessions.append(ObservedSession(step.sid, step.at))
            sessions[-1].last = step.at
        elif isinstance(step, Received):
            if not sessions:
                violations.append(Violation("foreign", client.name, "", 1, f"{step.id} before any connection"))
                continue
            sessions[-1].received.append(step)
            sessions[-1].last = step.at
        else:
            connected = False
    if sessions:
        sessions[-1].final = True
    if not connected:
        sid = sessions[-1].sid if sessions else ""
        violations.append(Violation("stuck", client.name, sid, 1, "not connected at the end"))
    return sessions


def drops_of(client: ClientHistory) -> int:
    """Returns how often a connected client lost its connection."""
    connects = [isinstance(step, Connected) for step in client.steps if not isinstance(step, Received)]
    return sum(a and not b for a, b in itertools.pairwise(connects))


def check_client(
    history: RunHistory,
    client: ClientHistory,
    sessions: Sequence[ObservedSession],
    owed: Sequence[Owed],
    known: set[str],
) -> Iterable[Violation]:
    """Checks that a client received what its sessions are owed, and that it lost no session without a reason."""
    seen: Counter[str] = Counter(id for session in sessions for id in session.ids)
    for session in sessions:
        if len(session.epochs) > 1:
            text = f"recovered across the beginning of a new epoch: {sorted(session.epochs)}"
            yield Violation("wrongly recovered", client.name, session.sid, 1, text)
        fitting = owed[-1:] if session.final else [o for o in owed if o.epoch in session.epochs] or owed
        yield from min(
            (list(check_session(history, client, session, o, known)) for o in fitting),
            key=lambda found: sum(v.count for v in found),
        )
    if twice := [id for id, count in seen.items() if count > 1]:
        sid = next(s.sid for s in reversed(sessions) if twice[0] in s.ids)
        yield Violation("doubled", client.name, sid, len(twice), f"received more than once: {_some(twice)}")
    for old, new in itertools.pairwise(sessions):
        yield from check_refusal(history, client, old, new)


def check_session(
    history: RunHistory, client: ClientHistory, session: ObservedSession, owed: Owed, known: set[str]
) -> Iterable[Violation]:
    """Checks that a client received exactly what one session is owed."""
    events = owed.events[session.sid]
    place = {id: i for i, id in enumerate(events)}
    lossy = any(start <= session.last + MARGIN and end >= session.start for start, end in history.losses)

    received = session.received
    if lossy and not session.final:
        # Events may have been delivered before they were lost with the log's tail: the log no longer shows them, or at
        # another place, since they were sent again.
        stored = (i for i, e in enumerate(received, 1) if e.id in known and owed.stored_at(e) == e.position)
        received = received[: max(stored, default=0)]
    ids = [event.id for event in received]
    got = [place[id] for id in ids if id in place]
    foreign = [id for id in ids if id not in place]
    if foreign:
        yield Violation("foreign", client.name, session.sid, len(foreign), f"not meant for it: {_some(foreign)}")

    late = []
    reached = -1
    for i in got:
        if i < reached:
            late.append(events[i])
        reached = max(reached, i)
    if late := list(dict.fromkeys(id for id in late if session.ids.count(id) == 1)):
        yield Violation("reordered", client.name, session.sid, len(late), f"after later ones: {_some(late)}")

    # Between its birth and its greeting the session is owed events to everybody. But only the node knows its birth.
    begins = min([place.get(greeting(session.sid), len(events)), *got])
    ends = max(got, default=-1) + 1
    if session.final:
        if history.end not in place:
            yield Violation("lost", client.name, session.sid, 1, "the end of the run is not in the log it follows")
        else:
            ends = place[history.end] + 1
            if greeting(session.sid) not in place:
                yield Violation("lost", client.name, session.sid, 1, "its greeting is not in the log")
    missing = sorted(set(range(begins, ends)) - set(got))
    # Volatile events are owed to connected clients, and the client is connected from its greeting on, at the latest.
    greeted = place.get(greeting(session.sid), begins)
    missing = [i for i in missing if i >= greeted or events[i] not in owed.volatile]
    if session.recoveries or not session.final:
        missing = [i for i in missing if events[i] not in owed.volatile]
    if missing:
        text = f"never received: {_some(events[i] for i in missing)}; first received: {_some(session.ids)}"
        yield Violation("lost", client.name, session.sid, len(missing), text)
    across = 0
    for at, count in session.recoveries:
        before = max((place[id] for id in session.ids[:count] if id in place), default=begins - 1)
        across += any(i > before and owed.at[events[i]] <= at for i in missing)
    if across:
        text = f"recovered = true, though events were missing, {across} times"
        yield Violation("wrongly recovered", client.name, session.sid, across, text)

    if session.final and client.state is not None:
        yield from check_state(client, session, owed, client.state)


def check_sizes(
    client: ClientHistory, sessions: Sequence[ObservedSession], sizes: Mapping[str, int]
) -> Iterable[Violation]:
    """Checks that events arrived as large as they were emitted. Sizes are random, so this also finds mixed-up ones."""
    for session in sessions:
        wrong = [event.id for event in session.received if event.size != sizes.get(event.id, event.size)]
        if wrong:
            text = f"received with another size than emitted: {_some(wrong)}"
            yield Violation("foreign", client.name, session.sid, len(wrong), text)


def check_state(
    client: ClientHistory, session: ObservedSession, owed: Owed, state: ReportedState
) -> Iterable[Violation]:
    """Checks that the server's idea of the session (sid, rooms, data) is right."""
    wrong = []
    if state.sid != session.sid:
        wrong.append(f"the server knows it as {state.sid}")
    if (rooms := state.rooms - {session.sid}) != owed.rooms[session.sid]:
        wrong.append(f"it is in the rooms {sorted(rooms)}, and should be in {sorted(owed.rooms[session.sid])}")
    if state.data != {"name": client.name}:
        wrong.append(f"its session data is {state.data!r}")
    if wrong:
        yield Violation("wrongly recovered", client.name, session.sid, 1, "; ".join(wrong))


def check_refusal(
    history: RunHistory, client: ClientHistory, old: ObservedSession, new: ObservedSession
) -> Iterable[Violation]:
    """Checks that there was a reason to give the client a new session, and that the server knew it."""
    # The old session may have begun before the loss ended, and its client have noted that later.
    lossy = any(start <= new.start and end + MARGIN >= old.start for start, end in history.losses)
    away = new.start - old.last
    if not lossy and away + MARGIN < history.max_disconnection:
        text = f"its session {old.sid} was refused ({new.reason}), though it was away for {away:.1f} s at most"
        yield Violation("wrongly refused", client.name, new.sid, 1, text)
    elif new.reason == "limit":
        text = f"its session {old.sid} was refused for what a node has in memory; the rest is to be read from the log"
        yield Violation("wrongly refused", client.name, new.sid, 1, text)
    elif new.reason == "new":
        text = f"its session {old.sid} was refused, and the server does not know why"
        yield Violation("wrongly refused", client.name, new.sid, 1, text)


def check_order(name: str, sessions: Sequence[ObservedSession], twin: str, order: Sequence[str]) -> Iterable[Violation]:
    """Checks that a client and a witness saw their common events in the same order. It does not use the log."""
    place = {id: i for i, id in enumerate(order)}
    ids = [id for session in sessions for id in session.ids if id in place]
    late = [b for a, b in itertools.pairwise(ids) if place[b] < place[a]]
    if late:
        yield Violation("reordered", name, "", len(late), f"{twin} saw it otherwise: {_some(late)}")


def _some(things: Iterable[object], most: int = 8) -> str:
    all = list(map(str, things))
    return ", ".join(all[:most]) + (f", ... ({len(all)})" if len(all) > most else "")
