"""Bodies of requests, and what reading them gives."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import pytest
from robustzs_serving.errors import problem_of
from robustzs_serving.ingest import ClassifyCall, read_classify
from robustzs_serving.settings import ServiceSettings
from starlette.requests import Request
from starlette.types import Message

from robustzs.errors import RobustZSError

BOUNDARY = "b0undary"
TREE = {
    "format": "robustzs-hierarchy",
    "schema_version": 1,
    "name": "pets",
    "nodes": [
        {"id": "animal"},
        {"id": "cat", "parent": "animal"},
        {"id": "dog", "parent": "animal"},
    ],
}
Part = tuple[str, bytes | str]


def part(name: str, content: bytes | str, *extra: str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    head = "\r\n".join([f'Content-Disposition: form-data; name="{name}"', *extra])
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def form(*parts: Part) -> bytes:
    return b"".join(part(*each) for each in parts) + f"--{BOUNDARY}--\r\n".encode()


def request_of(body: bytes, content_type: str | None, *, size: int = 1000) -> Request:
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]
    ]
    messages.append({"type": "http.request", "body": pieces[-1], "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [] if content_type is None else [(b"content-type", content_type.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    return Request(scope, receive)


def read(
    body: bytes,
    content_type: str | None = f"multipart/form-data; boundary={BOUNDARY}",
    settings: ServiceSettings | None = None,
    *,
    size: int = 1000,
) -> ClassifyCall:
    request = request_of(body, content_type, size=size)
    return anyio.run(read_classify, request, settings or ServiceSettings())


def read_json(document: Any, settings: ServiceSettings | None = None) -> ClassifyCall:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read(body, "application/json", settings)


def code_of(body: bytes | Any, **more: Any) -> tuple[int, str, str | None]:
    reader = read if isinstance(body, bytes) and "json" not in more else read_json
    more.pop("json", None)
    with pytest.raises(RobustZSError) as caught:
        reader(body, **more)
    problem = problem_of(caught.value)
    return problem.status, problem.code, problem.param


def status_of_reading(body: bytes, *arguments: Any, **more: Any) -> int:
    """200, or the status of a typed error whose message is one printable line."""
    try:
        read(body, *arguments, **more)
    except RobustZSError as error:
        problem = problem_of(error)
        return problem.status if problem.message.isprintable() else 599
    return 200


def b64(data: bytes = b"picture") -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


IMAGE: Part = ("image", b"picture")
