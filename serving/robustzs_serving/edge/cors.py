"""Pages of other origins: none, unless the deployer lists theirs."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from robustzs_serving.edge.request_id import HEADER as REQUEST_ID
from robustzs_serving.errors import OriginRefusedError, quoted, to_envelope

_METHODS = ("GET", "POST", "PUT", "DELETE")
_HEADERS = ("Authorization", "Content-Type", "If-Match", "If-None-Match", "X-API-Key", REQUEST_ID)
_EXPOSED = (REQUEST_ID, "ETag", "Retry-After", "WWW-Authenticate")


class CorsMiddleware(CORSMiddleware):
    """Starlette's, without credentials, and with refusals in the envelope.

    Args:
        app: what answers.
        origins: that may call; ``*`` for all.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=_METHODS,
            allow_headers=_HEADERS,
            expose_headers=_EXPOSED,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Starlette's answer, and an envelope in place of its text where it refuses."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return _Refusal(request_headers.get("origin", ""))


class _Refusal(Response):
    """Made where the request's id is not known yet."""

    def __init__(self, origin: str) -> None:
        super().__init__(status_code=OriginRefusedError.status)
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = OriginRefusedError(
            f"a page of {quoted(self._origin)} may not ask for this method or these headers",
            hint="the deployer lists origins in ROBUSTZS_CORS_ORIGINS",
        )
        await to_envelope(error, scope["state"]["request_id"])(scope, receive, send)
