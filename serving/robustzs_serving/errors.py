"""One error envelope for everything: ``{"error": {"code", "message", "request_id"}}``."""

from __future__ import annotations

from starlette.responses import JSONResponse

from robustzs import errors
from robustzs.errors import RobustZSError

# The first class that matches decides.
_STATUS: tuple[tuple[type[RobustZSError], int], ...] = (
    (errors.ImageTooLargeError, 413),
    (errors.ImageFormatError, 415),
    (errors.ImageError, 422),
    (errors.ModelNotFoundError, 404),
    (errors.UsageError, 400),
    (errors.LabelError, 422),
    (errors.HierarchyError, 422),
    (errors.CalibrationError, 422),
)


def status_of(error: type[RobustZSError]) -> int:
    """The HTTP status for a kind of error; 500 for what the caller cannot mend."""
    return next((status for kind, status in _STATUS if issubclass(error, kind)), 500)


def envelope(status: int, code: str, message: str, request_id: str) -> JSONResponse:
    """An error response."""
    body = {"error": {"code": code, "message": message, "request_id": request_id}}
    headers = {"X-Request-ID": request_id}
    if status in (429, 503):
        headers["Retry-After"] = "1"
    return JSONResponse(body, status_code=status, headers=headers)


def error_response(error: RobustZSError, request_id: str) -> JSONResponse:
    """The response for one of our errors; what went wrong inside stays inside."""
    status = status_of(type(error))
    if status >= 500:
        return envelope(status, error.code, "the service failed; its log says why", request_id)
    return envelope(status, error.code, str(error), request_id)
