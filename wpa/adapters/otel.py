"""Spans through OpenTelemetry: each attempt at a step, as a child of the execution's own trace.

The trace id travels in the ``traceparent`` of every task and event, so the spans of a publisher, of the
engine, and of what steps call, meet in one trace. Sampling, resource and exporter are configured as
OpenTelemetry does it (``OTEL_*`` variables).
"""

from __future__ import annotations

import logging
from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from wpa.errors import PlatformError
from wpa.model.events import Failure

__all__ = ["OtelTracer", "exporter_named"]

NS_PER_MS: Final = 1_000_000

log = logging.getLogger("wpa.trace")


class OtelTracer:
    """See :class:`wpa.ports.tracing.Tracer`."""

    def __init__(self, exporter: SpanExporter, worker: str, *, batch: bool = True) -> None:
        resource = Resource.create({SERVICE_NAME: "wpa", "service.instance.id": worker})
        self._provider = TracerProvider(resource=resource)
        processor = BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("wpa")
        self._propagator = TraceContextTextMapPropagator()

    def attempt(
        self,
        traceparent: str,
        name: str,
        started_ms: int,
        ended_ms: int,
        attributes: dict[str, str | int],
        error: Failure | None,
    ) -> None:
        try:
            context = self._propagator.extract({"traceparent": traceparent})
            span = self._tracer.start_span(
                name,
                context=context,
                kind=SpanKind.INTERNAL,
                attributes=dict(attributes),
                start_time=started_ms * NS_PER_MS,
            )
            if error is not None:
                span.set_status(StatusCode.ERROR, f"{error.type}: {error.message}")
                span.set_attribute("error.type", error.type)
            span.end(end_time=ended_ms * NS_PER_MS)
        except Exception:
            log.exception("a span could not be recorded")

    def close(self) -> None:
        self._provider.shutdown()


def exporter_named(name: str) -> SpanExporter:
    """The exporter for ``WPA_TRACE``: ``console``, or ``otlp`` where its package is installed."""
    if name == "console":
        return ConsoleSpanExporter()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found,unused-ignore]
            OTLPSpanExporter,
        )
    except ImportError:
        raise PlatformError(
            "WPA_TRACE=otlp needs the exporter: pip install opentelemetry-exporter-otlp-proto-http"
        ) from None
    exporter: SpanExporter = OTLPSpanExporter()
    return exporter
