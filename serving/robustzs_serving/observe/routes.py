"""``/livez``, ``/readyz`` and ``/metrics``: ours, and not BentoML's of the same names."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robustzs_serving.errors import NotReadyError, to_envelope
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.observe.readiness import Readiness

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
PATHS = ("/livez", "/readyz", "/metrics")


def observe_routes(metrics: Metrics, readiness: Callable[[], Readiness]) -> list[Route]:
    """The routes for probes and Prometheus. None of them needs a key, none waits for the model.

    Args:
        metrics: What ``/metrics`` shows.
        readiness: Asked anew for every ``/readyz``.
    """

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        now = readiness()
        metrics.worker(ready=now.ready)
        if not now.ready:
            message = f"the service is not ready: {', '.join(now.missing())}"
            request_id = getattr(request.state, "request_id", "") or uuid.uuid4().hex
            return to_envelope(NotReadyError(message), request_id)
        return JSONResponse({"status": "ready", "checks": now.checks()})

    async def numbers(request: Request) -> Response:
        metrics.worker(ready=readiness().ready)
        body = await anyio.to_thread.run_sync(metrics.render)
        return Response(body, media_type=_TEXT)

    return [
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", numbers, methods=["GET"]),
    ]
