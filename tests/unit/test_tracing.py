"""Spans of an emit and of what nodes dispatch, and the ``traceparent`` that an entry carries."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from socketio_recovery.entries import JSON, Payload, _event_head, event_head, parse_entry
from socketio_recovery.tracing import Tracing

from .dispatching import DispatchingNode, event, numbers, queued

PAYLOAD = Payload(JSON, b'["news",1]', (), 0)
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Traced:
    """Spans of a provider that is the application's while a test runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: self.provider)
        self.tracing = Tracing()
        self.tracing.look()

    def named(self, name: str) -> Any:
        return next(span for span in self.exporter.get_finished_spans() if span.name == name)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    return Traced(monkeypatch)


def test_without_opentelemetry_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    tracing = Tracing()
    tracing.look()
    assert tracing.emit("news", "/") is None


@pytest.mark.parametrize("provider", [trace.ProxyTracerProvider, trace.NoOpTracerProvider])
def test_without_a_tracer_nothing_is_made(monkeypatch: pytest.MonkeyPatch, provider: Any) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", provider)
    tracing = Tracing()
    tracing.look()
    assert tracing.emit("news", "/") is None


def test_a_span_that_is_not_recorded_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced(monkeypatch, sampler=ALWAYS_OFF)
    assert traced.tracing.emit("news", "/") is None


def test_the_spans_of_an_emit(traced: Traced) -> None:
    with traced.provider.get_tracer("application").start_as_current_span("request") as request:
        emit = traced.tracing.emit("news", "/chat")
    assert emit is not None
    emit.sending()
    emit.stored()
    assert [span.name for span in traced.exporter.get_finished_spans()] == ["request", "socketio.append"]
    emit.told(None)
    outer, inner = traced.named("socketio.emit"), traced.named("socketio.append")
    assert outer.parent == request.get_span_context()
    assert inner.parent == outer.context
    ids = f"{outer.context.trace_id:032x}-{outer.context.span_id:016x}"
    assert emit.parent == f"00-{ids}-{outer.context.trace_flags:02x}"
    assert dict(outer.attributes) == {
        "messaging.system": "socketio",
        "messaging.destination.name": "/chat",
        "socketio.event": "news",
    }


def test_an_emit_that_fails_has_a_span_that_says_so(traced: Traced) -> None:
    for sent in (True, False):
        traced.exporter.clear()
        emit = traced.tracing.emit("news", "/")
        assert emit is not None
        if sent:
            emit.sending()
        emit.told(asyncio.CancelledError("gave up"))
        spans = {span.name: span for span in traced.exporter.get_finished_spans()}
        assert spans["socketio.emit"].status.status_code is trace.StatusCode.ERROR
        assert spans["socketio.emit"].status.description == "CancelledError: gave up"
        assert ("socketio.append" in spans) is sent


def fields(head: str) -> list[bytes]:
    return [b"head", head.encode(), b"data", PAYLOAD.data]


def test_an_entry_carries_its_parent_and_is_else_as_it_was() -> None:
    plain, carrying = (event_head("/", ["room"], [], PAYLOAD, trace=parent) for parent in ("", PARENT))
    assert "trace" not in plain
    entry = parse_entry(1, 2, fields(carrying))
    assert (entry.trace, entry.rooms, entry.skip, entry.volatile, entry.callback) == (
        PARENT,
        ("room",),
        (),
        False,
        None,
    )
    assert parse_entry(1, 2, fields(plain)).trace == ""


def test_heads_that_carry_one_are_not_kept_ready() -> None:
    before = _event_head.cache_info()
    event_head("/", [], [], PAYLOAD, trace=PARENT)
    assert _event_head.cache_info() == before


@pytest.mark.parametrize(
    "value",
    [
        *(1, None, [], {}, "", "00", PARENT + "\n", PARENT.upper(), PARENT.replace("00-", "ff-"), PARENT + "-01"),
        *("00-" + "0" * 32 + "-" + "b" * 16 + "-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01", PARENT * 100),
    ],
)
def test_what_is_no_parent_is_passed_over(value: object) -> None:
    entry = parse_entry(1, 2, fields(json.dumps(["event", "/", [], [], {"trace": value}])))
    assert entry.trace == ""
    assert entry.payload == PAYLOAD


def test_what_a_node_dispatches_goes_on_with_the_trace(traced: Traced) -> None:
    node = DispatchingNode(tracing=traced.tracing)
    node.connect("ann")
    node.connect("bob")
    there, nobody = event("hello"), event("hello", "elsewhere")
    there.trace = nobody.trace = PARENT
    node.take(there, nobody, event("untraced"))
    span: Any
    (span,) = traced.exporter.get_finished_spans()
    assert span.name == "socketio.dispatch"
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == ("a" * 32, "b" * 16)
    assert span.parent.is_remote
    assert span.attributes["socketio.recipients"] == 2


def test_a_node_without_a_tracer_dispatches_what_is_traced_elsewhere() -> None:
    node = DispatchingNode()
    ann = node.connect("ann")
    carrying = event("hello")
    carrying.trace = PARENT
    node.take(carrying)
    assert numbers(queued(ann)) == [1]
