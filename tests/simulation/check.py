"""Checks what the clients received against the log: every entry that was ever in it, one after the other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from socketio_recovery import reasons
from socketio_recovery.entries import Entry, parse_entry

from tests.support.twin import Twin

from .redis import Dataset, Fields, Id, SimulatedStream
from .simulation import DISCONNECTION, SimulatedClient, SimulatedSession, Simulation

LOG = b"{m}:log"

Timeline = list[tuple[int, Entry]]


class LogHistory:
    """All entries that were ever in the log, including those that were trimmed.

    A failover that loses the end of the log begins a new timeline, which shares its beginning with the one before.
    """

    def __init__(self, cluster: Simulation) -> None:
        self.cluster = cluster
        self.timelines: list[Timeline] = [[]]
        self.lost = False  # stored entries were lost, by a failover
        self.trimmed = False
        self.outage = False  # Redis was away for longer than a session lives without heartbeats
        cluster.store.appended.append(self._append)
        stream = cluster.store.key(LOG) or SimulatedStream()
        for id, fields in zip(stream.ids, stream.fields, strict=True):
            self._append(LOG, id, fields)

    def _append(self, key: bytes, id: Id, fields: Fields) -> None:
        if key == LOG:
            entry = parse_entry(id[1], id[0], fields[2:])
            self.timelines[-1].append((int(fields[1]), entry))

    def fail_over(self, data: Dataset) -> None:
        """Notes that Redis has only ``data`` now."""
        self.lost = True
        stream = data.keys.get(LOG) or SimulatedStream()
        last = stream.last
        self.timelines.append([(epoch, entry) for epoch, entry in self.timelines[-1] if (entry.ms, entry.n) <= last])

    def twins(self, session: SimulatedSession) -> Iterator[Twin]:
        """Returns the session's twin, a session with the same birth that never lost its connection, per timeline."""
        epoch, birth = session.birth
        for timeline in self.timelines:
            twin = Twin("/", session.sid)
            for of, entry in timeline:
                if of == epoch and entry.n > birth:
                    twin.see(entry)
            yield twin

    def numbers(self, timeline: Timeline) -> dict[int, int]:
        """Maps the number of an entry to the number that its event carries."""
        return {
            entry.n: json.loads(entry.payload.data)[1]
            for _, entry in timeline
            if entry.kind == "event" and entry.payload is not None
        }


def check(cluster: Simulation, history: LogHistory) -> None:
    """Checks what must be true at any time."""
    for timeline in history.timelines:
        counts = Counter(history.numbers(timeline).values())
        for number, outcome in cluster.emitted.items():
            assert counts[number] <= 1, f"event {number} is stored {counts[number]} times"
            assert outcome != "withdrawn" or not counts[number], f"event {number} was withdrawn, and is stored"
    stored = {number for timeline in history.timelines for number in history.numbers(timeline).values()}
    for number, outcome in cluster.emitted.items():
        assert outcome != "ok" or number in stored, f"event {number} was said to be stored"
    for node in (*cluster.nodes, *cluster.crashed):
        assert not node.faults, node.faults
    for client in cluster.clients:
        for session in client.sessions:
            _received(history, client, session, False)
        for reason, away in client.refusals:
            _refused(history, client, reason, away)


def check_settled(cluster: Simulation, history: LogHistory) -> None:
    """Checks what must be true when all clients are connected and everything was delivered."""
    check(cluster, history)
    for client in cluster.clients:
        if client.connected and client.session is not None:
            _received(history, client, client.session, True)


def _received(history: LogHistory, client: SimulatedClient, session: SimulatedSession, all: bool) -> None:
    complaints = []
    for timeline, twin in zip(history.timelines, history.twins(session), strict=True):
        numbers = history.numbers(timeline)
        lasting = [numbers[n] for n in twin.got]
        fleeting = {numbers[n] for n in twin.fleeting}
        order = [numbers[n] for n in sorted(twin.got + twin.fleeting)]
        got = [number for number in session.got if number not in fleeting]
        if got != (lasting if all else lasting[: len(got)]):
            complaints.append(f"got {got}, its twin {lasting}")
        elif sorted(session.got, key=order.index) != session.got or len(set(session.got)) != len(session.got):
            complaints.append(f"got {session.got}, of {order}")
        else:
            return
    raise AssertionError(f"{client.name}, session {session.sid}: " + "; or ".join(complaints))


def _refused(history: LogHistory, client: SimulatedClient, reason: str, away: float) -> None:
    allowed = {
        "epoch": history.lost,
        "unknown": history.lost,
        "expired": history.outage or away >= DISCONNECTION,
        "trimmed": history.trimmed,
    }
    assert allowed.get(reason), f"{client.name} was not recovered: {reason}, after {away:.1f} s"


def all_over(cluster: Simulation) -> bool:
    """Tells whether a disconnect handler ran for the last connection of each session."""
    open = {run.sid: run.transport for run in cluster.runs if run.what == "connect"}
    ran = {(run.sid, run.transport) for run in cluster.runs if run.what == "disconnect"}
    cut_off = _cut_off(cluster)
    return all((sid, transport) in ran or (sid, "") in ran or sid in cut_off for sid, transport in open.items())


def _cut_off(cluster: Simulation) -> set[str]:
    """Returns the sessions that were ended deliberately on a node that died.

    Such a node may have deleted the session and died before it ran the handler. Then no handler runs.
    """
    ended = {session.sid for client in cluster.clients for session in client.sessions if session.ended}
    return {run.sid for run in cluster.runs if run.node.dead and run.sid in ended}


def check_handlers(cluster: Simulation, history: LogHistory) -> None:
    """Checks, when all sessions are over, that the disconnect handler ran once for the last connection of each.

    It may run once more for each node that died with something undone for the session: while the handler ran, before it
    could tell Redis that it had run, or while it claimed or adopted the session. Then another node runs it, and can't
    know better. And Redis may have lost the session itself, or the fact that its handler had run.
    """
    assert reasons.NODE_LOST not in [run.reason for run in cluster.runs if run.transport]
    if history.lost:
        return
    last: dict[str, str] = {}
    cut_off = _cut_off(cluster)
    ran: Counter[tuple[str, str]] = Counter()
    for run in cluster.runs:
        if run.what == "connect":
            last[run.sid] = run.transport
        else:
            ran[run.sid, run.transport] += 1
    deaths = Counter(sid for node in cluster.crashed for sid in node.owed)
    for sid, node, at in cluster.claims:  # a claim that was under way may have arrived after the node had died
        if sid not in node.owed and node.died_at - at < 1:
            deaths[sid] += 1
    for (sid, transport), count in ran.items():
        assert count <= (1 if transport else max(1, deaths[sid])), (
            f"{count} disconnect handlers for {sid} on {transport or 'another node'}: {cluster.runs}"
        )
    for sid, transport in last.items():
        here, elsewhere = ran[sid, transport], ran[sid, ""]
        once = (here or elsewhere or sid in cut_off) and not (here and elsewhere > deaths[sid])
        assert once, (
            f"{here + elsewhere} disconnect handlers for the end of {sid}, {deaths[sid]} nodes died with it: "
            f"{[run for run in cluster.runs if run.sid == sid]}"
        )
