"""Our application in front of all that BentoML would serve."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class WholeApp:
    """An ASGI middleware that answers every request with ``ours``.

    BentoML puts routes of its own before a mounted application: an index page that loads a tag
    manager, ``/docs.json``, ``/schema.json``, ``/static_content``, ``/livez``, ``/readyz`` and
    ``/healthz`` with other bodies than ours, and plain text for what is not found. Behind this
    middleware none of them is reached; BentoML keeps the life cycle, the processes and the build.

    Args:
        app: BentoML's application; it gets what is no request (the life cycle).
        ours: What answers.
    """

    def __init__(self, app: ASGIApp, ours: ASGIApp) -> None:
        self._app = app
        self._ours = ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a websocket gets our refusal, too."""
        inner = self._ours if scope["type"] in ("http", "websocket") else self._app
        await inner(scope, receive, send)
