"""Who asks, and whether they may ask this often."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from robustzs_serving.edge.keys import KeyRing
from robustzs_serving.edge.rate import RateLimiter, address_name, retry_after
from robustzs_serving.errors import RateLimitedError, UnauthorizedError
from robustzs_serving.settings import ServiceSettings

ANONYMOUS = "anonymous"

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Answered whatever the load, without a key: for orchestrators and Prometheus."""

_PUBLIC = frozenset({"/", "/openapi.json", "/v1/errors", *PROBES})
_PUBLIC_FOLDERS = ("/page/",)
_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE | re.ASCII)


class AccessMiddleware:
    """Sets ``request.state.key_id`` and ``caller``, and keeps every caller to its rate.

    A caller is a key's owner, or an address where there are no keys.

    Without a keys file everybody is ``anonymous``, and rates are kept by address. With one, every
    path needs a key but the page, its files, the OpenAPI file, the table of errors and the probes.
    Failed attempts count for the address that makes them.

    Args:
        app: what answers.
        settings: of the service.
        ring: the keys; ``None`` where none are asked for.
    """

    def __init__(
        self, app: ASGIApp, settings: ServiceSettings, ring: KeyRing | None = None
    ) -> None:
        limits = settings.limits
        self._app = app
        self._ring = ring
        self._rates = RateLimiter(
            limits.requests_per_second_per_key, limits.burst_per_key, limits.max_rate_entries
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or raise."""
        if scope["type"] == "http":
            path = local_path(scope)
            state = scope.setdefault("state", {})
            state["key_id"] = ANONYMOUS
            if path not in PROBES:
                self._admit(scope, path, state)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, path: str, state: dict[str, str]) -> None:
        address = address_name((scope.get("client") or ("unknown",))[0])
        if self._ring is None or path in _PUBLIC or path.startswith(_PUBLIC_FOLDERS):
            self._count(address, state)
            return
        found = self._ring.find(_presented(Headers(scope=scope)))
        if found is None:
            self._count(address, state)
            raise UnauthorizedError(
                "the request has no valid API key",
                hint="send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`",
                headers={"WWW-Authenticate": 'Bearer realm="robustzs"'},
            )
        state["key_id"] = found
        self._count(f"key:{found}", state)

    def _count(self, name: str, state: dict[str, str]) -> None:
        state["caller"] = name
        wait = self._rates.take(name)
        if wait > 0:
            raise RateLimitedError(
                "more requests per second than you may send",
                hint=f"wait {retry_after(wait)} s, or send several images in one request",
                headers={"Retry-After": retry_after(wait)},
            )


def local_path(scope: Scope) -> str:
    """The path without the prefix that the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :].startswith("/"):
        return path[len(root) :]
    return path


def _presented(headers: Headers) -> str:
    """The key that is sent; empty where there is none, or more than one."""
    given = [*headers.getlist("x-api-key")]
    for value in headers.getlist("authorization"):
        found = _BEARER.fullmatch(value)
        given.append(found[1] if found else "")
    return given[0] if len(set(given)) == 1 else ""
