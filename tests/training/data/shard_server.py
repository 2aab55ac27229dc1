"""A real https server for shards, with faults on demand and a certificate of its own."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[["Handler", bytes, int], bool]
"""Gets the handler, the file and how often it was asked for; True: it has answered."""


class Handler(BaseHTTPRequestHandler):
    server: ShardServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server
        name = self.path.split("?", 1)[0].lstrip("/")
        with owner.lock:
            owner.requests.append((name, self.headers.get("Range")))
            count = sum(each == name for each, _ in owner.requests)
        path = owner.folder / name
        if not path.is_file():
            self.answer(404, b"no such file")
            return
        data = path.read_bytes()
        fault = owner.faults.get(name)
        if fault is not None and fault(self, data, count):
            return
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == owner.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[start:], {"Content-Range": place, "ETag": owner.tag})
            return
        self.answer(200, data, {"ETag": owner.tag})

    def answer(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        *,
        promised: int | None = None,
    ) -> None:
        """Answer, or promise more bytes than come."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data) if promised is None else promised))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True


class ShardServer(ThreadingHTTPServer):
    """Serves a folder; use as a context manager."""

    daemon_threads = True
    tag = '"version-1"'

    def __init__(self, folder: Path, *, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str | None]] = []
        self.faults: dict[str, Fault] = {}
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up, or does not trust us, is what some tests are about

    def __enter__(self) -> ShardServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key for 127.0.0.1, by openssl."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)),
            *("-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
