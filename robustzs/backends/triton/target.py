"""Where the Triton servers are, and how to speak to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from robustzs.errors import UsageError

Protocol = Literal["grpc", "http"]

_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
_PORTS = {"grpc": 8001, "http": 8000}
_MAX_SECONDS = 3600.0
_EXAMPLE = "grpc://127.0.0.1:8001, grpcs://HOST:PORT, http://HOST:PORT or https://HOST:PORT"


@dataclass(frozen=True)
class Address:
    """One server.

    Attributes:
        protocol: gRPC or HTTP.
        tls: whether the connection is encrypted.
        place: ``host:port``, as tritonclient takes it; over HTTP a base path may follow.
    """

    protocol: Protocol
    tls: bool
    place: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``grpc://host:port`` and the like; without a scheme it is gRPC.

        Raises:
            UsageError: not such a URL.
        """
        text = url.strip()
        if "://" not in text:
            text = f"grpc://{text}"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _no_url(url) from error
        if parts.scheme not in _SCHEMES or not host or port == 0 or "@" in parts.netloc:
            raise _no_url(url)
        protocol, tls = _SCHEMES[parts.scheme]
        path = parts.path.rstrip("/")
        if parts.query or parts.fragment or (path and protocol == "grpc"):
            raise _no_url(url)
        shown = f"[{host}]" if ":" in host else host
        return cls(protocol, tls, f"{shown}:{port or _PORTS[protocol]}{path}")

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.tls else ''}://{self.place}"


@dataclass(frozen=True, kw_only=True)
class TritonTarget:
    """Servers, each with the same models, in the order in which they are asked.

    Args:
        urls: ``grpc://host:port``, ``grpcs``, ``http`` or ``https``; the first that works is used.
        seconds: that one server may take for one inference, > 0, <= 3600.
        ca_file: certificates (PEM) that the servers' are checked with; else the system's.
        cert_file: certificate (PEM) that this client shows; needs ``key_file``.
        key_file: its private key (PEM).

    Raises:
        UsageError: no URL, or one of the values is out of range or unreadable.
    """

    urls: tuple[str, ...]
    seconds: float = 10.0
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        addresses = self.addresses
        if not addresses:
            raise UsageError("no Triton server was named", hint=f"give a URL: {_EXAMPLE}")
        if not 0.0 < self.seconds <= _MAX_SECONDS:  # written so that NaN fails, too
            raise UsageError(
                f"{self.seconds!r} seconds for an inference",
                hint=f"above 0, at most {_MAX_SECONDS:g}",
            )
        files = [path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]
        for path in files:
            if not path.is_file():
                raise UsageError(f"{path} is not a file", hint="name a PEM file")
        if (self.cert_file is None) != (self.key_file is None):
            raise UsageError("a client's certificate and its key go together", hint="name both")
        if files and not all(address.tls for address in addresses):
            raise UsageError(
                "certificates were named, and a URL that does not use them",
                hint="use grpcs:// or https:// for all servers",
            )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The servers, none twice."""
        return tuple(dict.fromkeys(Address.parse(url) for url in self.urls if url.strip()))


def _no_url(url: str) -> UsageError:
    shown = re.sub(r"[^/]*@", "...@", url)[:200]  # passwords are not for logs
    return UsageError(f"{shown!r} is no Triton server's URL", hint=f"use {_EXAMPLE}")
