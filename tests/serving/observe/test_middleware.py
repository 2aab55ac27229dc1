"""Requests are counted by route, whatever is asked; spans go where they are told to."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import anyio
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from robustzs_serving.errors import CODES, NotFoundError, to_envelope
from robustzs_serving.observe import (
    ObserveMiddleware,
    PrometheusMetrics,
    Readiness,
    close_tracing,
    configure_tracing,
    observe_routes,
    record,
    span,
)
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

READY = Readiness(model_verified=True, warmed_up=True, provider_as_asked=True, decoders_alive=True)


class _App:
    def __init__(self) -> None:
        self.metrics = PrometheusMetrics(reasons=CODES)
        self.readiness = READY
        self.app = Starlette(
            routes=[
                *observe_routes(self.metrics, lambda: self.readiness),
                Route("/things/{id}", _thing),
                Route("/fails", _fails),
                Route("/{rest:path}", _nowhere, methods=["GET", "POST"]),
            ],
            middleware=[Middleware(ObserveMiddleware, metrics=self.metrics)],
        )

    def get(self, *paths: str, **headers: str) -> list[httpx.Response]:
        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return [await client.get(path, headers=headers) for path in paths]

        return anyio.run(ask)


async def _thing(request: Request) -> Response:
    with span("decode", {"n": 1}):
        record("queue", 1.0, 1.5)
    return JSONResponse({})


async def _fails(request: Request) -> Response:
    raise RuntimeError("inside")


async def _nowhere(request: Request) -> Response:
    return to_envelope(NotFoundError("nothing is here"), "id")


@pytest.fixture
def app() -> _App:
    return _App()


def test_requests_are_counted_by_pattern(app: _App, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "robustzs_serving"):
        app.get("/things/17", "/things/18", "/secret-path", "/fails")
    text = app.metrics.render().decode()
    for sample in (
        'requests_total{method="GET",route="/things/{id}",status="200"} 2.0',
        'requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'requests_total{method="GET",route="/fails",status="500"} 1.0',
        'rejects_total{reason="not-found"} 1.0',
        "requests_in_progress 0.0",
    ):
        assert f"robustzs_{sample}" in text
    assert "secret-path" not in text
    lines = [record for record in caplog.records if record.message == "request"]
    assert [(one.__dict__["route"], one.__dict__["status"]) for one in lines] == [
        ("/things/{id}", 200),
        ("/things/{id}", 200),
        ("unmatched", 404),
        ("/fails", 500),
    ]


@pytest.mark.parametrize("check", list(READY.checks()))
def test_not_ready_names_what_is_missing(app: _App, check: str) -> None:
    app.readiness = Readiness(**{**READY.checks(), check: False})
    alive, refused = app.get("/livez", "/readyz")
    assert alive.status_code == 200
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "not-ready"
    assert check in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    app.readiness = READY
    (ready,) = app.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, READY.checks())


def test_probes_write_no_lines(app: _App, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "robustzs_serving"):
        app.get("/livez", "/readyz", "/metrics")
    assert not [record for record in caplog.records if record.message == "request"]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Span]]]:
    """An OTLP collector: its address, and the spans that it got."""
    got: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    got.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        close_tracing()
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_continue_the_callers_trace(app: _App, collector: tuple[str, list[Span]]) -> None:
    endpoint, got = collector
    configure_tracing(endpoint, version="1")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    app.get("/things/17", traceparent=f"00-{trace}-{parent}-01", baggage="secret=1")
    app.get("/nowhere-secret")
    close_tracing()
    spans = {one.name: one for one in got}
    root = spans["GET /things/{id}"]
    assert root.trace_id.hex() == trace
    assert root.parent_span_id.hex() == parent
    assert spans["decode"].parent_span_id == root.span_id
    assert spans["queue"].parent_span_id == spans["decode"].span_id
    queue = spans["queue"]
    assert queue.end_time_unix_nano - queue.start_time_unix_nano == pytest.approx(5e8, rel=1e-3)
    assert spans["GET unmatched"].trace_id.hex() != trace
    assert "secret" not in str(got)


def test_tracing_off_sends_nothing(app: _App, collector: tuple[str, list[Span]]) -> None:
    configure_tracing(None)
    app.get("/things/17")
    assert not collector[1]


def test_a_collector_that_is_away_delays_nobody(app: _App) -> None:
    configure_tracing("http://127.0.0.1:9/v1/traces")
    try:
        (answer,) = app.get("/things/17")
        assert answer.status_code == 200
    finally:
        close_tracing()
