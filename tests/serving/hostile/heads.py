"""Requests that are wrong before anybody looks into their bodies, and forms that are none."""

from __future__ import annotations

from collections.abc import Iterator

from tests.serving.hostile.case import BOUNDARY, END, JSON, Case, form, part, picture

_HOST = b"Host: localhost\r\nConnection: close\r\n"
_JSON = b"Content-Type: application/json\r\n"
_POST = b"POST /v1/classify HTTP/1.1\r\n" + _HOST + _JSON
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"


def _wire() -> Iterator[tuple[str, int, str, bytes]]:
    bad = (400, "http-malformed")
    yield (
        "two lengths of one body",
        *bad,
        _POST + (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    )
    yield (
        "a coding that is none",
        *bad,
        _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    )
    yield "a chunk of no size", *bad, _CHUNKED + b"zz\r\n\r\n"
    yield "a chunk of negative size", *bad, _CHUNKED + b"-5\r\nabc\r\n"
    yield "a chunk longer than it says", *bad, _CHUNKED + b"1\r\n{}{}{}\r\n0\r\n\r\n"
    yield "a negative length", *bad, _POST + b"Content-Length: -1\r\n\r\n"
    yield "a length with a sign", *bad, _POST + b"Content-Length: +2\r\n\r\n{}"
    yield "a length in hex", *bad, _POST + b"Content-Length: 0x2\r\n\r\n{}"
    yield "a length of 40 digits", *bad, _POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}"
    yield "two lengths", *bad, _POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
    yield "two hosts", *bad, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
    yield "no host", *bad, b"GET / HTTP/1.1\r\n\r\n"
    yield "no version", *bad, b"GET /livez\r\n\r\n"
    yield "a space before a colon", *bad, b"GET / HTTP/1.1\r\n" + _HOST + b"X : a\r\n\r\n"
    yield "a null in a header", *bad, b"GET / HTTP/1.1\r\n" + _HOST + b"X: a\0b\r\n\r\n"
    yield "TLS", *bad, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n"
    yield "noise", *bad, bytes(range(256)) * 4 + b"\r\n\r\n"
    for name, target, status, code in (
        ("HTTP/2", b"PRI * HTTP/2.0", 404, "not-found"),
        ("a star", b"OPTIONS * HTTP/1.1", 404, "not-found"),
        ("a tunnel", b"CONNECT localhost:80 HTTP/1.1", 404, "not-found"),
        ("a whole URL", b"GET http://localhost/livez HTTP/1.1", 404, "not-found"),
        ("two slashes", b"GET //v1/models HTTP/1.1", 404, "not-found"),
        ("dots", b"GET /page/../../../etc/passwd HTTP/1.1", 404, "not-found"),
        ("escaped dots", b"GET /page/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", 404, "not-found"),
        ("escaped escapes", b"GET /page/%252e%252e/etc/passwd HTTP/1.1", 404, "not-found"),
        ("a null", b"GET /v1/models/%00 HTTP/1.1", 404, "model-not-found"),
        ("a bad escape", b"GET /v1/models/%zz HTTP/1.1", 404, "model-not-found"),
        ("no UTF-8", b"GET /v1/models/%ff%fe HTTP/1.1", 404, "model-not-found"),
        ("a trace", b"TRACE /v1/models HTTP/1.1", 405, "method-not-allowed"),
        ("a method of small letters", b"get /livez HTTP/1.1", 405, "method-not-allowed"),
        ("a method of its own", b"BREW /v1/classify HTTP/1.1", 405, "method-not-allowed"),
        ("a path of 5 KB", b"GET /" + b"a" * 5000 + b" HTTP/1.1", 414, "uri-too-long"),
    ):
        yield name, status, code, target + b"\r\n" + _HOST + b"\r\n"
    many = b"".join(b"X%d: y\r\n" % number for number in range(8000))
    yield "8000 headers", 431, "headers-too-large", b"GET / HTTP/1.1\r\n" + _HOST + many + b"\r\n"
    large = b"X: " + b"a" * 33_000 + b"\r\n"
    yield (
        "a header of 33 KB",
        431,
        "headers-too-large",
        b"GET / HTTP/1.1\r\n" + _HOST + large + b"\r\n",
    )
    upgrade = b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    yield (
        *("a web socket", 404, "not-found"),
        b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\n"
        + (upgrade + b"Sec-WebSocket-Version: 13\r\n\r\n"),
    )
    for host in (
        b"evil.example",
        b"localhost@evil",
        b"",
        b"localhost.evil.example",
        b"127.0.0.1.nip.io",
    ):
        yield (
            *(f"host {host.decode()!r}", 421, "host-refused"),
            b"GET /v1/models HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n",
        )


def _heads() -> Iterator[Case]:
    for value in (
        "text/plain",
        "image/png",
        "application/x-www-form-urlencoded",
        "multipart/mixed",
    ):
        yield form(f"type {value}", 415, "media-type", picture(), value)
    for value in ("", "json", "application/json; charset=utf-16", "\xff\xfe", "*/*"):
        yield form(f"type {value!r}", 415, "media-type", b"{}", value)
    for value in ("gzip", "br", "identity, gzip", "x"):
        yield Case(
            f"encoding {value}",
            415,
            "media-type",
            b"{}",
            headers=(*JSON, ("content-encoding", value)),
        )
    yield Case("two types", 415, "media-type", b"{}", headers=(*JSON, *JSON))
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    for name, value in foreign.items():
        yield Case(f"{name}: {value}", 403, "origin-refused", b"{}", headers=(*JSON, (name, value)))
    yield Case("origin: null", 403, "origin-refused", b"{}", headers=(*JSON, ("origin", "null")))
    yield Case("a body of 33 MB", 413, "body-too-large", lambda: bytes(33_000_000), headers=JSON)
    yield Case(
        "a body of 33 MB in pieces", 413, "body-too-large", lambda: iter([bytes(1_000_000)] * 33),
        headers=JSON,
    )  # fmt: skip


def _forms() -> Iterator[Case]:
    image, labels = part("image", picture()), part("labels", "jeep,tabby")
    bad = (400, "body-malformed")
    yield form("form: no boundary", *bad, b"", "multipart/form-data")
    yield form("form: an empty boundary", *bad, b"", "multipart/form-data; boundary=")
    yield form("form: a boundary of 71", *bad, b"", f"multipart/form-data; boundary={'a' * 71}")
    yield form(
        "form: a boundary of 20 KB", *bad, b"", f"multipart/form-data; boundary={'a' * 20_000}"
    )
    yield form(
        "form: another boundary", *bad, image + labels + END, "multipart/form-data; boundary=z"
    )
    yield form("form: nothing", *bad, b"")
    yield form("form: no end", *bad, image + labels)
    yield form("form: cut in a part", *bad, image[:-40])
    yield form("form: cut in a header", *bad, image[:30])
    yield form("form: only its end", 400, "field-missing", END)
    yield form("form: no image", 400, "field-missing", labels + END)
    yield form("form: dashes", *bad, b"-" * 1_000_000)
    yield form("form: line breaks", *bad, b"\r\n" * 500_000)
    start = f"--{BOUNDARY}\r\n".encode()
    named = b'Content-Disposition: form-data; name="image"\r\n'
    for name, head in (
        ("no disposition", b"Content-Type: image/png\r\n"),
        ("no name", b"Content-Disposition: form-data\r\n"),
        ("an attachment", b'Content-Disposition: attachment; name="image"\r\n'),
        ("two dispositions", named * 2),
        ("base64", named + b"Content-Transfer-Encoding: base64\r\n"),
        ("20 headers", named + b"".join(b"X%d: y\r\n" % number for number in range(20))),
        ("a header of 5 KB", named + b"X: " + b"a" * 5000 + b"\r\n"),
        ("a header without colon", b"Content-Disposition\r\n"),
        ("a null in a header", b'Content-Disposition: form-data; name="im\0age"\r\n'),
    ):
        code = "field-unknown" if "null" in name else "body-malformed"
        yield form(
            f"form: {name}",
            400,
            code,
            start + head + b"\r\n" + picture() + b"\r\n" + labels + END,
        )
    for name in (
        "",
        "images",
        "IMAGE",
        "image\r\nX: y",
        "../image",
        "a" * 5000,
        "image[]",
        "\ud800",
    ):
        body = part(name.encode("utf-8", "surrogatepass").decode("latin-1"), picture())
        code = "body-malformed" if len(name) > 3900 else "field-unknown"
        yield form(f"form: a part {name!r:.20}", 400, code, body + labels + END)
    yield form("form: labels twice", 400, "field-repeated", image + labels + labels + END)
    yield form("form: no UTF-8", 400, "usage", image + part("labels", b"\xff\xfe") + END)
    yield form("form: labels of nothing", 400, "usage", image + part("labels", " ") + END)
    yield form("form: broken JSON", *bad, image + part("labels", '["a"') + END)
    yield form(
        "form: labels of 5 MB",
        413,
        "field-too-large",
        image + part("labels", "a" * 5_000_000) + END,
    )
    yield form("form: 33 images", 413, "too-many-images", part("image", b"x") * 33 + labels + END)
    yield form(
        "form: 100000 parts", 413, "too-many-images", lambda: part("image", b"") * 100_000 + END
    )
    yield form(
        "form: an image as text",
        415,
        "image-format",
        part("image", "https://8.8.8.8/") + labels + END,
    )
    for name, value in (
        *(
            ("theta", "1e999"),
            ("theta", "nan"),
            ("theta", "0x1"),
            ("theta", "1_0"),
            ("theta", "\u0663"),
        ),
        *(("top_k", "5.0"), ("top_k", "9" * 5000), ("temperature", "1e-999"), ("reject", "maybe")),
        *(("level", "-1"), ("strategy", "x"), ("on_unknown", "x"), ("hierarchy", "../x")),
    ):
        yield form(
            f"form: {name} {value!r:.9}", 400, "usage", image + labels + part(name, value) + END
        )
    inner = part("image", picture()) + END
    nested = part(
        "image",
        inner.replace(BOUNDARY.encode(), b"inner"),
        "Content-Type: multipart/mixed; boundary=inner\r\n",
    )
    yield form("form: a form in a form", 415, "image-format", nested + labels + END)
    odd = part("image", picture(), "Content-Type: text/html\r\n", filename="../../../etc/passwd")
    yield form("odd but right: a path as file name", 200, None, odd + labels + END)
    yield form(
        "odd but right: text around the form",
        200,
        None,
        b"\r\n" + image + labels + END + b"\r\nbye",
    )


def cases() -> Iterator[Case]:
    """All of them."""
    for name, status, code, raw in _wire():
        yield Case(f"wire: {name}", status, code, raw=raw)
    yield from _heads()
    yield from _forms()
