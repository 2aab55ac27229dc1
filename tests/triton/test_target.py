"""URLs of servers, and from Triton's errors to ours; no server is needed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from robustzs.backends.triton import TritonBackend, TritonTarget
from robustzs.backends.triton.failures import failure
from robustzs.backends.triton.target import Address
from robustzs.bundle.store import Bundle
from robustzs.cli.main import main
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
        "grpc://x:0",
        "grpc://@x",
        "grpc://x/path",
        "http://x?a",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="URL"):
        TritonTarget(urls=("triton", url) if url else ())


@pytest.mark.parametrize("url", ["http://user:word@x", "grpc://word@x", "user:word@x:8001"])
def test_a_password_in_a_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="URL") as caught:
        TritonTarget(urls=(url,))
    assert "word" not in str(caught.value)


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
    ("302", "client received an empty response", BackendUnavailableError),
    (None, "failed to obtain inference response", InferenceError),
]


@pytest.mark.parametrize(("status", "message", "kind"), CASES)
def test_every_status_has_its_error(
    status: str | None, message: str, kind: type[BackendError]
) -> None:
    assert type(failure(status, message, where="there", what="tiny_image")) is kind


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--url", "grpc://x"), "--backend triton"),
        (("--tls-ca", "x.pem"), "--backend triton"),
        (("--backend", "triton"), "give a URL"),
        (("--backend", "triton", "--url", "grpc://x", "--threads", "2"), "leave them out"),
    ],
)
@pytest.mark.parametrize("command", [("embed", "--text", "x"), ("classify", "x.png")])
def test_options_that_do_not_fit_are_told(
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    options: tuple[str, ...],
    hint: str,
) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--model", str(tiny_bundle), *options])
    assert done.value.code == 2
    assert hint in " ".join(capsys.readouterr().err.split())


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


def refusing() -> str:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_looking_at_servers_over_http_again_and_again_costs_no_descriptors(
    tiny_bundle: Path,
) -> None:
    """gevent keeps four of them, and a thread, for each thread that ever asked."""
    own = psutil.Process()
    before = own.num_fds(), threading.active_count()
    urls = (f"http://{refusing()}", f"http://{refusing()}")
    backend = TritonBackend(Bundle.load(tiny_bundle), TritonTarget(urls=urls, seconds=2.0))
    backend.report()
    seen = own.num_fds()
    for _ in range(10):
        backend.report()
        asking = threading.Thread(target=backend.report)
        asking.start()
        asking.join()
    assert own.num_fds() <= seen + 4  # a thread more, should two calls have met
    backend.close()
    end = time.monotonic() + 10.0
    while (own.num_fds(), threading.active_count()) > before:
        assert time.monotonic() < end, "what was closed keeps descriptors or threads"
        time.sleep(0.05)


@contextmanager
def answering(answer: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that says the same whatever it is asked, a byte at a time if it pauses."""
    listening = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.recv(65536)
                for byte in answer if pause else ():
                    client.sendall(bytes([byte]))
                    time.sleep(pause)
                if not pause:
                    client.sendall(answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def says(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


NO_TRITON = {
    "a page": says(b"<html>hello</html>"),
    "a number": says(b"5"),
    "nothing": says(b""),
    "null": says(b"null"),
    "no parameters": says(b'{"name": "tiny_image", "parameters": null}'),
    "a word for a parameter": says(b'{"parameters": {"robustzs_digest": "x"}}'),
    "no text": says(b"\xff\xfe"),
    "a broken proxy": says(b"oops", "500 Internal Server Error"),
    "another place": says(b"", "302 Found"),
    "no HTTP": b"\0\1\2\r\n\r\n",
}


@pytest.mark.parametrize("case", NO_TRITON)
def test_what_is_no_triton_is_unavailable(tiny_bundle: Path, case: str) -> None:
    with answering(NO_TRITON[case]) as url:
        backend = TritonBackend(Bundle.load(tiny_bundle), TritonTarget(urls=(url,), seconds=5.0))
        with pytest.raises(BackendUnavailableError, match=r"does not (speak|answer)") as caught:
            backend.encode_image(np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))
        assert "load the classifier again" not in str(caught.value)
        (report,) = backend.report()
        assert isinstance(report.error, BackendUnavailableError)
        backend.close()


def test_an_answer_that_trickles_is_late_over_http_too(tiny_bundle: Path) -> None:
    """Each byte comes in time, and the whole does not."""
    with answering(says(b" " * 100), pause=0.1) as url:
        backend = TritonBackend(Bundle.load(tiny_bundle), TritonTarget(urls=(url,), seconds=1.0))
        started = time.monotonic()
        with pytest.raises(BackendTimeoutError):
            backend.encode_image(np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))
        assert time.monotonic() - started < 4.0
        backend.close()
