"""OpenTelemetry spans, when an endpoint is set; otherwise nothing is imported and nothing is made.

A request's spans: the request itself (continuing the caller's ``traceparent``), and below it
``classifier`` (labels, tree and their text features), ``decode``, ``queue`` and ``model``. They go
out over OTLP/HTTP in a thread of their own; when the collector is away, they are dropped, and the
service does not wait.

Whether or not they go out, `measured` tells how long they took: that is an answer's ``timing``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.types import Scope

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

Attributes = Mapping[str, str | int | float]

_spent: ContextVar[dict[str, float] | None] = ContextVar("robustzs_spent", default=None)
_tracer: Tracer | None = None
_provider: TracerProvider | None = None


def configure_tracing(endpoint: str | None, *, version: str = "") -> None:
    """Send spans to an OTLP/HTTP endpoint such as ``http://127.0.0.1:4318/v1/traces``.

    Args:
        endpoint: Where to; ``None`` or empty turns tracing off.
        version: Of the service, as it stands in the spans.
    """
    global _tracer, _provider
    close_tracing()
    if not endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "robustzs", "service.version": version})
    # OpenTelemetry's own atexit hook would wait for a collector that is away.
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    _tracer = _provider.get_tracer("robustzs_serving", version)


def close_tracing() -> None:
    """Send what is left, for some seconds at most, and turn tracing off."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        provider.force_flush(3_000)
        provider.shutdown()


@contextlib.contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[None]:
    """A span around some work, below the current one; next to free while tracing is off."""
    started = time.monotonic()
    try:
        if _tracer is None:
            yield
        else:
            with _tracer.start_as_current_span(name, attributes=dict(attributes or {})):
                yield
    finally:
        _spend(name, time.monotonic() - started)


def record(name: str, start: float, end: float, attributes: Attributes | None = None) -> None:
    """A span below the current one for work that another thread did.

    Args:
        name: Of the span.
        start: When it began, ``time.monotonic()``.
        end: When it ended, ``time.monotonic()``.
        attributes: Of the span.
    """
    _spend(name, end - start)
    if _tracer is None:
        return
    offset = time.time() - time.monotonic()
    began, ended = (int((moment + offset) * 1e9) for moment in (start, end))
    _tracer.start_span(name, attributes=dict(attributes or {}), start_time=began).end(ended)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds of the spans inside, by name, also of tasks that begin inside.

    Of spans of one name it is the longest: images of one request are worked on side by side.
    """
    spent: dict[str, float] = {}
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def _spend(name: str, seconds: float) -> None:
    spent = _spent.get()
    if spent is not None:
        spent[name] = max(spent.get(name, 0.0), seconds)


@contextlib.contextmanager
def request_span(scope: Scope) -> Iterator[Callable[[str, int], None]]:
    """The root span of a request; what it yields takes the route's pattern and the status."""
    if _tracer is None:
        yield lambda route, status: None
        return
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # `baggage` is not taken over: a client could fill it with anything.
    carrier = {
        key.decode("latin-1"): value.decode("latin-1")
        for key, value in scope["headers"]
        if key in (b"traceparent", b"tracestate")
    }
    parent = TraceContextTextMapPropagator().extract(carrier)
    with _tracer.start_as_current_span(
        scope["method"], context=parent, kind=SpanKind.SERVER
    ) as current:

        def done(route: str, status: int) -> None:
            current.update_name(f"{scope['method']} {route}")
            current.set_attribute("http.route", route)
            current.set_attribute("http.request.method", scope["method"])
            current.set_attribute("http.response.status_code", status)
            request_id = scope.get("state", {}).get("request_id")
            if request_id:
                current.set_attribute("robustzs.request_id", str(request_id))
            if status >= 500:
                current.set_status(StatusCode.ERROR)

        yield done
