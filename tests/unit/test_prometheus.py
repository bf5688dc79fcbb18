"""What Prometheus gets, and that the page and the dashboard about it say the same."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from socketio_recovery.metrics import NO_METRICS, Metrics, Reading
from socketio_recovery.prometheus import PrometheusMetrics
from socketio_recovery.reasons import Ending, Fate, Outcome

from tests.support.paths import ROOT

from .dispatching import DispatchingNode, event

PAGE = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"

READING = Reading(True, 3, 1, 2, 0.25, 100, 5000, 290.0, 40.0, 120)


class Manager:
    """What a manager tells its metrics."""

    def __init__(self, reading: Reading | None = READING) -> None:
        self.reading = reading

    def read(self) -> Reading | None:
        return self.reading


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """What somebody who scrapes gets: ``name{label="value"}`` -> value."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def p(name: str) -> str:
    return "socketio_recovery_" + name


def test_what_happens_is_counted(registry: CollectorRegistry) -> None:
    metrics = PrometheusMetrics(registry)
    metrics.connected(Outcome.RECOVERED)
    metrics.connected(Outcome.TRIMMED)
    metrics.caught_up(7, 0.3)
    metrics.ended(Ending.LOST)
    metrics.ended(None)
    metrics.stored(2, 300)
    metrics.appended(Fate.STORED, 2)
    metrics.appended(Fate.UNKNOWN, 1)
    metrics.dispatched(5)
    metrics.delivered(10, 2000)
    metrics.overflowed()
    metrics.adopted()
    metrics.heartbeat(0.01, True)
    metrics.heartbeat(4, False)
    metrics.loop_delayed(0.002)
    metrics.failed("reader")
    found = samples(registry)
    expected = {
        'connections_total{outcome="recovered"}': 1,
        'connections_total{outcome="trimmed"}': 1,
        'connections_total{outcome="new"}': 0,
        "replayed_events_total": 7,
        "recovery_duration_seconds_count": 1,
        "recovery_duration_seconds_sum": 0.3,
        'disconnections_total{ending="lost"}': 1,
        'disconnections_total{ending="refused"}': 1,
        'disconnections_total{ending="left"}': 0,
        "appended_bytes_total": 300,
        'appends_total{fate="stored"}': 2,
        'appends_total{fate="unknown"}': 1,
        'appends_total{fate="withdrawn"}': 0,
        "dispatched_entries_total": 5,
        "deliveries_total": 10,
        "delivered_bytes_total": 2000,
        "slow_clients_total": 1,
        "orphans_total": 1,
        "heartbeat_duration_seconds_count": 2,
        "heartbeat_failures_total": 1,
        "event_loop_delay_seconds_count": 1,
        'task_failures_total{task="reader"}': 1,
    }
    assert {name: found.get(p(name)) for name in expected} == expected


def test_what_a_manager_is_like_is_read_when_somebody_scrapes(registry: CollectorRegistry) -> None:
    metrics = PrometheusMetrics(registry)
    manager = Manager()
    metrics.attached(manager.read)
    expected = {
        "unhealthy": 0,
        'clients{state="live"}': 3,
        'clients{state="catching_up"}': 1,
        "queued_appends": 2,
        "log_lag_seconds": 0.25,
        "window_entries": 100,
        "window_bytes": 5000,
        'retention_seconds{source="stream"}': 290,
        'retention_seconds{source="window"}': 40,
        "max_disconnection_seconds": 120,
    }
    found = samples(registry)
    assert {name: found[p(name)] for name in expected} == expected
    manager.reading = READING._replace(healthy=False, clients=4)
    found = samples(registry)
    assert (found[p("unhealthy")], found[p('clients{state="live"}')]) == (1, 4)


def test_of_several_managers_counts_are_added_and_the_worst_is_shown(registry: CollectorRegistry) -> None:
    metrics = PrometheusMetrics(registry)
    writer = Reading(True, 0, 0, 1, None, None, None, None, None, 60)
    managers = [
        *(Manager(), Manager(READING._replace(log_lag=3, stream_retention=30, window_retention=None))),
        *(Manager(writer), Manager(None)),
    ]
    for manager in managers:
        metrics.attached(manager.read)
    found = samples(registry)
    assert found[p('clients{state="live"}')] == 6
    assert found[p("queued_appends")] == 5
    assert found[p("log_lag_seconds")] == 3
    assert found[p('retention_seconds{source="stream"}')] == 30
    assert found[p('retention_seconds{source="window"}')] == 40
    assert found[p("unhealthy")] == 0
    managers[0].reading = READING._replace(healthy=False)
    assert samples(registry)[p("unhealthy")] == 1


def test_a_manager_is_not_kept_for_its_metrics(registry: CollectorRegistry) -> None:
    metrics = PrometheusMetrics(registry)
    metrics.attached(Manager().read)
    assert samples(registry)[p("unhealthy")] == 1  # nobody is at work
    metrics.attached(Manager().read)
    assert len(metrics._readers) == 1


def test_a_registry_has_them_once(registry: CollectorRegistry) -> None:
    PrometheusMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusMetrics(registry)


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "socketio_recovery.prometheus")
    with pytest.raises(ImportError, match=r'pip install "socketio-recovery\[metrics\]"'):
        importlib.import_module("socketio_recovery.prometheus")


def test_no_metrics_has_every_method() -> None:
    for name in (name for name in vars(Metrics) if not name.startswith("_")):
        assert callable(getattr(NO_METRICS, name))


def test_labels_name_nobody(registry: CollectorRegistry) -> None:
    names = {name for metric in PrometheusMetrics(registry)._metrics for name in metric._labelnames}
    assert names == {"outcome", "ending", "fate", "task", "state", "source"}


# -- several processes ------------------------------------------------------------------------------

PROGRAM = """
import os, sys
from prometheus_client import CollectorRegistry
from socketio_recovery.metrics import Reading
from socketio_recovery.prometheus import PrometheusMetrics
from socketio_recovery.reasons import Outcome

class Manager:
    def read(self):
        return Reading(True, 3, 0, 0, 0.5, 1, 1, 290.0 - self.number, 1.0, 120)

metrics = PrometheusMetrics(CollectorRegistry())  # before the fork, as with gunicorn --preload
metrics.connected(Outcome.NEW)
manager = Manager()
metrics.attached(manager.read)
children = []
for number in range(2):
    pid = os.fork()
    if not pid:
        manager.number = number
        metrics.connected(Outcome.NEW)
        metrics.loop_delayed(0.001)
        metrics.loop_delayed(0.001)
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_the_metrics_of_several_processes(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environ, check=True, timeout=60)
    registry = CollectorRegistry()
    collector: Any = MultiProcessCollector
    collector(registry, str(tmp_path))
    found = samples(registry)
    assert found[p('connections_total{outcome="new"}')] == 3
    assert found[p('clients{state="live"}')] == 6
    assert found[p("log_lag_seconds")] == 0.5
    assert found[p("unhealthy")] == 0  # though the first process is not at work
    assert found[p('retention_seconds{source="stream"}')] == 289


def test_gauges_are_written_now_and_then_for_another_process(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "somewhere")
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    metrics = PrometheusMetrics(registry)
    manager = Manager()
    metrics.attached(manager.read)
    shown = []
    for now in (1001.0, 1001.5, 1002.5):
        manager.reading = READING._replace(clients=round(now * 10))
        metrics.loop_delayed(0)
        shown.append(metrics._clients.labels("live")._value.get())
    assert shown == [10010, 10010, 10025]


# -- what nodes deliver -----------------------------------------------------------------------------


def test_deliveries_are_counted_for_each_recipient(registry: CollectorRegistry) -> None:
    node = DispatchingNode(metrics=PrometheusMetrics(registry))
    node.connect("ann", ["red"])
    node.connect("bob", ["red"])
    node.take(event("ab", "red"), event("ab", "red", skip=["bob", "nobody"]), event("ab", "elsewhere"))
    found = samples(registry)
    assert found[p("dispatched_entries_total")] == 3
    assert found[p("deliveries_total")] == 3
    assert found[p("delivered_bytes_total")] == 3 * len('["ab"]')


# -- the page and the dashboard ---------------------------------------------------------------------


def described() -> dict[str, tuple[str, frozenset[str]]]:
    """All metrics, by their names as Prometheus has them: (type, labels)."""
    found = {}
    for metric in PrometheusMetrics(CollectorRegistry())._metrics:
        name = metric._name + ("_total" if metric._type == "counter" else "")
        found[name] = (metric._type, frozenset(metric._labelnames))
    return found


def rows() -> dict[str, tuple[str, frozenset[str]]]:
    """The table of the page."""
    found = {}
    for line in PAGE.read_text().splitlines():
        row = re.match(r"\| `(socketio_recovery_\w+)` \| (\w+) \|([^|]*)\|", line)
        if row:
            found[row[1]] = (row[2], frozenset(re.findall(r"`(\w+)`", row[3])))
    return found


def test_the_page_lists_all_metrics() -> None:
    assert rows() == described()


@pytest.mark.parametrize("label", ["outcome", "ending", "fate"])
def test_the_page_explains_all_values_of_labels(label: str) -> None:
    values: dict[str, Iterable[Any]] = {"outcome": Outcome, "ending": Ending, "fate": Fate}
    (line,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"- `{label}`:"))
    text = line + PAGE.read_text().partition(line)[2].partition("\n- `")[0]
    for value in values[label]:
        assert f"`{value.value}`" in text


def queries(value: Any) -> Iterable[str]:
    """All queries in a dashboard."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "expr" or (name == "query" and isinstance(inner, str) and "socketio" in inner):
                yield inner
            else:
                yield from queries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from queries(inner)


def exported() -> dict[str, set[str]]:
    """All names of samples, and the labels that they have."""
    found: dict[str, set[str]] = {}
    for name, (kind, labels) in described().items():
        if kind == "histogram":
            found[name + "_bucket"] = {*labels, "le"}
            found[name + "_count"] = found[name + "_sum"] = set(labels)
        else:
            found[name] = set(labels)
    return found


#: Labels that Prometheus adds to what it scrapes.
SCRAPED = {"job", "instance"}


def check(query: str) -> None:
    """Whether a query asks for metrics that there are, by labels that they have."""
    names = exported()
    used = re.findall(r"(socketio_recovery_\w+)(?:\{([^}]*)\})?", query)
    assert used, query
    allowed = set(SCRAPED)
    for name, matchers in used:
        assert name in names, name
        allowed |= names[name]
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            assert label in names[name] | SCRAPED, f"{name} has no label {label}"
    for labels in re.findall(r"\b(?:by|without) \(([^)]*)\)", query):
        for label in filter(None, map(str.strip, labels.split(","))):
            assert label in allowed, f"{query}: no label {label}"


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    found = list(queries(json.loads(DASHBOARD.read_text())))
    assert len(found) > 15
    for query in found:
        check(query)


def test_the_dashboard_shows_every_metric() -> None:
    text = " ".join(queries(json.loads(DASHBOARD.read_text())))
    for name in described():
        assert name in text, f"no panel shows {name}"


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    found = re.findall(r"^ +expr: (.*)$", PAGE.read_text(), flags=re.M)
    assert len(found) >= 5
    for query in found:
        check(query)


def test_wrong_queries_are_found() -> None:
    for query in ("rate(socketio_recovery_nothing_total[5m])", 'socketio_recovery_clients{room="a"}'):
        with pytest.raises(AssertionError):
            check(query)
    with pytest.raises(AssertionError):
        check("sum by (sid) (socketio_recovery_clients)")
