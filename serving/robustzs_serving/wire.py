"""What uvicorn answers before there is a request for the application.

uvicorn's own protocol waits for ever for the rest of a header, answers what is no HTTP in plain
text, and closes while the client still sends, which may then see a reset instead of the answer.
This one has a clock for headers, a bound on connections, and the service's envelope.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from collections.abc import Callable
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from robustzs_serving.errors import (
    HeadersTooLargeError,
    HttpMalformedError,
    OverloadedError,
    ServiceError,
    SlowHeadersError,
    to_envelope,
)
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.settings import Limits

_logger = logging.getLogger(__name__)
# After a refusal, for what the client is still sending; longer would let it hold the connection.
_LINGER_SECONDS = 5.0
_ROUTE = "unmatched"


class _Connection(h11.Connection):
    """Keeps an answer's head until its body begins: one write to the socket in place of two.

    Every write is a call of the kernel that, for a client on this machine, wakes the client, too.
    """

    _head = b""

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """The bytes to write now; a head comes with what follows it."""
        data = super().send(event)
        if data is None:  # the connection is at its end
            return None
        if isinstance(event, h11.Response):
            self._head = data
            return b""
        head, self._head = self._head, b""
        return head + data


class WireProtocol(H11Protocol):
    """HTTP/1.1 on one connection. ``install`` says with which limits."""

    limits: ClassVar[Limits] = Limits()
    metrics: ClassVar[Metrics] = Metrics()

    _clock: asyncio.TimerHandle | None = None
    _then: Callable[[], None] | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        room = self.limits.max_header_bytes + self.limits.max_target_bytes
        self.conn = _Connection(h11.SERVER, room)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(OverloadedError("as many connections as the service holds are open"))
        else:
            self._start_clock(self.limits.header_seconds, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes after a refusal is thrown away."""
        if self._refused:
            return
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            # Between two requests, or in the middle of headers.
            self._start_clock(self.limits.header_seconds, self._headers_late)
        elif self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            # Answered before the body had come: it is read, so that the answer is, for a while.
            self._start_clock(_LINGER_SECONDS, self.transport.close)
        else:
            self._stop_clock()

    def _should_upgrade(self) -> bool:
        """No: an upgrade is an offer, and what is not taken up is plain HTTP (RFC 9110, 7.8).

        uvicorn would hand WebSockets to a protocol of its own, past every limit and the envelope.
        """
        return False

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with what is no request; called while h11's error is handled."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        if status == 431:
            self._refuse(HeadersTooLargeError("the request line and headers are too large"))
        else:
            self._refuse(HttpMalformedError("what came is no HTTP/1.1 request"))

    def _headers_late(self) -> None:
        if self.transport.is_closing():
            return
        if not self.conn.trailing_data[0]:  # nothing was asked, so nothing is answered
            self.transport.close()
            return
        self._refuse(SlowHeadersError("the request line and the headers came too slowly"))

    def _refuse(self, error: ServiceError) -> None:
        """Answer in the service's envelope, and close once the client has had time to read it."""
        self._stop_clock()
        self._unset_keepalive_if_required()
        self._refused = True
        self.metrics.request(_ROUTE, "other", error.status, 0.0)
        self.metrics.reject(error.code)
        request_id = uuid.uuid4().hex
        _logger.info(
            "connection refused",
            extra={"status": error.status, "code": error.code, "request_id": request_id},
        )
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = to_envelope(error, request_id)
            headers = [*response.raw_headers, (b"connection", b"close")]
            headers.append((b"x-content-type-options", b"nosniff"))
            phrase = STATUS_PHRASES[error.status]
            events = (
                h11.Response(status_code=error.status, headers=headers, reason=phrase),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._start_clock(_LINGER_SECONDS, self.transport.close)
        else:  # half an answer is out already
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _start_clock(self, seconds: float, then: Callable[[], None]) -> None:
        """Unless this clock runs already: more bytes give no more time."""
        if self._clock is not None and self._then == then:
            return
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, then)
        self._then = then

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = self._then = None


def install(limits: Limits, metrics: Metrics) -> None:
    """Have the uvicorn that BentoML starts in this process speak through `WireProtocol`.

    Args:
        limits: On headers and connections.
        metrics: Where refusals are counted.
    """
    from uvicorn import config

    WireProtocol.limits = limits
    WireProtocol.metrics = metrics
    # BentoML passes nothing of this on; "auto" is what it leaves uvicorn with.
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{WireProtocol.__name__}"
