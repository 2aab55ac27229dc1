"""What can go wrong between a caller and a service.

```
RobustZSClientError
├── ConnectionFailedError          no answer: refused, or cut off
│   └── TimedOutError              no answer in the time that the caller gave
├── UnexpectedResponseError        an answer that no robustzs service gives
└── APIError                       the service said no: .code, .status, .param, .request_id
    ├── InvalidRequestError        4xx: the request is wrong; sent again, it fails again
    │   ├── ImageRejectedError         the image itself is the reason
    │   ├── LabelsRejectedError        the labels, templates or texts are
    │   ├── HierarchyRejectedError     the tree, or the labels in it, are
    │   ├── AuthenticationError        no API key, or a wrong one
    │   ├── PermissionDeniedError      known, and not allowed
    │   ├── NotFoundError              no such model, stored thing or path
    │   ├── ConflictError              what is stored is not what you think it is
    │   └── TooLargeError              too many images, bytes or stored things
    └── ServerUnavailableError     429 and 5xx: trying again later may help
        ├── OverloadedError            429: too much at once; .retry_after
        └── DeadlineError              504: it took longer than the service allows
```
"""

from __future__ import annotations


class RobustZSClientError(Exception):
    """Base of all errors of this package.

    Args:
        message: What happened.
        request_id: Names the request in the service's logs, if it came that far.
        transient: Whether the client tries again by itself.
    """

    def __init__(
        self, message: str, *, request_id: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.transient = transient


class ConnectionFailedError(RobustZSClientError):
    """No answer came: refused, or cut off."""


class TimedOutError(ConnectionFailedError):
    """No answer came in the time that the caller gave."""


class UnexpectedResponseError(RobustZSClientError):
    """An answer came that no robustzs service gives: another server, or a proxy's page."""


class APIError(RobustZSClientError):
    """The service answered with an error.

    Args:
        message: What the service said.
        status: HTTP status.
        code: The service's stable error code, such as ``image-truncated``.
        param: The field that is to blame.
        request_id: Names the request in the service's logs.
        docs: Where the code is explained.
        retry_after: Seconds to wait before the next try, as the service asks.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        param: str | None = None,
        request_id: str | None = None,
        docs: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, transient=status in (429, 503))
        self.status = status
        self.code = code
        self.param = param
        self.docs = docs
        self.retry_after = retry_after

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.message} [{self.code}, HTTP {self.status}{request}]"


class InvalidRequestError(APIError):
    """The request is wrong; sending it again will not help."""


class ImageRejectedError(InvalidRequestError):
    """The image itself is the reason."""


class LabelsRejectedError(InvalidRequestError):
    """The labels, templates or texts are the reason."""


class HierarchyRejectedError(InvalidRequestError):
    """The tree, or the labels in it, are the reason."""


class AuthenticationError(InvalidRequestError):
    """No API key, or one that is not known."""


class PermissionDeniedError(InvalidRequestError):
    """The caller is known, and what is asked for is not allowed."""


class NotFoundError(InvalidRequestError):
    """There is no such model, stored thing or path."""


class ConflictError(InvalidRequestError):
    """What is stored is not what the caller thinks it is."""


class TooLargeError(InvalidRequestError):
    """Too many images, bytes or stored things."""


class ServerUnavailableError(APIError):
    """The service cannot answer now; trying again later may help."""


class OverloadedError(ServerUnavailableError):
    """Too much at once, of this caller or of all."""


class DeadlineError(ServerUnavailableError):
    """It took longer than the service allows."""


# A code's class is that of its longest beginning here; then comes the table of statuses.
_BY_CODE: dict[str, type[APIError]] = {
    "image": ImageRejectedError,
    "label": LabelsRejectedError,
    "template": LabelsRejectedError,
    "text": LabelsRejectedError,
    "label-unknown": HierarchyRejectedError,
    "label-ambiguous": HierarchyRejectedError,
    "label-mismatch": HierarchyRejectedError,
    "hierarchy": HierarchyRejectedError,
    "precondition": ConflictError,
    "stored-damaged": ConflictError,
}
_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: TooLargeError,
    429: OverloadedError,
    504: DeadlineError,
}


def error_class(status: int, code: str) -> type[APIError]:
    """The class of an error: by its code, and by its status where a newer service has new codes."""
    words = code.split("-")
    if status < 500:
        for length in range(len(words), 0, -1):
            if kind := _BY_CODE.get("-".join(words[:length])):
                return kind
    fallback = ServerUnavailableError if status >= 500 else InvalidRequestError
    return _BY_STATUS.get(status, fallback)
