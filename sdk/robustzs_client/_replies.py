"""One reply of a service, and the error in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from robustzs_client._errors import APIError, UnexpectedResponseError, error_class


@dataclass(frozen=True)
class Reply:
    """Status, headers (any case) and body, and the id that the request was sent with."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_id: str

    @property
    def request_id(self) -> str:
        """As the service calls the request."""
        return self.headers.get("x-request-id", self.sent_id)

    def json(self, *, error: bool = True) -> dict[str, Any]:
        """The body as an object.

        Args:
            error: Raise what the service says went wrong, instead.

        Raises:
            APIError: The status is not one of success.
            UnexpectedResponseError: The body is no JSON object.
        """
        if error and not 200 <= self.status < 300:
            raise self.error()
        payload = self._object()
        if payload is None:
            raise UnexpectedResponseError(
                f"the answer (HTTP {self.status}) is not that of a robustzs service",
                request_id=self.request_id,
            )
        return payload

    def error(self) -> APIError:
        """What the service says went wrong; or a proxy before it, which has no codes."""
        body = (self._object() or {}).get("error")
        body = body if isinstance(body, dict) else {}
        code = body.get("code")
        code = code if isinstance(code, str) else "unknown"
        param, docs = body.get("param"), body.get("docs")
        return error_class(self.status, code)(
            str(body.get("message") or f"the service answered HTTP {self.status}"),
            status=self.status,
            code=code,
            param=param if isinstance(param, str) else None,
            request_id=str(body.get("request_id") or self.request_id),
            docs=docs if isinstance(docs, str) else None,
            retry_after=_seconds(self.headers.get("retry-after")),
        )

    def _object(self) -> dict[str, Any] | None:
        try:
            payload = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return payload if isinstance(payload, dict) else None


def _seconds(text: str | None) -> float | None:
    """``Retry-After``: seconds, or a date."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None
