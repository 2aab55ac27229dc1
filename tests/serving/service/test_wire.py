"""What comes before there is a request, byte by byte over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from robustzs_serving import wire

from tests.serving.conftest import Service

ENVELOPE = {"code", "message", "param", "request_id", "docs"}


@pytest.fixture
def connection(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as one:
        yield one


def _read(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def _refusal(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == ENVELOPE
    assert b"connection: close" in head.lower()
    return int(head.split(b" ", 2)[1]), error


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "http-malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "http-malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "http-malformed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "http-malformed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "http-malformed"),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http-malformed"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            "http-malformed",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "http-malformed",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300_000, 431, "headers-too-large"),
        (b"GET /" + b"a" * 300_000, 431, "headers-too-large"),
    ],
)
def test_what_is_no_request_gets_the_envelope(
    connection: socket.socket, sent: bytes, status: int, code: str
) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(sent)
    got, error = _refusal(_read(connection))
    assert (got, error["code"]) == (status, code)


def test_headers_that_drip_are_cut_off(connection: socket.socket) -> None:
    """More bytes give no more time."""
    began = time.monotonic()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    connection.settimeout(0.5)
    answer = b""
    while not answer:
        assert time.monotonic() - began < 25
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            connection.sendall(b"a")
    status, error = _refusal(answer)
    assert (status, error["code"]) == (408, "slow-headers")
    assert 1.5 < time.monotonic() - began < 15


def test_a_connection_that_says_nothing_is_closed_in_silence(connection: socket.socket) -> None:
    assert _read(connection) == b""


def test_an_idle_connection_is_kept_for_a_while_and_serves_again(
    connection: socket.socket,
) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(3):
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        time.sleep(0.2)
    began = time.monotonic()
    assert _read(connection) == b""
    assert time.monotonic() - began < 20


def test_an_upgrade_to_another_protocol_is_not_taken_up(connection: socket.socket) -> None:
    """uvicorn would answer WebSockets itself, past limits, keys, logs and the envelope."""
    head = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    connection.sendall(b"GET /livez HTTP/1.1\r\n" + head)
    answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id" in answer


def test_two_requests_in_one_packet_are_both_answered(connection: socket.socket) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    connection.sendall(request + last)
    assert _read(connection).count(b"HTTP/1.1 200 ") == 2


def test_refusals_are_counted_and_the_next_request_is_served(
    service: Service, connection: socket.socket
) -> None:
    before = service.metric("robustzs_rejects_total", reason="http-malformed")
    connection.sendall(b"NONSENSE\r\n\r\n")
    _read(connection)
    assert service.metric("robustzs_rejects_total", reason="http-malformed") == before + 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_is_one_write(method: bytes) -> None:
    spoken = wire._Connection(h11.SERVER)
    spoken.receive_data(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(spoken.next_event(), h11.Request)
    assert spoken.next_event() is not h11.PAUSED
    body = b"all right" if method == b"GET" else b""
    head = h11.Response(status_code=200, headers=[("Content-Length", "9")], reason=b"OK")
    written = [spoken.send(event) for event in (head, h11.Data(data=body), h11.EndOfMessage())]
    assert [bool(data) for data in written] == [False, True, False]
    assert written[1] == b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + body
    assert spoken.send(h11.ConnectionClosed()) is None
