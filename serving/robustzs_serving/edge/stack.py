"""The middlewares in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robustzs_serving.errors import DOCS, codes_document, to_envelope
from robustzs_serving.settings import ServiceSettings

Handler = Callable[[Request, Exception], Response]


def middleware(settings: ServiceSettings) -> list[Middleware]:
    """What to give to Starlette, outermost first."""
    return []


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
