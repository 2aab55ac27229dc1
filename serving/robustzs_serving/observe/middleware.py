"""One ASGI middleware for every request: its id in the logs, its root span, its count, its line."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robustzs_serving.observe.logs import request_context
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.observe.routes import PATHS
from robustzs_serving.observe.tracing import request_span

_logger = logging.getLogger(__name__)
# What a client sees as "no answer" when it has gone before there was one (nginx' number for it).
_CLIENT_GONE = 499
# The code stands at the beginning of an envelope, whoever made it.
_HEAD = 256
_CODE = re.compile(rb'"code":\s*"([a-z0-9-]{1,64})"')


class ObserveMiddleware:
    """Belongs right inside of what sets ``request.state.request_id``.

    Args:
        app: What answers.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CLIENT_GONE
        refused = b""

        async def watched(message: Message) -> None:
            nonlocal status, refused
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400 and not refused:
                refused = message.get("body", b"")[:_HEAD]
            await send(message)

        started = time.monotonic()
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        self._metrics.in_progress(1)
        try:
            with (
                request_context(str(state.get("request_id", ""))),
                request_span(scope) as done,
            ):
                try:
                    await self._app(scope, receive, watched)
                except Exception:
                    status = 500
                    raise
                finally:
                    route = route_pattern(scope)
                    seconds = time.monotonic() - started
                    done(route, status)
                    self._metrics.request(route, scope["method"], status, seconds)
                    if status >= 400:
                        self._metrics.reject(_code(status, refused))
                    if route not in PATHS:
                        _line(scope, route, status, seconds, refused)
        finally:
            self._metrics.in_progress(-1)


def route_pattern(scope: Scope) -> str:
    """The pattern of the route that answered, such as ``/v1/label-sets/{id}``; never a path."""
    pattern: str = getattr(scope.get("route"), "path", "")
    # A pattern that takes any path is the one that answers 404.
    return "unmatched" if not pattern or pattern.startswith("/{") else pattern


def _code(status: int, body: bytes) -> str:
    found = _CODE.search(body)
    if found:
        return found[1].decode("ascii")
    return "client-gone" if status == _CLIENT_GONE else "other"


def _line(scope: Scope, route: str, status: int, seconds: float, refused: bytes) -> None:
    fields: dict[str, str | int | float] = {
        "method": scope["method"],
        "route": route,
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
    }
    if status >= 400:
        fields["code"] = _code(status, refused)
    _logger.info("request", extra=fields)
