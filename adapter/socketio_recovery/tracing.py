"""Traces, by OpenTelemetry's API: what happens to an event from ``emit`` to the clients of each node.

Three spans: ``socketio.emit`` until the caller is told, ``socketio.append`` within it while the entry is on its way
into the log, and on each node that has recipients ``socketio.dispatch``. The last is a child of the first: the entry
carries the first one's ``traceparent`` if that is recorded (https://www.w3.org/TR/trace-context/#traceparent-header).

An application that traces has imported ``opentelemetry``, and has configured a tracer provider. Where it has not, this
module imports nothing, and nothing is made for an emit.
"""

from __future__ import annotations

import sys
from typing import Any

from .entries import Entry


class Tracing:
    """The tracer of the application, if it has one."""

    def __init__(self) -> None:
        self._tracer: Any = None

    def look(self) -> None:
        """Looks whether the application has configured a tracer provider. That takes too long for each emit."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if self._tracer is None and trace is not None:
            provider = trace.get_tracer_provider()
            if not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
                self._tracer = provider.get_tracer("socketio_recovery")

    def emit(self, event: object, namespace: str) -> EmitTrace | None:
        """Begins the span of an emit, within the span that is the current one here; ``None`` if it is not recorded."""
        if self._tracer is None:
            return None
        trace = EmitTrace(self._tracer, event, namespace)
        return trace if trace.recorded else None

    def dispatch(self, entry: Entry, recipients: int) -> Any:
        """Begins the span of an entry that carries a ``traceparent``: it is to be ended. ``None`` without a tracer."""
        if self._tracer is None:
            return None
        trace: Any = sys.modules["opentelemetry.trace"]
        _, trace_id, span_id, flags = entry.trace.split("-")
        parent = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
        return self._tracer.start_span(
            "socketio.dispatch",
            context=trace.set_span_in_context(trace.NonRecordingSpan(parent)),
            kind=trace.SpanKind.CONSUMER,
            attributes={**_attributes(entry.namespace), "socketio.recipients": recipients},
        )


class EmitTrace:
    """The spans of one emit, in the process that emits."""

    __slots__ = ("_append", "_emit", "_tracer", "parent", "recorded")

    def __init__(self, tracer: Any, event: object, namespace: str) -> None:
        trace: Any = sys.modules["opentelemetry.trace"]
        self._tracer = tracer
        self._emit = tracer.start_span(
            "socketio.emit",
            kind=trace.SpanKind.PRODUCER,
            attributes={**_attributes(namespace), "socketio.event": str(event)},
        )
        self._append: Any = None
        self.recorded: bool = self._emit.is_recording()
        context = self._emit.get_span_context()
        #: What the entry carries.
        self.parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def sending(self) -> None:
        """The entry is on its way to Redis."""
        trace: Any = sys.modules["opentelemetry.trace"]
        self._append = self._tracer.start_span(
            "socketio.append", context=trace.set_span_in_context(self._emit), kind=trace.SpanKind.CLIENT
        )

    def stored(self) -> None:
        """Redis has taken it, or has said why not."""
        if self._append is not None:
            self._append.end()
            self._append = None

    def told(self, error: BaseException | None) -> None:
        """The caller is told."""
        self.stored()
        if error is not None:
            trace: Any = sys.modules["opentelemetry.trace"]
            self._emit.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self._emit.end()


def _attributes(namespace: str) -> dict[str, Any]:
    """https://opentelemetry.io/docs/specs/semconv/messaging/. No rooms and no ids: they may be private."""
    return {"messaging.system": "socketio", "messaging.destination.name": namespace}
