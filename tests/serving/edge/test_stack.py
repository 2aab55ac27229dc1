"""The middlewares in a real server: what a client on a socket sees."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from robustzs_serving.codes import CODES
from robustzs_serving.edge import errors_route, exception_handlers, middleware
from robustzs_serving.edge.keys import make_key
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


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def url(log: Log) -> Iterator[str]:
    with running(ServiceSettings(limits=LIMITS), log) as address:
        yield address


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


def test_a_request_passes_with_its_state(url: str) -> None:
    response = httpx.post(f"{url}/v1/echo", content=b"x" * 150_000)
    body = response.json()
    assert body["bytes"] == 150_000
    assert body["key"] == "anonymous"
    assert 1.0 < body["left"] <= 2.0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abcd-1234.E_f", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("short", False),
        ("with space", False),
        ("-abcdefgh", False),
        ("a;b;c;d;e;", False),
        ("\u00e9" * 8, False),
    ],
)
def test_only_harmless_ids_of_clients_are_kept(url: str, given: str, kept: bool) -> None:
    response = httpx.get(f"{url}/", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert (response.headers["x-request-id"] == given) is kept
    two = httpx.get(
        f"{url}/", headers=[("X-Request-ID", "abcdefgh1"), ("X-Request-ID", "abcdefgh2")]
    )
    assert len(two.headers.get_list("x-request-id")) == 1
    assert not two.headers["x-request-id"].startswith("abcdefgh")


def test_everything_has_the_envelope(url: str, log: Log) -> None:
    check(httpx.get(f"{url}/nothing"), "not-found")
    check(httpx.delete(f"{url}/v1/echo"), "method-not-allowed")
    assert "POST" in httpx.delete(f"{url}/v1/echo").headers["allow"]
    error = check(httpx.get(f"{url}/v1/fails?kind=ours"), "label")
    assert error["message"] == "no label \\x1b[31m\\u202e of yours (send one)"
    for kind in ("inside", "other"):
        error = check(httpx.get(f"{url}/v1/fails?kind={kind}"), "internal")
        assert error["message"] == CODES["internal"][1]
    check(httpx.get(f"{url}/{'x' * 600}"), "uri-too-long")
    check(httpx.get(f"{url}/?{'x' * 600}"), "uri-too-long")
    check(httpx.get(url, headers={"X-Long": "x" * 9_000}), "headers-too-large")
    assert {"label", "internal", "uri-too-long", "headers-too-large"} <= set(log.rejected)


def test_the_table_of_codes_is_served(url: str) -> None:
    rows = httpx.get(f"{url}/v1/errors").json()["codes"]
    assert {row["code"]: row["status"] for row in rows} == {c: s for c, (s, _) in CODES.items()}


def test_an_answer_that_breaks_off_is_cut_and_not_mended(url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/v1/broken")


def test_headers_for_browsers(url: str) -> None:
    for path in ("/", "/v1/echo", "/nothing"):
        headers = httpx.get(f"{url}{path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    page = httpx.get(url).headers["content-security-policy"]
    assert "script-src 'self'" in page
    assert "unsafe" not in page
    assert httpx.get(f"{url}/v1/echo").headers["cache-control"] == "no-store"


def test_a_body_over_the_limit_is_answered_declared_or_not(url: str) -> None:
    check(httpx.post(f"{url}/v1/echo", content=b"x" * 250_000), "body-too-large")

    def pieces() -> Iterator[bytes]:
        for _ in range(25):
            yield b"x" * 10_000

    check(httpx.post(f"{url}/v1/echo", content=pieces()), "body-too-large")


def test_a_declared_body_is_refused_before_it_is_sent(url: str) -> None:
    request = head("/v1/echo", "Content-Length: 999999999", "Expect: 100-continue")
    assert raw(url, request).startswith(b"HTTP/1.1 413 ")
    for number in ("9" * 30, "99999999999"):
        assert raw(url, head("/v1/echo", f"Content-Length: {number}")).startswith(b"HTTP/1.1 4")


def test_nobody_is_read_for_ever_after_an_answer(url: str) -> None:
    address = httpx.URL(url)
    sent = 0
    with socket.create_connection((address.host, address.port or 80), timeout=10) as peer:
        peer.sendall(head("/nothing", "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            while sent < 20_000_000:
                peer.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                sent += 10_000
    assert sent < 20_000_000


@pytest.mark.parametrize("drip", [0, 1_000])
def test_a_slow_body_is_told_in_time(url: str, drip: int) -> None:
    started = time.monotonic()
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as peer:
        peer.sendall(head("/v1/echo", "Content-Length: 100000"))
        stop = threading.Event()

        def send() -> None:
            with contextlib.suppress(ConnectionError):
                while drip and not stop.is_set():
                    peer.sendall(b"x" * drip)
                    time.sleep(0.1)  # 10 kB/s, half of the least rate

        sender = threading.Thread(target=send)
        sender.start()
        answer = b""
        while b'"slow-body"' not in answer and (piece := peer.recv(65_536)):
            answer += piece  # head and body may come apart
        stop.set()
        sender.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"slow-body"' in answer
    assert 0.4 < time.monotonic() - started < 2.5


def test_a_body_at_the_least_rate_is_taken(url: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(12):
            time.sleep(0.1)
            yield b"x" * 4_000  # 40 kB/s, twice the least rate

    response = httpx.post(f"{url}/v1/echo", content=pieces())
    assert response.json()["bytes"] == 48_000


def test_the_deadline_cancels_the_work(url: str, log: Log) -> None:
    log.cancelled.clear()
    started = time.monotonic()
    check(httpx.post(f"{url}/v1/slow"), "deadline")
    assert 1.8 < time.monotonic() - started < 4
    assert log.cancelled.is_set()


@pytest.mark.parametrize("body", [b"", b"x" * 1_000])
def test_a_client_that_leaves_cancels_the_work(url: str, log: Log, body: bytes) -> None:
    log.cancelled.clear()
    log.started.clear()
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80)) as peer:
        peer.sendall(head("/v1/slow", f"Content-Length: {len(body)}") + body)
        assert log.started.wait(5)
        assert not log.cancelled.is_set()
    assert log.cancelled.wait(1.0), "long before the deadline"


def test_work_after_the_answer_is_finished(url: str, log: Log) -> None:
    with httpx.Client(base_url=url) as client:
        assert client.post("/v1/later", content=b"x").status_code == 200
    assert log.finished.wait(3)


def test_concurrency_and_held_bytes_are_bounded_and_given_back(url: str, log: Log) -> None:
    def hold(_: int) -> int:
        return httpx.post(f"{url}/v1/slow?seconds=1.5", timeout=10).status_code

    while log.entered.acquire(blocking=False):  # by tests before this one
        pass
    threads = [threading.Thread(target=hold, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    assert all(log.entered.acquire(timeout=5) for _ in threads)
    error = check(httpx.post(f"{url}/v1/echo"), "overloaded")
    assert "3 requests" in error["message"]
    assert httpx.get(f"{url}/readyz").status_code == 200, "probes are answered"
    for thread in threads:
        thread.join()
    statuses: list[int] = []

    def send() -> None:
        response = httpx.post(f"{url}/v1/slow?seconds=0.8", content=b"x" * 150_000, timeout=10)
        statuses.append(response.status_code)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 429], "300 kB of 450 kB are held"
    assert httpx.post(f"{url}/v1/echo", content=b"x" * 190_000).status_code == 200


def test_hosts_and_origins(url: str) -> None:
    here = httpx.URL(url)
    for host in ("localhost", "app.localhost:80", "127.0.0.1", "[::1]:3000", "LOCALHOST."):
        assert httpx.get(url, headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "8.8.8.8"):
        check(httpx.get(url, headers={"Host": host}), "host-refused")
    own = f"http://{here.host}:{here.port}"
    for headers in (
        {},
        {"Origin": own},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.example"},
    ):
        assert httpx.post(f"{url}/v1/echo", headers=headers).status_code == 200
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": own + "1"},
    ):
        check(httpx.post(f"{url}/v1/echo", headers=headers), "origin-refused")
        assert httpx.get(f"{url}/v1/echo", headers=headers).status_code == 200


def test_other_hosts_are_answered_where_the_deployer_lists_them() -> None:
    with running(ServiceSettings(allowed_hosts=("api.example",))) as url:
        assert httpx.get(url, headers={"Host": "api.example:443"}).status_code == 200
        check(httpx.get(url), "host-refused")


def test_cors_is_for_the_listed_origins_alone() -> None:
    app = "https://app.example"
    ask = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "If-Match"}
    with running(ServiceSettings(cors_origins=(app,))) as url:
        asked = httpx.options(f"{url}/v1/echo", headers={"Origin": app, **ask})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == app
        assert "access-control-allow-credentials" not in asked.headers
        answered = httpx.post(f"{url}/v1/echo", headers={"Origin": app})
        assert answered.headers["access-control-allow-origin"] == app
        failed = httpx.get(f"{url}/v1/fails?kind=ours", headers={"Origin": app})
        check(failed, "label")
        assert failed.headers["access-control-allow-origin"] == app, "pages may read errors"
        other = {"Origin": "https://evil.example"}
        check(httpx.options(f"{url}/v1/echo", headers={**other, **ask}), "origin-refused")
        check(httpx.post(f"{url}/v1/echo", headers=other), "origin-refused")


def test_keys_are_asked_for_everywhere_but_in_public(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, _ = make_key(path, "ci")
    with running(ServiceSettings(keys_file=path)) as url:
        for public in ("/", "/readyz", "/v1/errors"):
            assert httpx.get(f"{url}{public}").status_code == 200
        good = [
            {"Authorization": f"Bearer {key}"},
            {"authorization": f"bearer  {key}"},
            {"X-API-Key": key},
            {"X-API-Key": key, "Authorization": f"Bearer {key}"},
        ]
        for headers in good:
            answer = httpx.post(f"{url}/v1/echo", headers=headers)
            assert answer.json()["key"] == "ci"
        bad: list[dict[str, str]] = [
            {},
            {"Authorization": key},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {key}"},
            {"X-API-Key": key[:-1]},
            {"X-API-Key": key, "Authorization": "Bearer other"},
            {"Cookie": f"key={key}"},
        ]
        for headers in bad:
            answer = httpx.post(f"{url}/v1/echo", headers=headers)
            check(answer, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert key not in answer.text
        for hidden in ("/v1/echo", "/nothing", "//readyz", "/readyz/", "/page/../v1/echo"):
            check(httpx.get(f"{url}{hidden}"), "unauthorized")
        check(httpx.post(f"{url}/v1/echo?key={key}"), "unauthorized")


def test_the_rate_is_of_each_key_and_wrong_keys_count_for_the_address(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first, second = make_key(path, "first")[0], make_key(path, "second")[0]
    limits = Limits(requests_per_second_per_key=0.5, burst_per_key=3)
    with running(ServiceSettings(keys_file=path, limits=limits)) as url:

        def ask(key: str) -> httpx.Response:
            return httpx.post(f"{url}/v1/echo", headers={"X-API-Key": key})

        assert [ask(first).status_code for _ in range(3)] == [200] * 3
        refused = ask(first)
        check(refused, "rate-limited")
        assert refused.headers["retry-after"] == "2"
        assert [ask("wrong").status_code for _ in range(4)] == [401, 401, 401, 429]
        assert ask(second).status_code == 200
        assert [httpx.get(f"{url}/readyz").status_code for _ in range(9)] == [200] * 9


def test_a_damaged_keys_file_keeps_the_service_from_starting(tmp_path: Path) -> None:
    from robustzs.errors import UsageError

    (tmp_path / "keys.json").write_text("{}x")
    with pytest.raises(UsageError, match="damaged"):
        middleware(ServiceSettings(keys_file=tmp_path / "keys.json"))


def test_what_the_answer_says_is_json_whatever_was_sent(url: str) -> None:
    for target in ("/%00%0d%0aX:y", "/\u202e", "/%ff%fe", "/..%2f..%2fetc"):
        response = httpx.get(url + target)
        check(response, "not-found")
        assert json.dumps(response.json()).isascii()
