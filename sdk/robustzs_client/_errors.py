"""What can go wrong between a caller and a service.

```
RobustZSClientError
├── ConnectionFailedError      no answer: refused, timed out, or cut off
└── APIError                   the service said no; .status, .code, .request_id
    ├── InvalidRequestError    4xx: the request is wrong, sending it again will not help
    │   └── ImageRejectedError     the image itself is the reason
    └── ServerUnavailableError 429 and 5xx: trying again later may help
```
"""

from __future__ import annotations


class RobustZSClientError(Exception):
    """Base of all errors of this package."""


class ConnectionFailedError(RobustZSClientError):
    """No answer came: refused, timed out, or cut off."""


class APIError(RobustZSClientError):
    """The service answered with an error.

    Args:
        message: What the service said.
        status: HTTP status.
        code: The service's stable error code, such as ``image-truncated``.
        request_id: Names the request in the service's logs.
    """

    def __init__(
        self, message: str, *, status: int, code: str, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} [{self.code}, HTTP {self.status}]"


class InvalidRequestError(APIError):
    """The request is wrong; sending it again will not help."""


class ImageRejectedError(InvalidRequestError):
    """The image itself is the reason."""


class ServerUnavailableError(APIError):
    """The service cannot answer now; trying again later may help."""


def api_error(status: int, code: str, message: str, request_id: str | None) -> APIError:
    """The exception for an error response."""
    kind: type[APIError] = InvalidRequestError
    if status == 429 or status >= 500:
        kind = ServerUnavailableError
    elif code == "image" or code.startswith("image-"):
        kind = ImageRejectedError
    return kind(message, status=status, code=code, request_id=request_id)
