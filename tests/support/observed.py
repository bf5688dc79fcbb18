"""What is measured and traced of a node under test.

``"metrics": true`` in its configuration gives its manager :class:`PrometheusMetrics`; ``"tracing": true`` gives the
process a tracer provider of OpenTelemetry that keeps all spans in memory.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from socketio_recovery.prometheus import PrometheusMetrics


class Observed:
    """What a node's configuration asks for."""

    def __init__(self, config: dict[str, Any]) -> None:
        #: Arguments for the manager.
        self.options: dict[str, Any] = {}
        self._registry: CollectorRegistry | None = None
        self._exporter: InMemorySpanExporter | None = None
        if config.get("metrics"):
            self._registry = CollectorRegistry()
            self.options["metrics"] = PrometheusMetrics(self._registry)
        if config.get("tracing"):
            self._exporter = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(self._exporter))
            trace.set_tracer_provider(provider)

    def look(self) -> dict[str, Any]:
        """The metrics as somebody who scrapes gets them, and the spans that have ended."""
        return {
            "metrics": generate_latest(self._registry).decode() if self._registry is not None else "",
            "spans": [shown(span) for span in self._exporter.get_finished_spans()] if self._exporter else [],
        }


def shown(span: Any) -> dict[str, Any]:
    """A span as JSON."""
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent is not None else None,
        "remote": span.parent is not None and span.parent.is_remote,
        "kind": span.kind.name,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes),
        "start": span.start_time,
        "end": span.end_time,
    }
