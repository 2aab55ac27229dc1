"""URLs of servers, and from Triton's errors to ours; no server is needed."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest

from robustzs.backends.triton import TritonBackend, TritonTarget
from robustzs.backends.triton.failures import failure
from robustzs.backends.triton.target import Address
from robustzs.bundle.store import Bundle
from robustzs.errors import (
    BackendError,
    BackendMismatchError,
    BackendOverloadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    InferenceError,
    UsageError,
)
from tests.factories import IMAGE_SIZE

GOOD = {
    "triton": "grpc://triton:8001",
    "triton:9001": "grpc://triton:9001",
    "grpcs://triton": "grpcs://triton:8001",
    "http://10.0.0.7": "http://10.0.0.7:8000",
    "https://triton.example/models/": "https://triton.example:8000/models",
    "grpc://[::1]:8001": "grpc://[::1]:8001",
}


@pytest.mark.parametrize("url", GOOD)
def test_urls_are_read(url: str) -> None:
    assert str(Address.parse(url)) == GOOD[url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "grpc://",
        "http://user:word@x",
        "grpc://x:99999",
        "grpc://x/path",
        "http://x?a",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="URL"):
        TritonTarget(urls=("triton", url) if url else ())


def test_certificates_need_tls_and_their_key(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text("x")
    for wrong in (
        {"urls": ("grpc://x",), "ca_file": pem},
        {"urls": ("grpcs://x",), "cert_file": pem},
        {"urls": ("grpcs://x",), "ca_file": tmp_path / "none.pem"},
        {"urls": ("grpcs://x",), "seconds": 0.0},
    ):
        with pytest.raises(UsageError):
            TritonTarget(**wrong)  # type: ignore[arg-type]


CASES: list[tuple[str | None, str, type[BackendError]]] = [
    ("StatusCode.UNAVAILABLE", "failed to connect to all addresses", BackendUnavailableError),
    (
        "StatusCode.UNAVAILABLE",
        "in-flight request: Exceeds maximum queue size",
        BackendOverloadedError,
    ),
    ("StatusCode.UNAVAILABLE", "Request timeout expired", BackendOverloadedError),
    ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", BackendTimeoutError),
    ("StatusCode.INVALID_ARGUMENT", "unexpected shape for input", BackendMismatchError),
    ("StatusCode.NOT_FOUND", "Request for unknown model", BackendUnavailableError),
    ("StatusCode.UNAUTHENTICATED", "This protocol is restricted", BackendUnavailableError),
    ("StatusCode.UNAVAILABLE", "This protocol is restricted", BackendUnavailableError),
    ("StatusCode.INTERNAL", "onnx runtime error", InferenceError),
    ("StatusCode.UNIMPLEMENTED", "unknown service inference", BackendUnavailableError),
    ("StatusCode.RESOURCE_EXHAUSTED", "rate limit", BackendOverloadedError),
    ("StatusCode.RESOURCE_EXHAUSTED", "Sent message larger than max (5 vs 4)", InferenceError),
    ("429", "Too Many Requests", BackendOverloadedError),
    ("400", "Request for unknown model: 'x' is not found", BackendUnavailableError),
    ("400", "invalid shape", BackendMismatchError),
    ("503", "Request timeout expired", BackendOverloadedError),
    ("500", "failed", InferenceError),
    (None, "failed to obtain inference response", InferenceError),
]


@pytest.mark.parametrize(("status", "message", "kind"), CASES)
def test_every_status_has_its_error(
    status: str | None, message: str, kind: type[BackendError]
) -> None:
    assert type(failure(status, message, where="there", what="tiny_image")) is kind


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_there(tiny_bundle: Path, protocol: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        backend = TritonBackend(
            Bundle.load(tiny_bundle),
            TritonTarget(urls=(f"{protocol}://127.0.0.1:{port}",), seconds=3.0),
        )
        started = time.monotonic()
        pixels = np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
        with pytest.raises(BackendUnavailableError, match=r"does not answer|in time"):
            backend.encode_image(pixels)
        assert time.monotonic() - started < 10.0
        (report,) = backend.report()
        assert isinstance(report.error, BackendUnavailableError)
        backend.close()
        with pytest.raises(InferenceError, match="closed"):
            backend.encode_image(pixels)
