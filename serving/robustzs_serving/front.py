"""Our application in front of all that BentoML would serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger(__name__)
_RETRY_SECONDS = 3.0


class WholeApp:
    """An ASGI middleware that answers every request with ``ours``.

    BentoML puts routes of its own before a mounted application: an index page that loads a tag
    manager, ``/docs.json``, ``/schema.json``, ``/static_content``, ``/livez``, ``/readyz`` and
    ``/healthz`` with other bodies than ours, and plain text for what is not found. Behind this
    middleware none of them is reached; BentoML keeps the life cycle, the processes and the build.

    Nor are BentoML's middlewares, once the life cycle has begun: its timeout keeps a request whose
    client left before the answer until the time is over, and a shutdown waits for it; and its
    tracing asks of every request whether it is excluded, which all are.

    Args:
        app: BentoML's application; it gets what is no request (the life cycle).
        ours: What answers.
        started: Called in a worker once it takes requests.
    """

    def __init__(self, app: ASGIApp, ours: ASGIApp, started: Callable[[], None]) -> None:
        self._app = app
        self._ours = ours
        self._started = started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a websocket gets our refusal, too."""
        if scope["type"] in ("http", "websocket"):
            await self._ours(scope, receive, send)
            return
        # BentoML's Starlette application. From now on it gives every request to this middleware at
        # once, and not to BentoML's own ones first.
        scope["app"].middleware_stack = self
        await self._app(scope, receive, self._watched(send))

    def _watched(self, send: Send) -> Send:
        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._started()
            elif message["type"] == "lifespan.startup.failed":
                # The supervisor starts another one as soon as this one has ended.
                _logger.error("the worker cannot start; it is tried again")
                await asyncio.sleep(_RETRY_SECONDS)
            await send(message)

        return told
