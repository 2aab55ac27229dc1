"""The middlewares in a real server: what a client on a socket sees."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from robustzs_serving.codes import CODES

from tests.serving.edge.served import Log, check, head, raw


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


def test_what_the_answer_says_is_json_whatever_was_sent(url: str) -> None:
    for target in ("/%00%0d%0aX:y", "/\u202e", "/%ff%fe", "/..%2f..%2fetc"):
        response = httpx.get(url + target)
        check(response, "not-found")
        assert json.dumps(response.json()).isascii()
