"""As much of the Hugging Face Hub's protocol as fetching one public dataset takes."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

REVISION = "a" * 40


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, data: bytes | list[Any] | dict[str, Any], **more: str) -> None:
        headers = {key.replace("_", "-"): value for key, value in more.items()}
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        names = parse_qs(body.decode()).get("paths", []) if b"{" not in body else None
        names = json.loads(body)["paths"] if names is None else names
        self.answer(200, [self.server.entry(name) for name in names if name in self.server.files])

    def do_GET(self) -> None:
        hub, path = self.server, self.path.split("?", 1)[0]
        if path == "/":
            self.answer(200, b"")
        elif path.startswith(f"/datasets/{hub.repository}/resolve/"):
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if name in hub.files:
                tag = hub.entry(name)["oid"]
                self.answer(200, hub.files[name], ETag=f'"{tag}"', X_Repo_Commit=REVISION)
            else:
                self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=REVISION)
        elif path.startswith(f"/api/datasets/{hub.repository}/tree/"):
            below = path.split("/tree/")[1].partition("/")[2]
            found = hub.tree(below, recursive="recursive=true" in self.path.lower())
            if found:
                self.answer(200, found)
            else:
                self.answer(404, {}, X_Error_Code="EntryNotFound")
        elif path.startswith(f"/api/datasets/{hub.repository}"):
            files = [{"rfilename": name} for name in hub.files]
            info = {"id": hub.repository, "sha": REVISION, "private": False, "siblings": files}
            self.answer(200, {**info, "_id": "0", "tags": [], "downloads": 0, "likes": 0})
        else:
            self.answer(404, {}, X_Error_Code="RepoNotFound")


class HubServer(ThreadingHTTPServer):
    """Serves one repository; use as a context manager."""

    daemon_threads = True

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.files = {"README.md": b"---\nlicense: mit\n---\n", **files}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def entry(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        oid = hashlib.sha1(data).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": oid}

    def tree(self, below: str, *, recursive: bool) -> list[dict[str, Any]]:
        start = f"{below}/" if below else ""
        found = {}
        for name in self.files:
            if name.startswith(start):
                rest = name[len(start) :]
                if "/" in rest:
                    folder = start + rest.split("/")[0]
                    found[folder] = {
                        "type": "directory",
                        "path": folder,
                        "size": 0,
                        "oid": "b" * 40,
                    }
                if "/" not in rest or recursive:
                    found[name] = self.entry(name)
        return list(found.values())

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
