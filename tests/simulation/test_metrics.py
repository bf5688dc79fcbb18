"""What an application's metrics are told, from a client's first connection to its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from socketio_recovery.metrics import NoMetrics, Reading
from socketio_recovery.reasons import Ending, Fate, Outcome

from .simulation import TTL, Simulation


class Recorder(NoMetrics):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.endings: Counter[Ending | None] = Counter()
        self.caught_up_on: list[int] = []
        self.failures: list[str] = []
        self.entries_stored = self.bytes_stored = self.entries_dispatched = self.overflows = 0
        self.deliveries = self.bytes_delivered = self.adoptions = 0
        self.fates: Counter[Fate] = Counter()
        self.heartbeats: list[bool] = []
        self.durations: list[float] = []
        self.delays: list[float] = []
        self.readers: list[Callable[[], Reading | None]] = []

    def attached(self, read: Callable[[], Reading | None]) -> None:
        self.readers.append(read)

    def connected(self, outcome: Outcome) -> None:
        self.outcomes[outcome] += 1

    def caught_up(self, events: int, seconds: float) -> None:
        self.caught_up_on.append(events)
        self.durations.append(seconds)

    def ended(self, ending: Ending | None) -> None:
        self.endings[ending] += 1

    def stored(self, entries: int, size: int) -> None:
        self.entries_stored += entries
        self.bytes_stored += size

    def appended(self, fate: Fate, entries: int) -> None:
        self.fates[fate] += entries

    def delivered(self, events: int, size: int) -> None:
        self.deliveries += events
        self.bytes_delivered += size

    def adopted(self) -> None:
        self.adoptions += 1

    def heartbeat(self, seconds: float, succeeded: bool) -> None:
        self.heartbeats.append(succeeded)

    def loop_delayed(self, seconds: float) -> None:
        self.delays.append(seconds)

    def dispatched(self, entries: int) -> None:
        self.entries_dispatched += entries

    def overflowed(self) -> None:
        self.overflows += 1

    def failed(self, task: str) -> None:
        self.failures.append(task)


def test_the_metrics_of_two_nodes() -> None:
    recorder = Recorder()
    cluster = Simulation(1, 2, metrics=recorder, max_queue=5)
    try:
        a, b = cluster.nodes
        first, second = cluster.open(a), cluster.open(b)
        cluster.until(lambda: first.connected and second.connected, 5, "both connect")
        first.drop(False, b, 0.5)
        cluster.run(0.2)
        for _ in range(3):
            cluster.emit(a)
        cluster.until(lambda: first.connected, 5, "it recovers")
        cluster.run(0.2)
        assert recorder.outcomes == {Outcome.NEW: 2, Outcome.RECOVERED: 1}
        assert recorder.caught_up_on == [3]
        assert recorder.endings == {Ending.LOST: 1}
        assert recorder.entries_stored == 3
        assert recorder.entries_dispatched == 2 * 3  # on each node
        second.disconnect()
        assert first.session is not None
        a.task(a.sio.disconnect(first.session.sid))
        cluster.run(0.5)
        assert recorder.endings == {Ending.LOST: 1, Ending.LEFT: 1, Ending.DISCONNECTED: 1}
        assert (recorder.overflows, recorder.failures) == (0, [])
        slow = cluster.open(a)
        cluster.until(lambda: slow.connected, 5, "it connects")
        assert slow.websocket is not None
        slow.websocket.stop_reading()
        for _ in range(60):
            cluster.emit(b)
            cluster.run(0.01)
        assert recorder.overflows == 1
        slow.vanish()
        cluster.run(2 * TTL)
        assert recorder.fates == {Fate.STORED: recorder.entries_stored}
        assert recorder.bytes_stored > 60 * 20
        assert recorder.deliveries > 3 * 2
        assert recorder.bytes_delivered > recorder.deliveries
        assert len(recorder.durations) == 1
        assert 0 < recorder.durations[0] < 1
        assert set(recorder.heartbeats) == {True}
        assert set(recorder.delays) == {0}  # in the simulation, code takes no time
        for read in recorder.readers:
            reading = read()
            assert reading is not None
            assert (reading.healthy, reading.clients, reading.catching_up, reading.queued) == (True, 0, 0, 0)
            assert reading.stream_retention is not None
            assert reading.stream_retention > reading.max_disconnection
    finally:
        cluster.close()
    assert [read() for read in recorder.readers] == [None, None]


def test_the_metrics_of_orphans_and_of_an_outage() -> None:
    recorder = Recorder()
    cluster = Simulation(1, 2, metrics=recorder)
    try:
        a = cluster.nodes[0]
        lost = cluster.open(a)
        cluster.until(lambda: lost.connected, 5, "it connects")
        lost.vanish()
        cluster.crash(a)
        cluster.until(lambda: recorder.adoptions == 1, 4 * TTL, "its session is adopted")
    finally:
        cluster.close()
