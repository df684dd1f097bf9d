"""OpenTelemetry traces, where TRACING_ENDPOINT is set: web, Celery, the Main API and storage in one.

Without it nothing of OpenTelemetry is imported, and a span is nothing. Spans carry the request id, so
that a trace, a log line and a Sentry event find each other; addresses lose their query, where links
keep their signatures.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import structlog
from django.conf import settings

_BOUND: Final = ("request_id", "partner", "deed")
_ADDRESSES: Final = ("http.url", "http.target", "url.full", "url.query")
_tracer: Any = None


def start(exporter: Any = None) -> None:
    """Once a process, before it serves. `exporter` replaces the one over HTTP."""
    global _tracer  # noqa: PLW0603 - a process has one
    if not settings.TRACING_ENDPOINT or _tracer is not None:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    class Annotate(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            _annotate(span)

    provider = TracerProvider(
        resource=Resource({"service.name": "partner-api", "service.version": settings.VERSION}),
        sampler=ParentBased(TraceIdRatioBased(settings.TRACING_SAMPLE_RATE)),
    )
    provider.add_span_processor(Annotate())
    provider.add_span_processor(
        BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=settings.TRACING_ENDPOINT, timeout=5))
    )
    trace.set_tracer_provider(provider)
    # The id is known only once the request has been through our middleware.
    DjangoInstrumentor().instrument(response_hook=_note_request_id)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]  # it has no types
    RequestsInstrumentor().instrument()
    _tracer = trace.get_tracer("partner_api")


def span(name: str) -> AbstractContextManager[Any]:
    """Around a step that no library traces."""
    return nullcontext() if _tracer is None else _traced(name)


@contextmanager
def _traced(name: str) -> Iterator[Any]:
    # A message may quote what a partner sent; the type says enough.
    with _tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as current:
        yield current


def _annotate(current: Any) -> None:
    bound = structlog.contextvars.get_contextvars()
    for name in _BOUND:
        if name in bound:
            current.set_attribute(name, str(bound[name]))
    for name in _ADDRESSES:
        value = (current.attributes or {}).get(name)
        if value and (name == "url.query" or "?" in value):
            current.set_attribute(name, "" if name == "url.query" else value.partition("?")[0])


def _note_request_id(current: Any, request: Any, response: Any) -> None:
    if current.is_recording():
        # The library sets its attributes again after the span began.
        _annotate(current)
        current.set_attribute("request_id", getattr(request, "request_id", ""))
        key = getattr(request, "api_key", None)
        if key is not None:
            current.set_attribute("partner", str(key.partner_id))
