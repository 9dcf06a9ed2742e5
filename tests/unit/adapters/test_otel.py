from __future__ import annotations

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from wpa.adapters.otel import OtelTracer
from wpa.model.events import Failure

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def test_an_attempt_is_a_span_in_the_executions_trace() -> None:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(exporter, "w1", batch=False)
    tracer.attempt(PARENT, "order.charge", 1_000, 1_250, {"wpa.attempt": 2}, None)
    failure = Failure(type="Boom", message="no")
    tracer.attempt(PARENT, "order.ship", 1_250, 1_300, {}, failure)
    charge, ship = exporter.get_finished_spans()
    assert f"{charge.context.trace_id:032x}" == "0123456789abcdef0123456789abcdef"
    assert charge.parent is not None
    assert f"{charge.parent.span_id:016x}" == "0123456789abcdef"
    assert (charge.start_time, charge.end_time) == (1_000_000_000, 1_250_000_000)
    assert charge.attributes == {"wpa.attempt": 2}
    assert ship.status.status_code is StatusCode.ERROR
    assert ship.status.description == "Boom: no"


def test_a_traceparent_that_is_none_does_no_harm() -> None:
    exporter = InMemorySpanExporter()
    OtelTracer(exporter, "w1", batch=False).attempt("nonsense", "x", 1, 2, {}, None)
    assert len(exporter.get_finished_spans()) == 1
