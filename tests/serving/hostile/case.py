"""One hostile input and what must come of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.factories import picture_bytes

CLASSIFY = "/v1/classify"
BOUNDARY = "b0undary"
Content = bytes | Callable[[], bytes | Iterator[bytes]]


@dataclass(frozen=True)
class Case:
    """A request, and the status and code that answer it.

    ``code`` is ``None`` where the input is odd and yet right: then the status is 200 and the
    answer names the label that the picture shows, or nothing is checked of it.
    """

    name: str
    status: int
    code: str | None
    content: Content = b""
    method: str = "POST"
    path: str = CLASSIFY
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None  # sent as it is, over a socket, in place of all of the above
    param: str | None = field(default=None)

    def body(self) -> bytes | Iterator[bytes]:
        return self.content() if callable(self.content) else self.content


@cache
def picture(colour: str = "jeep") -> bytes:
    return picture_bytes(colour)


@cache
def b64(colour: str = "jeep") -> str:
    return base64.b64encode(picture(colour)).decode()


JSON = (("content-type", "application/json"),)
FORM = (("content-type", f"multipart/form-data; boundary={BOUNDARY}"),)


def asks(
    name: str, status: int, code: str | None, /, param: str | None = None, **fields: Any
) -> Case:
    """A JSON request that is right but for these fields; ``...`` leaves one out."""
    body: dict[str, Any] = {"image": {"b64": b64()}, "labels": ["jeep", "tabby"], **fields}
    kept = {key: value for key, value in body.items() if value is not ...}
    return sends(name, status, code, kept, param=param)


def sends(
    name: str,
    status: int,
    code: str | None,
    document: Any,
    *,
    path: str = CLASSIFY,
    method: str = "POST",
    param: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Case:
    """Any JSON document, anywhere; bytes and callables are sent as they are."""
    as_it_is = isinstance(document, bytes) or callable(document)
    content = document if as_it_is else lambda: json.dumps(document).encode()
    return Case(name, status, code, content, method, path, (*JSON, *headers), param=param)


def form(
    name: str, status: int, code: str | None, body: Content, content_type: str | None = None
) -> Case:
    """A multipart body, byte by byte."""
    header = FORM if content_type is None else (("content-type", content_type),)
    return Case(name, status, code, body, headers=header)


def part(name: str, value: bytes | str, extra: str = "", filename: str = "") -> bytes:
    """One part of a form, from its boundary to the end of its line."""
    value = value.encode() if isinstance(value, str) else value
    file = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{extra}\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def upload(name: str, status: int, code: str | None, make: Callable[[], bytes]) -> Case:
    """A picture of this content, in a form that is right."""
    return form(
        name, status, code, lambda: part("image", make()) + part("labels", "jeep,tabby") + END
    )
