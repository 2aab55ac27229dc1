"""Fetching by URL, against real TLS servers on this machine, allowed by nothing but the test."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import anyio
import pytest
import trustme
from robustzs_serving.errors import UrlFailedError, UrlRefusedError, problem_of
from robustzs_serving.ingest import Fetcher, read_classify
from robustzs_serving.ingest.addresses import Address
from robustzs_serving.settings import Limits, ServiceSettings

from robustzs.errors import ImageTooLargeError, RobustZSError
from tests.serving.ingest.asking import request_of

LOOPBACK = ipaddress.ip_address("127.0.0.1")
AUTHORITY = trustme.CA()
LIMITS = Limits(url_seconds=1.5, max_image_bytes=1_000, max_redirects=3)


@dataclass
class Server:
    """Answers paths with what it was told; remembers heads and names of TLS."""

    answers: dict[str, bytes]
    heads: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            path = head.split(" ")[1]
            answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n")
            writer.write(answer.replace(b"PORT", str(self.port).encode()))
            await writer.drain()
            if path == "/drip":
                for _ in range(100):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.1)
            elif path == "/hang":
                await asyncio.sleep(5)
        writer.close()


def ok(content: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\n{extra}\r\n".encode() + content


def redirect(where: str) -> bytes:
    head = f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
    return head.encode()


ANSWERS = {
    "/picture?size=1": ok(b"picture"),
    "/large": ok(b"x" * 100_000),
    "/drip": ok(b""),
    "/hang": b"",
    "/gzip": ok(b"xx", "Content-Encoding: gzip\r\n"),
    "/noise": b"\0\1\2\3" * 100 + b"\r\n\r\n",
    "/once": redirect("/picture?size=1"),
    "/loop": redirect("/loop"),
    "/three": redirect("/two"),
    "/two": redirect("/once"),
    "/four": redirect("/three"),
    "/inside": redirect("https://inside.example:PORT/picture?size=1"),
    "/plain": redirect("http://images.example:PORT/picture?size=1"),
    "/literal": redirect("https://127.0.0.1:PORT/picture?size=1"),
    "/metadata": redirect("https://[::ffff:169.254.169.254]/latest"),
    "/file": redirect("file:///etc/passwd"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server(ANSWERS)
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert("images.example", "127.0.0.1").configure_cert(context)
        context.sni_callback = lambda _, name, __: found.names.append(name)
        listening = await asyncio.start_server(found.handle, "127.0.0.1", 0, ssl=context)
        found.port = listening.sockets[0].getsockname()[1]
        loops.append(asyncio.get_running_loop())
        ready.set()
        await stop.wait()
        listening.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(10)


def fetcher(server: Server, *, limits: Limits = LIMITS, trusts: bool = True) -> Fetcher:
    """Takes `images.example` for this machine, and nothing else."""
    tls = ssl.create_default_context()
    if trusts:
        AUTHORITY.configure_trust(tls)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        if host == "images.example":
            return [LOOPBACK]
        if host == "mixed.example":
            return [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")]
        if host == "inside.example":
            return [ipaddress.ip_address("10.0.0.1")]
        if host == "empty.example":
            return []
        if host.endswith((".invalid", "xn--a")):
            raise OSError("no such host")
        return [ipaddress.ip_address(host)]

    return Fetcher(
        limits,
        resolve=resolve,
        allows=lambda address: address == LOOPBACK,
        ports=(server.port,),
        tls=tls,
    )


def fetch(server: Server, url: str, **more: bool) -> bytes:
    return anyio.run(fetcher(server, **more).fetch, url.replace("PORT", str(server.port)))


def test_an_image_comes_by_the_name_and_from_the_pinned_address(server: Server) -> None:
    assert fetch(server, "https://images.example:PORT/picture?size=1#part") == b"picture"
    assert server.names[-1] == "images.example"
    head = server.heads[-1].lower()
    assert f"host: images.example:{server.port}\r\n" in head
    assert "cookie" not in head
    assert "authorization" not in head


def test_environment_variables_name_no_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(server, "https://images.example:PORT/picture?size=1") == b"picture"


def test_three_redirects_are_followed(server: Server) -> None:
    assert fetch(server, "https://images.example:PORT/three") == b"picture"
    with pytest.raises(UrlFailedError, match="redirected more than 3 times"):
        fetch(server, "https://images.example:PORT/four")
    with pytest.raises(UrlFailedError):
        fetch(server, "https://images.example:PORT/loop")


@pytest.mark.parametrize("path", ["/inside", "/plain", "/metadata", "/file"])
def test_redirects_are_checked_like_the_first_address(server: Server, path: str) -> None:
    before = server.connections
    with pytest.raises((UrlRefusedError, UrlFailedError)):
        fetch(server, f"https://images.example:PORT{path}")
    assert server.connections == before + 1, "nothing but the first host was asked"


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example:PORT/picture",
        "ftp://images.example/",
        "file:///etc/passwd",
        "images.example/picture",
        "https://",
        "https://:PORT/",
        "https://user:secret@images.example:PORT/picture?size=1",
        "https://images.example:22/",
        "https://images.example/",
        "https://inside.example:PORT/",
        "https://mixed.example:PORT/",
        "https://empty.example:PORT/",
        "https://10.0.0.1:PORT/",
        "https://[::1]:PORT/",
        "https://[::ffff:10.0.0.1]:PORT/",
        "https://no-such-name.invalid:PORT/",
        "https://images.example:PORT\\@inside.example/",
        "https://images.example:PORT/a b",
        "https://images.example:PORT/\r\nX: y",
        "https://images.example:99999/",
        "https://xn--a/",
    ],
)
def test_refused_before_any_connection(server: Server, url: str) -> None:
    before = server.connections
    with pytest.raises(RobustZSError) as refused:
        fetch(server, url)
    problem = problem_of(refused.value)
    assert (problem.status, problem.code) == (422, "image-url-refused")
    assert "10.0.0" not in problem.message
    assert server.connections == before


def test_by_default_this_machine_is_out_of_reach(server: Server) -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [LOOPBACK]

    plain = Fetcher(LIMITS, resolve=resolve, ports=(server.port,))
    with pytest.raises(UrlRefusedError):
        anyio.run(plain.fetch, f"https://images.example:{server.port}/picture?size=1")
    for url in ("https://localhost/", "https://127.0.0.1/", "https://0x7f000001/"):
        with pytest.raises(UrlRefusedError):
            anyio.run(Fetcher(LIMITS).fetch, url)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/large", ImageTooLargeError),
        ("/drip", UrlFailedError),
        ("/hang", UrlFailedError),
        ("/gzip", UrlFailedError),
        ("/noise", UrlFailedError),
        ("/missing", UrlFailedError),
    ],
)
def test_bad_answers_end_in_time_and_typed(
    server: Server, path: str, error: type[RobustZSError]
) -> None:
    with pytest.raises(error):
        fetch(server, f"https://images.example:PORT{path}")


def test_certificates_are_checked(server: Server) -> None:
    with pytest.raises(UrlFailedError):
        fetch(server, "https://images.example:PORT/picture?size=1", trusts=False)


def test_one_url_that_fails_fails_alone(server: Server) -> None:
    good = f"https://images.example:{server.port}/picture?size=1"
    document = {"images": [{"url": good}, {"url": "https://10.0.0.1/"}, {"b64": "YWJj"}]}
    request = request_of(json.dumps(document).encode(), "application/json")

    async def read() -> list[tuple[bytes, str | None]]:
        settings = ServiceSettings(urls=True, limits=LIMITS)
        call = await read_classify(request, settings, fetcher=fetcher(server))
        return [(image.data, image.error and image.error.code) for image in call.images]

    assert anyio.run(read) == [(b"picture", None), (b"", "image-url-refused"), (b"abc", None)]
