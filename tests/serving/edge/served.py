"""The middlewares around a small application in a real server, and what to ask of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import uvicorn
from robustzs_serving.codes import CODES
from robustzs_serving.edge import errors_route, exception_handlers, middleware
from robustzs_serving.settings import Limits, ServiceSettings
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from robustzs.errors import BundleDigestError, LabelError

LIMITS = Limits(
    max_body_bytes=200_000,
    max_buffered_bytes=300_000,
    body_seconds=3,
    body_grace_seconds=0.5,
    min_body_rate=20_000,
    request_seconds=2,
    max_concurrency=3,
    max_header_bytes=8_000,
    max_target_bytes=500,
)


class Log:
    """What happened inside."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.finished = threading.Event()
        self.started = threading.Event()
        self.entered = threading.Semaphore(0)
        self.rejected: list[str] = []


def make_app(settings: ServiceSettings, log: Log) -> Starlette:
    async def echo(request: Request) -> Response:
        body = await request.body()
        state = request.state
        left = state.deadline - time.monotonic()
        return JSONResponse({"bytes": len(body), "key": state.key_id, "left": left})

    async def slow(request: Request) -> Response:
        await request.body()
        log.started.set()
        log.entered.release()
        try:
            await anyio.sleep(float(request.query_params.get("seconds", "30")))
        except anyio.get_cancelled_exc_class():
            log.cancelled.set()
            raise
        return JSONResponse({})

    async def fails(request: Request) -> Response:
        kind = request.query_params["kind"]
        if kind == "ours":
            raise LabelError("no label\n\x1b[31m\u202e of yours", hint="send one")
        if kind == "inside":
            raise BundleDigestError("/secret/path/model.onnx differs")
        raise ZeroDivisionError("/secret/path")

    async def broken_stream(request: Request) -> Response:
        async def parts() -> Any:
            yield b"first"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    async def later(request: Request) -> Response:
        async def work() -> None:
            await anyio.sleep(0.3)
            log.finished.set()

        return JSONResponse({}, background=BackgroundTask(work))

    async def page(request: Request) -> Response:
        return HTMLResponse("<p>hello</p>")

    async def ready(request: Request) -> Response:
        return JSONResponse({"status": "ready"})

    return Starlette(
        routes=[
            Route("/v1/echo", echo, methods=["POST", "GET"]),
            Route("/v1/slow", slow, methods=["POST"]),
            Route("/v1/fails", fails),
            Route("/v1/broken", broken_stream),
            Route("/v1/later", later, methods=["POST"]),
            Route("/readyz", ready),
            Route("/", page),
            errors_route(),
        ],
        middleware=middleware(settings, on_reject=log.rejected.append),
        exception_handlers=dict(exception_handlers()),
    )


@contextlib.contextmanager
def running(settings: ServiceSettings, log: Log | None = None) -> Iterator[str]:
    app = make_app(settings, log or Log())
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def check(response: httpx.Response, code: str) -> dict[str, Any]:
    """The envelope, which must be whole and have the status of its code."""
    assert response.status_code == CODES[code][0], response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"code", "message", "param", "request_id", "docs"}
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    assert error["docs"] == f"/v1/errors#{code}"
    assert "secret" not in response.text
    assert "Error" not in error["message"]
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error


def raw(url: str, data: bytes, *, seconds: float = 10.0) -> bytes:
    """Everything that comes back for these bytes, until the server closes."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=seconds) as peer:
        peer.sendall(data)
        found = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := peer.recv(65_536):
                found += piece
        return found


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
