"""What both clients share of a call under way: settings, requests, tries, and what httpx raises."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx

from robustzs_client import _models
from robustzs_client._calls import Call
from robustzs_client._errors import (
    ConnectionFailedError,
    RobustZSClientError,
    TimedOutError,
    UnexpectedResponseError,
)
from robustzs_client._replies import Reply
from robustzs_client._settings import Batching, Retries, Timeouts

if TYPE_CHECKING:
    from robustzs_client._retry import Policy

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client was made with."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: Retries = field(default_factory=Retries)
    batching: Batching = field(default_factory=Batching)
    verify: ssl.SSLContext | bool = True

    def http_arguments(self) -> dict[str, Any]:
        """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``.

        Raises:
            ValueError: The address is not one of HTTP.
        """
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.base_url!r} is no address: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                f"{self.base_url!r} is no address of a service: such as http://127.0.0.1:3000"
            )
        headers = {"User-Agent": _user_agent(), "Accept": "application/json", **self.headers}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {"base_url": url, "headers": headers, "verify": self.verify}


class Trial(Generic[T]):
    """One call with all its tries: one id in the service's log, one bound on its time.

    Args:
        call: What is asked.
        settings: Of the client.
    """

    def __init__(self, call: Call[T], settings: Settings) -> None:
        self._call = call
        self._settings = settings
        self._request_id = settings.headers.get("X-Request-ID") or uuid.uuid4().hex
        total = settings.timeouts.total
        self._end = None if total is None else time.monotonic() + total

    def policy(self) -> Policy:
        """When to try again."""
        # tenacity brings asyncio and what it finds beside it: not before the first call.
        from robustzs_client._retry import retry_policy

        retries = Retries(attempts=1) if self._call.once else self._settings.retries
        what = f"{self._call.method} {self._call.path}"
        return retry_policy(retries, self._settings.timeouts.total, what)

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request of one try, with the time that is left for it."""
        timeouts, left = self._settings.timeouts, self.left()
        bounds = {
            name: min((s for s in (getattr(timeouts, name), left) if s is not None), default=None)
            for name in ("connect", "read", "write")
        }
        return http.build_request(
            self._call.method,
            self._call.path,
            headers={**self._call.headers, "X-Request-ID": self._request_id},
            timeout=httpx.Timeout(**bounds, pool=left),
            **self._call.body,
        )

    def check_time(self) -> None:
        """Raise when the call has taken its time.

        Raises:
            TimedOutError: It has.
        """
        left = self.left()
        if left is not None and left <= 0:
            raise self.timed_out()

    def timed_out(self) -> TimedOutError:
        """The error of a call that took its time."""
        return TimedOutError(
            f"no answer from {self._settings.base_url} in {self._settings.timeouts.total:g} s",
            request_id=self._request_id,
        )

    def result(self, response: httpx.Response, body: bytes) -> T:
        """What the call asked for.

        Raises:
            RobustZSClientError: The service refused, or the answer has another form.
        """
        return self._call.read(
            Reply(response.status_code, response.headers, body, self._request_id)
        )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raise httpx's errors as ours."""
        try:
            yield
        except httpx.HTTPError as error:
            raise self._translated(error) from error

    def left(self) -> float | None:
        """Seconds that the call may still take; ``None`` for no bound."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def _translated(self, error: httpx.HTTPError) -> RobustZSClientError:
        where, what = self._settings.base_url, type(error).__name__
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return TimedOutError(
                f"no answer from {where} in time: {what}", request_id=self._request_id
            )
        if isinstance(error, (httpx.DecodingError, httpx.TooManyRedirects)):
            return UnexpectedResponseError(
                f"{where} gives an answer that cannot be read: {what}", request_id=self._request_id
            )
        broken = (httpx.ConnectTimeout, httpx.NetworkError, httpx.RemoteProtocolError)
        return ConnectionFailedError(
            f"no answer from {where}: {what}",
            request_id=self._request_id,
            transient=isinstance(error, broken),
        )


@cache
def prepare_models() -> None:
    """Build the validators once, before several threads need them."""
    for model in (
        _models.Answer,
        _models.AnswerError,
        _models.Embedding,
        _models.ErrorBody,
        _models.ModelDetails,
        _models.ModelRef,
        _models.Readiness,
        _models.StoredDocument,
        _models.StoredInfo,
    ):
        model.model_rebuild()


@cache
def _user_agent() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"robustzs-client/{version('robustzs')}"
    except PackageNotFoundError:  # copied somewhere without its distribution
        return "robustzs-client"
