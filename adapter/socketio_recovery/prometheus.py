"""Metrics for Prometheus: ``pip install "socketio-recovery[metrics]"``. They are listed in ``docs/metrics.md``.

What happens is counted when it happens. How a manager *is* (clients, lag, retention) is read when somebody scrapes. No
label names a client, a session, a room or a namespace: those have no bound, and may be private.

Names: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeVar

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError('PrometheusMetrics needs prometheus-client: pip install "socketio-recovery[metrics]"') from error

from .metrics import NoMetrics, Reading
from .reasons import Ending, Fate, Outcome

#: Upper bounds of histogram buckets, in seconds.
HANDSHAKE: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROUND_TRIP: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
#: How old the gauges of one of several processes may be, in seconds.
REFRESH: Final = 1.0

M = TypeVar("M", Counter, Gauge, Histogram)


class PrometheusMetrics(NoMetrics, Collector):
    """Metrics for Prometheus::

        manager = AsyncRedisStreamsManager(url, metrics=PrometheusMetrics())

    :param registry: where they are registered. The default is the registry of ``prometheus_client`` for the process.
    :raises ImportError: if ``prometheus-client`` is not installed.
    :raises ValueError: if the registry has such metrics already.

    Several managers of a process may share one: their counts are added up, and the worst of their lag, retention and
    health is shown.

    Where several processes share a port (gunicorn), ``prometheus_client`` needs ``PROMETHEUS_MULTIPROC_DIR``; see
    ``docs/metrics.md``. Gauges are then written by each process, about once a second.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._readers: list[weakref.WeakMethod[Callable[[], Reading | None]]] = []
        self._metrics: list[Counter | Gauge | Histogram] = []
        #: Whether gauges are written for another process, which is scraped; and when that was done last.
        self._writes = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._written = 0.0

        self._connections = self._counter(
            "connections",
            "Clients that connected: with their session (recovered), or why they got a new one",
            "outcome",
        )
        self._disconnections = self._counter("disconnections", "Connections that ended", "ending")
        self._replayed = self._counter("replayed_events", "Missed events that clients got when they recovered")
        self._recovery = self._histogram(
            "recovery_duration_seconds", "From a client's CONNECT until it had everything it missed", HANDSHAKE
        )
        self._appends = self._counter(
            "appends", "Emits, changes of rooms and messages between nodes, by what their callers were told", "fate"
        )
        self._appended_bytes = self._counter("appended_bytes", "Bytes of the entries that Redis took into the log")
        self._dispatched = self._counter("dispatched_entries", "Entries of the log that this node read and dispatched")
        self._deliveries = self._counter("deliveries", "Events sent to clients, one for each recipient")
        self._delivered_bytes = self._counter("delivered_bytes", "Bytes of the payloads of deliveries")
        self._slow = self._counter("slow_clients", "Clients let go because too much waited for them")
        self._orphans = self._counter("orphans", "Sessions of dead nodes that this node adopted")
        self._heartbeat = self._histogram(
            "heartbeat_duration_seconds", "How long a heartbeat for all sessions of this node took", ROUND_TRIP
        )
        self._heartbeat_failures = self._counter("heartbeat_failures", "Heartbeats that Redis did not take in time")
        self._delay = self._histogram(
            "event_loop_delay_seconds", "How late the event loop ran a timer, twice a second", ROUND_TRIP
        )
        self._failures = self._counter("task_failures", "Failures of background tasks, which are started again", "task")

        # Where there are several processes, one that is not at work, such as gunicorn's first, shows zeros.
        self._unhealthy = self._gauge(
            "unhealthy",
            "0 if the node follows the log and takes clients, else 1; manager.unhealthy_reasons says why",
            "livemax",
        )
        self._clients = self._gauge("clients", "Connections that get events, or still catch up", "livesum", "state")
        self._queued = self._gauge("queued_appends", "Entries that wait to be sent to Redis", "livesum")
        self._lag = self._gauge("log_lag_seconds", "How far the node is behind the log", "livemax")
        self._window_entries = self._gauge("window_entries", "Entries of the log in memory", "livesum")
        self._window_bytes = self._gauge("window_bytes", "Memory that the window takes, roughly", "livesum")
        self._retention = self._gauge(
            "retention_seconds",
            "How far back a client could recover now: from the stream in Redis, and from the window in memory alone",
            "livemin",
            "source",
        )
        self._needed = self._gauge("max_disconnection_seconds", "max_disconnection_duration as it is set", "livemax")

        # Rates need a first value.
        for outcome in Outcome:
            self._connections.labels(outcome.value)
        for ending in Ending:
            self._disconnections.labels(ending.value)
        self._disconnections.labels("refused")
        for fate in Fate:
            self._appends.labels(fate.value)
        registry.register(self)

    # -- what happens -------------------------------------------------------------------------------

    def connected(self, outcome: Outcome) -> None:
        self._connections.labels(outcome.value).inc()

    def caught_up(self, events: int, seconds: float) -> None:
        self._replayed.inc(events)
        self._recovery.observe(seconds)

    def ended(self, ending: Ending | None) -> None:
        self._disconnections.labels("refused" if ending is None else ending.value).inc()

    def stored(self, entries: int, size: int) -> None:
        self._appended_bytes.inc(size)

    def appended(self, fate: Fate, entries: int) -> None:
        self._appends.labels(fate.value).inc(entries)

    def dispatched(self, entries: int) -> None:
        self._dispatched.inc(entries)

    def delivered(self, events: int, size: int) -> None:
        self._deliveries.inc(events)
        self._delivered_bytes.inc(size)

    def overflowed(self) -> None:
        self._slow.inc()

    def adopted(self) -> None:
        self._orphans.inc()

    def heartbeat(self, seconds: float, succeeded: bool) -> None:
        self._heartbeat.observe(seconds)
        if not succeeded:
            self._heartbeat_failures.inc()

    def loop_delayed(self, seconds: float) -> None:
        self._delay.observe(seconds)
        if self._writes and time.monotonic() - self._written >= REFRESH:
            self._refresh()
            self._written = time.monotonic()

    def failed(self, task: str) -> None:
        self._failures.labels(task).inc()

    # -- how it is ----------------------------------------------------------------------------------

    def attached(self, read: Callable[[], Reading | None]) -> None:
        self._readers = [reader for reader in self._readers if reader() is not None]
        self._readers.append(weakref.WeakMethod(read))

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for when somebody scrapes. Any thread can call it."""
        self._refresh()
        for metric in self._metrics:
            yield from metric.collect()

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry."""
        for metric in self._metrics:
            yield from metric.describe()

    def _refresh(self) -> None:
        readers = [reader() for reader in self._readers]
        found = [reading for read in readers if read is not None and (reading := read()) is not None]
        self._unhealthy.set(not found or not all(reading.healthy for reading in found))
        self._clients.labels("live").set(sum(reading.clients for reading in found))
        self._clients.labels("catching_up").set(sum(reading.catching_up for reading in found))
        self._queued.set(sum(reading.queued for reading in found))
        self._lag.set(max((reading.log_lag or 0 for reading in found), default=0))
        self._window_entries.set(sum(reading.window_entries or 0 for reading in found))
        self._window_bytes.set(sum(reading.window_bytes or 0 for reading in found))
        for source, seconds in (
            ("stream", [r.stream_retention for r in found if r.stream_retention is not None]),
            ("window", [r.window_retention for r in found if r.window_retention is not None]),
        ):
            if seconds:
                self._retention.labels(source).set(min(seconds))
        self._needed.set(max((reading.max_disconnection for reading in found), default=0))

    # -- making them --------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._keep(Counter(f"socketio_recovery_{name}", text, labels, registry=None))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return self._keep(Histogram(f"socketio_recovery_{name}", text, buckets=buckets, registry=None))

    def _gauge(self, name: str, text: str, mode: Literal["livesum", "livemin", "livemax"], *labels: str) -> Gauge:
        return self._keep(Gauge(f"socketio_recovery_{name}", text, labels, registry=None, multiprocess_mode=mode))

    def _keep(self, metric: M) -> M:
        self._metrics.append(metric)
        return metric
