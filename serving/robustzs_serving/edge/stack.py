"""The middlewares in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robustzs_serving.codes import codes_document
from robustzs_serving.edge.access import AccessMiddleware
from robustzs_serving.edge.cors import CorsMiddleware
from robustzs_serving.edge.envelope import EnvelopeMiddleware, OnReject, UnreadBodyMiddleware
from robustzs_serving.edge.gate import GateMiddleware
from robustzs_serving.edge.headers import SecurityHeadersMiddleware
from robustzs_serving.edge.keys import KeyRing
from robustzs_serving.edge.request_id import RequestIdMiddleware
from robustzs_serving.edge.work import WorkMiddleware
from robustzs_serving.errors import DOCS, to_envelope
from robustzs_serving.settings import ServiceSettings

Handler = Callable[[Request, Exception], Response]


def middleware(
    settings: ServiceSettings,
    *,
    observe: Sequence[Middleware] = (),
    on_reject: OnReject | None = None,
) -> list[Middleware]:
    """What to give to Starlette, outermost first.

    Args:
        settings: of the service.
        observe: middlewares that see every answer as the client gets it, and the request's id.
        on_reject: told the code of every error that becomes an envelope here.

    Raises:
        UsageError: the keys file cannot be read.
    """
    ring = None if settings.keys_file is None else KeyRing(settings.keys_file)
    stack = [
        Middleware(RequestIdMiddleware),
        *observe,
        Middleware(UnreadBodyMiddleware, max_bytes=settings.limits.max_body_bytes),
        Middleware(SecurityHeadersMiddleware),
        Middleware(EnvelopeMiddleware, on_reject=on_reject),
        Middleware(GateMiddleware, settings=settings),
        Middleware(AccessMiddleware, settings=settings, ring=ring),
        Middleware(WorkMiddleware, settings=settings),
    ]
    if settings.cors_origins:
        # Outside of the envelope, so that a page may read why it was refused.
        position = 3 + len(observe)
        stack.insert(position, Middleware(CorsMiddleware, origins=settings.cors_origins))
    return stack


def exception_handlers() -> Mapping[Any, Handler]:
    """What to give to Starlette, so that its own errors have the envelope, too."""
    return {HTTPException: _handle}


def errors_route() -> Route:
    """``GET /v1/errors``: the table of codes, to which every envelope's ``docs`` leads."""
    return Route(DOCS, _codes, methods=["GET"])


def _handle(request: Request, error: Exception) -> Response:
    return to_envelope(error, getattr(request.state, "request_id", "unknown"))


async def _codes(request: Request) -> Response:
    return JSONResponse(codes_document())
