"""The name of a request: in every answer, in every line of the log."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

# Nothing that a log, a shell or a header could take for more than a name.
_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII)


class RequestIdMiddleware:
    """Sets ``request.state.request_id`` and sends it back.

    A client's own id is kept where it is one header of 8 to 64 letters, digits, dots, underscores
    and hyphens; anything else is replaced without a word.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _chosen(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self._app(scope, receive, named)


def _chosen(scope: Scope) -> str:
    given = Headers(scope=scope).getlist(HEADER)
    if len(given) == 1 and _HARMLESS.fullmatch(given[0]):
        return given[0]
    return uuid.uuid4().hex
