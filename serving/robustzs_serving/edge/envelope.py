"""Errors become envelopes here, and connections whose body nobody reads end well."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robustzs_serving.errors import problem_of, to_envelope

_logger = logging.getLogger(__name__)
_LINGER_SECONDS = 5.0

OnReject = Callable[[str], None]
"""Told the code of every request that is refused."""


class EnvelopeMiddleware:
    """Answers every exception from further inside with its envelope.

    What is our own fault is logged with its stack; the client learns the request's id alone. Where
    the answer has begun already, only closing the connection is left, so the exception goes on.

    Args:
        app: what answers.
        on_reject: told the code of every error.
    """

    def __init__(self, app: ASGIApp, on_reject: OnReject | None = None) -> None:
        self._app = app
        self._on_reject = on_reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is there to be told
        except Exception as error:  # noqa: BLE001  the one place where every error ends
            await self._answer(error, started, scope, receive, send)

    async def _answer(
        self, error: Exception, started: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request_id = scope["state"]["request_id"]
        problem = problem_of(error)
        if problem.status == 500 or started:
            _logger.error("request %s failed", request_id, exc_info=error)
        if self._on_reject is not None:
            self._on_reject(problem.code)
        if started:
            raise error
        await to_envelope(error, request_id)(scope, receive, send)


class UnreadBodyMiddleware:
    """Ends connections whose body was not read to its end; the client still gets its answer.

    An answer such as 413 is ready before the body has come. Closing the connection at once would
    reset it, and many clients then lose the answer; reading on for as long as the client likes
    would give it a way around every limit. So the answer is sent with ``Connection: close``, the
    rest is read and dropped for a while, then the connection is closed.

    Args:
        app: what answers.
        max_bytes: to drop at most.
        seconds: to wait at most.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float = _LINGER_SECONDS) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not _announces_body(scope):
            await self._app(scope, receive, send)
            return
        ended = False

        async def reading() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if ended:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._drop(reading)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(scope, reading, sending)

    async def _drop(self, receive: Receive) -> None:
        dropped = 0
        with anyio.move_on_after(self._seconds):
            while dropped <= self._max_bytes:
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _announces_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""
