"""One envelope for everything that goes wrong, and the one table of codes.

```
{"error": {"code", "message", "param", "request_id", "docs"}}
```

``code`` is stable and for programs; ``message`` is for people; ``param`` names the field to blame,
or is null; ``docs`` leads to the code's row in ``GET /v1/errors``. Nothing comes from a library: no
text of PIL, no path, no stack. What a client sent is quoted shortened, control characters escaped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from robustzs import errors
from robustzs.cli.escape import terminal_safe
from robustzs.errors import ImageError, RobustZSError
from robustzs_serving.codes import CODES as CODES

DOCS = "/v1/errors"
"""Route of the table of codes; ``docs`` of an envelope adds the code as fragment."""
MAX_MESSAGE = 1_000
"""Characters of a message; what is longer is cut."""
MAX_QUOTED = 64
"""Characters of what a client sent, where a message quotes it."""
_RETRY_SECONDS = 1

# Of the core's errors; the first class that matches decides.
_STATUS: tuple[tuple[type[RobustZSError], int], ...] = (
    (errors.ImageTooLargeError, 413),
    (errors.ImageFormatError, 415),
    (errors.ImageError, 422),
    (errors.ModelNotFoundError, 404),
    (errors.BackendUnavailableError, 503),
    (errors.UsageError, 400),
    (errors.LabelError, 422),
    (errors.WordNetDataMissingError, 500),
    (errors.HierarchyError, 422),
    (errors.CalibrationError, 422),
)


class ServiceError(RobustZSError):
    """What only a service may say.

    Args:
        message: what is wrong, naming the value.
        hint: what to do about it.
        param: the field that is to blame.
        headers: to send with the response.
    """

    code = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param
        self.headers = dict(headers or {})


class HttpMalformedError(ServiceError):
    """What came is no HTTP/1.1 request."""

    code = "http-malformed"
    status = 400


class BodyMalformedError(ServiceError):
    """The body is not the multipart or JSON that it says it is."""

    code = "body-malformed"
    status = 400


class UnknownFieldError(ServiceError):
    """A field that does not exist."""

    code = "field-unknown"
    status = 400


class RepeatedFieldError(ServiceError):
    """A field that may be there once is there twice."""

    code = "field-repeated"
    status = 400


class MissingFieldError(ServiceError):
    """A field that must be there is not."""

    code = "field-missing"
    status = 400


class FieldValueError(ServiceError, errors.UsageError):
    """A field has a value that cannot be; a ``UsageError`` that names its field."""

    code = "usage"
    status = 400


class UrlsOffError(ServiceError):
    """Images by URL are not accepted here."""

    code = "url-off"
    status = 400


class UnauthorizedError(ServiceError):
    """No API key, or one that is not known."""

    code = "unauthorized"
    status = 401


class OriginRefusedError(ServiceError):
    """A page of an origin that is not allowed sent this."""

    code = "origin-refused"
    status = 403


class ScoresWithheldError(ServiceError):
    """What is asked for would reveal scores that are rounded or withheld."""

    code = "scores-withheld"
    status = 403


class NotFoundError(ServiceError):
    """Nothing is at this path."""

    code = "not-found"
    status = 404


class SlowHeadersError(ServiceError):
    """The request line and the headers came too slowly."""

    code = "slow-headers"
    status = 408


class SlowBodyError(ServiceError):
    """The body came too slowly."""

    code = "slow-body"
    status = 408


class BodyTooLargeError(ServiceError):
    """The body is larger than the service takes."""

    code = "body-too-large"
    status = 413


class FieldTooLargeError(ServiceError):
    """One part of the body is larger than the service takes."""

    code = "field-too-large"
    status = 413


class TooManyImagesError(ServiceError):
    """More images than one request may bring."""

    code = "too-many-images"
    status = 413


class UriTooLongError(ServiceError):
    """Path and query are too long."""

    code = "uri-too-long"
    status = 414


class MediaTypeError(ServiceError):
    """The content type or encoding of the body is not accepted."""

    code = "media-type"
    status = 415


class HostRefusedError(ServiceError):
    """``Host`` names a host that the service does not answer for."""

    code = "host-refused"
    status = 421


class TextError(ServiceError):
    """A text to embed is wrong or too long."""

    code = "text"
    status = 422


class HeadersTooLargeError(ServiceError):
    """The headers are too large."""

    code = "headers-too-large"
    status = 431


class RateLimitedError(ServiceError):
    """More requests per second than this key or address may send."""

    code = "rate-limited"
    status = 429


class OverloadedError(ServiceError):
    """As many requests or bytes as the service holds at once are here already."""

    code = "overloaded"
    status = 429


class QueueFullError(ServiceError):
    """As many images as may wait for the model are waiting already."""

    code = "queue-full"
    status = 429


class NotReadyError(ServiceError):
    """The service is starting, or its model does not work."""

    code = "not-ready"
    status = 503


class ShuttingDownError(ServiceError):
    """The service is stopping."""

    code = "shutting-down"
    status = 503


class DeadlineError(ServiceError):
    """The request took longer than the service allows."""

    code = "deadline"
    status = 504


class DecodeTimeoutError(ServiceError, ImageError):
    """Decoding one image took too long."""

    code = "image-timeout"
    status = 422


class DecodeCrashedError(ServiceError, ImageError):
    """One image crashed its decoder."""

    code = "image-crash"
    status = 422


class UrlRefusedError(ServiceError, ImageError):
    """The URL of an image leads to no public address, or is not https."""

    code = "image-url-refused"
    status = 422


class UrlFailedError(ServiceError, ImageError):
    """The URL of an image gave no image in time."""

    code = "image-url-failed"
    status = 422


@dataclass(frozen=True)
class Problem:
    """What an envelope says, apart from the request's id.

    Attributes:
        status: HTTP status.
        code: one of ``CODES``.
        message: safe to show to anybody.
        param: the field that is to blame.
        headers: to send along.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def quoted(value: object, limit: int = MAX_QUOTED) -> str:
    """What a client sent, in quotes, shortened, on one line."""
    text = value if isinstance(value, str) else _as_json(value)
    return terminal_safe(repr(text[:limit] + ("..." if len(text) > limit else "")))


def status_of(error: type[RobustZSError]) -> int:
    """The HTTP status for a kind of error; 500 for what the caller cannot mend."""
    own = getattr(error, "status", None)
    if isinstance(own, int) and not issubclass(error, errors.ServerError):
        return own
    return next((status for kind, status in _STATUS if issubclass(error, kind)), 500)


def problem_of(error: BaseException) -> Problem:
    """What may be said of an error; nothing of what went wrong inside."""
    if isinstance(error, HTTPException):
        return _of_starlette(error)
    status = status_of(type(error)) if isinstance(error, RobustZSError) else 500
    if status >= 500 and not isinstance(error, ServiceError):
        own = error.code if isinstance(error, RobustZSError) and status != 500 else "internal"
        code = own if own in CODES else "internal"
        return Problem(CODES[code][0], code, CODES[code][1], headers=_retry(status))
    if not isinstance(error, RobustZSError) or error.code == "internal":
        return Problem(500, "internal", CODES["internal"][1])
    return Problem(
        status,
        error.code,
        _shown(str(error)),
        _param(error),
        {**_retry(status), **getattr(error, "headers", {})},
    )


def to_envelope(error: BaseException, request_id: str) -> JSONResponse:
    """The response for an error.

    Args:
        error: ours, Starlette's, or any other, of which nothing is told.
        request_id: of the request.
    """
    problem = problem_of(error)
    headers = {"X-Request-ID": request_id, "Cache-Control": "no-store", **problem.headers}
    return JSONResponse(
        {"error": envelope_body(problem, request_id)}, problem.status, headers=headers
    )


def envelope_body(problem: Problem, request_id: str) -> dict[str, str | None]:
    """What stands under ``error``."""
    return {
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "request_id": request_id,
        "docs": f"{DOCS}#{problem.code}",
    }


def _of_starlette(error: HTTPException) -> Problem:
    codes = {404: "not-found", 405: "method-not-allowed"}
    code = codes.get(error.status_code, "internal" if error.status_code >= 500 else "usage")
    status, meaning = CODES[code]
    return Problem(status, code, meaning, headers=dict(error.headers or {}))


def _retry(status: int) -> dict[str, str]:
    return {"Retry-After": str(_RETRY_SECONDS)} if status in (429, 503) else {}


def _shown(message: str) -> str:
    text = terminal_safe(message.replace("\n", " "))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _param(error: RobustZSError) -> str | None:
    """The field to blame, shown like a message: a client may have named it."""
    param = getattr(error, "param", None)
    return None if param is None else _shown(str(param))


def _as_json(value: object) -> str:
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        return json.dumps(value)
    return type(value).__name__
