"""A server that answers as a test says, over real sockets, and both clients as one."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from robustzs_client import AsyncClient, Client

DIGEST = "0" * 64


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def parts(self) -> list[tuple[str, bytes]]:
        """Names and contents of a form's parts."""
        boundary = b"--" + self.headers["content-type"].split("boundary=")[1].encode()
        found = []
        for part in self.body.split(boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            name = re.search(rb'name="([^"]*)"', head)
            assert name is not None
            found.append((name[1].decode(), content.removesuffix(b"\r\n")))
        return found

    @property
    def images(self) -> list[bytes]:
        return [content for name, content in self.parts if name == "image"]

    @property
    def fields(self) -> dict[str, str]:
        return {name: content.decode() for name, content in self.parts if name != "image"}


@dataclass
class Says:
    """One answer; `cut` breaks the connection in place of it, or after its head."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cut: str = ""


Answers = Callable[[Asked], Says]


class Scripted:
    """Answers by a function; remembers what was asked, and how many asked at once."""

    def __init__(self) -> None:
        self.answer: Answers = lambda asked: Says(200, {})
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = _any

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def says(self, *answers: Says) -> None:
        """These answers, one after the other; the last one for ever."""
        left = list(answers)
        self.answer = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, handler.path, headers, body, time.monotonic())
        with self._lock:
            self.asked.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            says = self.answer(asked)
        try:
            time.sleep(says.seconds)
            self._reply(handler, says)
        finally:
            with self._lock:
                self._now -= 1

    @staticmethod
    def _reply(handler: BaseHTTPRequestHandler, says: Says) -> None:
        if says.cut == "before":
            handler.close_connection = True
            handler.connection.close()
            return
        data = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
        handler.send_response(says.status)
        for name, value in {"Content-Length": str(len(data)), **says.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if says.cut == "within":
            handler.wfile.write(data[: len(data) // 2])
            handler.close_connection = True
            return
        if says.status != 204:
            handler.wfile.write(data)


class Either:
    """One of the two clients, called the same way; streams come as lists."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, url: str, method: str, *args: Any, made: Any = None, **named: Any) -> Any:
        made = made or {}
        if self.kind == "sync":
            with Client(url, **made) as client:
                result = getattr(client, method)(*args, **named)
                return [*result] if isinstance(result, Iterator) else result
        return asyncio.run(self._await(url, method, args, made, named))

    @staticmethod
    async def _await(url: str, method: str, args: Any, made: Any, named: Any) -> Any:
        async with AsyncClient(url, **made) as client:
            result = getattr(client, method)(*args, **named)
            if inspect.isasyncgen(result):
                return [row async for row in result]
            return await result


def envelope(status: int, code: str, **headers: str) -> Says:
    error = {"code": code, "message": f"it is {code}", "param": "theta", "request_id": "abcd1234"}
    error["docs"] = f"/v1/errors#{code}"
    return Says(status, {"error": error}, headers)


def answer(name: str) -> dict[str, Any]:
    """An Answer whose best leaf has a name."""
    node = {"id": name, "name": name, "synset": None, "depth": 1, "probability": 0.75}
    return {
        "image": "0",
        "model": {"name": "m", "digest": DIGEST},
        "hierarchy": {"name": "t", "digest": DIGEST, "n_leaves": 2, "n_nodes": 3},
        "strategy": "marginal",
        "stop": {"theta": 0.5, "source": "user", "rule": "greedy", "reason": "leaf"},
        "prediction": {**node, "is_leaf": True, "n_leaf_descendants": 1, "specificity": 1.0},
        "path": [{**node, "conditional_probability": 0.75}],
        "flat_top1": node,
        "top_k": [node],
        "similarity": 0.25,
    }


def echo(asked: Asked) -> Says:
    """Names every image by its content; what begins with `bad` is refused."""
    results: list[dict[str, Any]] = []
    for index, image in enumerate(asked.images):
        if image.startswith(b"bad"):
            error = {"code": "image-format", "message": "no image"}
            results.append({"index": index, "status": "error", "image": "0", "error": error})
        else:
            results.append({"index": index, "status": "ok", **answer(image.decode())})
    if len(results) == 1 and "error" in results[0]:
        return envelope(415, "image-format")
    failed = any("error" in result for result in results)
    return Says(207 if failed else 200, {"request_id": "r", "results": results})


def names(rows: list[Any]) -> list[str]:
    return [row.error.code if hasattr(row, "error") else row.flat_top1.name for row in rows]
