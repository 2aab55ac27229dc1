"""The body as it arrives, the deadline, and clients that leave: what one request may hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robustzs_serving.edge.access import PROBES, local_path
from robustzs_serving.errors import (
    BodyTooLargeError,
    DeadlineError,
    OverloadedError,
    SlowBodyError,
)
from robustzs_serving.settings import Limits, ServiceSettings


@dataclass
class _Ledger:
    """What all requests of this process hold together."""

    requests: int = 0
    body_bytes: int = 0


class WorkMiddleware:
    """Bounds what is worked on at once, how bodies come, and how long an answer may take.

    Sets ``request.state.deadline``. When the client leaves, or the deadline passes, the task that
    works on the request is cancelled, and with it whatever it waits for.

    Args:
        app: what answers.
        settings: of the service.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._limits = settings.limits
        self._held = _Ledger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["deadline"] = time.monotonic() + self._limits.request_seconds
        if local_path(scope) in PROBES:
            await self._app(scope, receive, send)
            return
        if self._held.requests >= self._limits.max_concurrency:
            raise OverloadedError(
                f"{self._held.requests} requests are worked on already", hint="try again soon"
            )
        _check_declared(scope, self._limits)
        body = _Body(receive, self._limits, self._held)
        self._held.requests += 1
        try:
            await self._work(scope, body, send)
        finally:
            self._held.requests -= 1
            self._held.body_bytes -= body.received

    async def _work(self, scope: Scope, body: _Body, send: Send) -> None:
        with anyio.move_on_after(self._limits.request_seconds) as work:
            # A task alone, since leaving a task group costs more than all the other checks.
            watching = asyncio.create_task(body.watch(work))
            try:
                await self._app(scope, body.receive, body.sending(send))
            finally:
                watching.cancel()
        if work.cancelled_caught and not body.gone.is_set():
            raise DeadlineError(
                f"the request took longer than {self._limits.request_seconds:g} s",
                hint="send fewer images or labels at once",
            )
        if body.gone.is_set() and not body.answered:
            raise ClientDisconnect


class _Body:
    """The receiving end of one request."""

    def __init__(self, receive: Receive, limits: Limits, held: _Ledger) -> None:
        self._receive = receive
        self._limits = limits
        self._held = held
        self._waited = 0.0
        self._complete = anyio.Event()
        self.received = 0
        self.gone = anyio.Event()
        self.answered = False

    async def receive(self) -> Message:
        """The next piece; after the last one, word that the client left, when it does."""
        if self._complete.is_set():
            await self.gone.wait()
            return {"type": "http.disconnect"}
        message = await self._next()
        if message["type"] == "http.disconnect":
            self.gone.set()
            return message
        self._count(len(message.get("body", b"")))
        if not message.get("more_body", False):
            self._complete.set()
        return message

    async def watch(self, work: anyio.CancelScope) -> None:
        """Cancel the work when the client leaves after it has sent everything."""
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # A server says the same when the answer has been sent; what runs after it may finish.
        if not self.answered:
            self.gone.set()
            work.cancel()

    def sending(self, send: Send) -> Send:
        """``send``, noting when the answer is whole."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.answered = True
            await send(message)

        return noting

    async def _next(self) -> Message:
        limits = self._limits
        patience = min(
            limits.body_seconds,
            limits.body_grace_seconds + self.received / limits.min_body_rate,
        )
        started = time.monotonic()
        # Only waiting counts: time in which we were busy is not the client's.
        with anyio.move_on_after(max(patience - self._waited, 0.0)):
            message = await self._receive()
            self._waited += time.monotonic() - started
            return message
        raise SlowBodyError(
            f"{self.received} bytes of the body came in {patience:.0f} s of waiting",
            hint=f"at least {limits.min_body_rate} bytes per second must come, all of them "
            f"within {limits.body_seconds:g} s",
        )

    def _count(self, size: int) -> None:
        self.received += size
        self._held.body_bytes += size
        if self.received > self._limits.max_body_bytes:
            raise _too_large(self._limits)
        if self._held.body_bytes > self._limits.max_buffered_bytes:
            raise OverloadedError(
                "the service holds as many bytes as it may already", hint="try again soon"
            )


def _check_declared(scope: Scope, limits: Limits) -> None:
    text = Headers(scope=scope).get("content-length", "0")
    # Python refuses to read numbers of many digits.
    if len(text) >= 20 or (
        text.isascii() and text.isdecimal() and int(text) > limits.max_body_bytes
    ):
        raise _too_large(limits)


def _too_large(limits: Limits) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than {limits.max_body_bytes} bytes",
        hint="send fewer images at once, or smaller ones",
    )
