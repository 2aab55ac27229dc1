"""What is refused before anybody looks at it: large headers, foreign hosts, foreign pages."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from robustzs_serving.errors import (
    HeadersTooLargeError,
    HostRefusedError,
    HttpMalformedError,
    OriginRefusedError,
    UriTooLongError,
    quoted,
)
from robustzs_serving.settings import ServiceSettings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class GateMiddleware:
    """Checks the head of a request.

    *Headers and path* have limits below those of the server, whose own refusals have no envelope.

    *Host*: a page may have its own name resolve to this machine (DNS rebinding) and so be taken
    for one of ours. Names that the deployer lists are answered; without a list, a service that is
    reached on the loopback address answers to local names only, and any other one to all.

    *Origin*: a page of another origin can send forms here without asking. Browsers say so in
    ``Sec-Fetch-Site``, or else in ``Origin``; what changes or costs something is then refused,
    unless the origin is allowed by CORS.

    Args:
        app: what answers.
        settings: of the service.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._limits = settings.limits
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._origins = settings.cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or raise."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check_size(scope)
            _check_framing(headers)
            self._check_host(scope, headers)
            if scope["method"] not in _SAFE_METHODS:
                _check_origin(headers, self._origins)
        await self._app(scope, receive, send)

    def _check_size(self, scope: Scope) -> None:
        target = len(scope.get("raw_path") or scope["path"].encode())
        target += len(scope.get("query_string", b""))
        if target > self._limits.max_target_bytes:
            raise UriTooLongError(
                f"path and query have {target} bytes, the limit is {self._limits.max_target_bytes}"
            )
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._limits.max_header_bytes:
            raise HeadersTooLargeError(
                f"the headers have {size} bytes, the limit is {self._limits.max_header_bytes}"
            )

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        given = headers.get("host")
        if given is None:
            return
        name = _without_port(given)
        if self._hosts:
            allowed = name in self._hosts or given.lower() in self._hosts
        else:
            server = scope.get("server") or ("",)
            allowed = not _is_loopback(server[0]) or _is_local_name(name)
        if not allowed:
            raise HostRefusedError(
                f"the service does not answer for the host {quoted(given)}",
                hint="the deployer lists hosts in ROBUSTZS_ALLOWED_HOSTS",
            )


def _check_framing(headers: Headers) -> None:
    """Refuse two lengths of one body: a proxy in front may go by the other (request smuggling)."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise HttpMalformedError("the request has Content-Length and Transfer-Encoding")


def _check_origin(headers: Headers, allowed: Sequence[str]) -> None:
    origin = headers.get("origin")
    if "*" in allowed or (origin is not None and origin in allowed):
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        refused = site not in ("same-origin", "none")
    else:
        # Without it, the page's own origin has the host that it is reached under.
        refused = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if refused:
        raise OriginRefusedError(
            f"a page of {quoted(origin or 'another origin')} may not send this",
            hint="the deployer lists origins in ROBUSTZS_CORS_ORIGINS",
        )


def _without_port(host: str) -> str:
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


@lru_cache(maxsize=1024)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a socket's path, or a name
        return False


def _is_local_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)
