"""A real HTTP server on this machine that speaks OpenAI's chat protocol, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server sends; ``cut`` bytes are missing at its end."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut: int = 0


def said(text: str, prompt_tokens: int = 10, completion_tokens: int = 5, **extra: Any) -> Answer:
    """An answer as a good server gives it."""
    document = {
        "choices": [{"message": {"role": "assistant", "content": text}, **extra}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }
    return Answer(body=json.dumps(document).encode())


def failed(status: int, message: str = "no", **headers: str) -> Answer:
    """An error as OpenAI writes it."""
    body = json.dumps({"error": {"message": message}}).encode()
    return Answer(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


@dataclass
class Server:
    """A running server.

    Attributes:
        url: For ``--url``.
        requests: Bodies in the order of their arrival.
        headers: Their headers.
    """

    url: str
    requests: list[dict[str, Any]]
    headers: list[dict[str, str]]
    paths: list[str]


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Answer]) -> Iterator[Server]:
    """Serve; ``answer`` gets the request and how many came before it."""
    lock = threading.Lock()
    server = Server("", [], [], [])
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
            given = answer(body, number)
            if given.wait:
                stopped.wait(given.wait)
            try:
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body[: len(given.body) - given.cut])
            except OSError:
                pass  # the client left
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        stopped.set()
        http.shutdown()
        thread.join()
        http.server_close()
