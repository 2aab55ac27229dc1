"""Pictures that are none, lie, explode, or are merely odd."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator

from PIL import Image

from tests.images.samples import encode, every_format, gif, photo, png, png_chunk, tiny_tiff
from tests.images.test_hostile import DAMAGED, TOO_LARGE
from tests.serving.hostile.case import Case, picture, upload

_CUT = (
    *("jpeg", "jpeg-progressive", "jpeg-cmyk", "png", "png-palette", "png-grey-16", "webp"),
    *("webp-lossless", "gif", "bmp", "bmp-1-bit", "tiff", "tiff-lzw", "tiff-deflate", "tiff-jpeg"),
)


def _cut(name: str, part: float) -> Callable[[], bytes]:
    return lambda: every_format()[name][: int(len(every_format()[name]) * part)]


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", picture())
    return stream.getvalue()


def _ftyp(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1" + bytes(200)


def _patched(name: str, at: int, value: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(every_format()[name])
        data[at : at + len(value)] = value
        return bytes(data)

    return make


def _jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(every_format()["jpeg"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _webp_canvas() -> bytes:
    """An extended WebP of 1 x 1 whose picture says otherwise."""
    inner = every_format()["webp-lossless"][12:]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + bytes(6) + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webp_frames() -> bytes:
    frame = b"ANMF" + struct.pack("<I", 16) + bytes(16)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + frame * 5000
    return b"RIFF" + struct.pack("<I", len(body)) + body


NO_PICTURE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\xff",
    "text": lambda: b"not a picture at all, but long enough to be one" * 10,
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "svg with an entity": lambda: (
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'
    ),
    "pdf": lambda: b"%PDF-1.7\n" + bytes(500),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(%pipe%id) (r) file",
    "zip": _zip,
    "gzip": lambda: b"\x1f\x8b\x08" + bytes(500),
    "pickle": lambda: b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
    "numpy": lambda: b"\x93NUMPY\x01\x00" + bytes(500),
    "elf": lambda: b"\x7fELF\x02\x01\x01" + bytes(500),
    "heic": lambda: _ftyp(b"heic"),
    "avif": lambda: _ftyp(b"avif"),
    "mp4": lambda: _ftyp(b"isom"),
    "jpeg xl": lambda: b"\xff\x0a" + bytes(500),
    "jpeg 2000": lambda: encode(photo(), "JPEG2000"),
    "ico": lambda: encode(photo((32, 32)), "ICO"),
    "ppm": lambda: encode(photo(), "PPM"),
    "pcx": lambda: encode(photo(), "PCX"),
    "tga": lambda: encode(photo(), "TGA"),
    "sgi": lambda: encode(photo(), "SGI"),
    "dds": lambda: encode(photo(), "DDS"),
    "xbm": lambda: encode(photo().convert("1"), "XBM"),
    "psd": lambda: b"8BPS\0\1" + bytes(500),
    "fits": lambda: b"SIMPLE  =                    T" + bytes(3000),
    "mpeg": lambda: b"\0\0\1\xb3" + bytes(500),
    "riff that is sound": lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    "a data uri": lambda: b"data:image/png;base64,iVBORw0KGgo=",
    "zeros": lambda: bytes(100_000),
    "float tiff out of range": lambda: encode(Image.new("F", (8, 8), 1e30), "TIFF"),
}

LYING: dict[str, tuple[int, str, Callable[[], bytes]]] = {
    "jpeg of 65500 x 65500": (413, "image-too-large", lambda: _jpeg_of(65500, 65500)),
    "jpeg without height": (422, "image-decode", lambda: _jpeg_of(120, 0)),
    "png of no size": (422, "image-decode", lambda: png(0, 0, 8, 0, b"")),
    "png of 2**31 columns": (413, "image-too-large", lambda: png(2**31 - 1, 1, 8, 0, b"\0\0")),
    "png of a bit depth that is none": (422, "image-decode", lambda: png(2, 2, 7, 0, bytes(6))),
    "png of a colour type that is none": (422, "image-decode", lambda: png(2, 2, 8, 5, bytes(6))),
    "png with a wrong checksum": (
        *(422, "image-decode"),
        lambda: picture()[:29] + b"\0\0\0\0" + picture()[33:],
    ),
    "png with a chunk of 2 GB": (
        *(422, "image-truncated"),
        lambda: picture()[:33] + b"\x7f\xff\xff\xffIDAT" + picture()[41:],
    ),
    "png whose picture is no deflate": (
        *(422, "image-decode"),
        lambda: (
            png(9, 9, 8, 0, b"")[:33] + png_chunk(b"IDAT", b"\xff" * 99) + png_chunk(b"IEND", b"")
        ),
    ),
    "gif without a colour": (422, "image-decode", lambda: b"GIF89a" + bytes(7) + b";"),
    "gif of no size": (422, "image-decode", lambda: gif(1, screen=(0, 0), image=(0, 0))),
    "webp of 5000 frames": (413, "image-too-large", _webp_frames),
    "webp of another size than its picture": (422, "image-decode", _webp_canvas),
    "webp that says it is longer": (
        422,
        "image-truncated",
        _patched("webp", 4, b"\xff\xff\xff\x7f"),
    ),
    "bmp whose header has 4 GB": (422, "image-truncated", _patched("bmp", 14, b"\xff\xff\xff\xff")),
    "bmp of 255 bits": (422, "image-truncated", _patched("bmp", 28, b"\xff\0")),
    "tiff of a compression that is none": (
        *(415, "image-format"),
        lambda: tiny_tiff({259: (3, 1, 31337)}),
    ),
    "tiff of 17 bits": (422, "image-decode", lambda: tiny_tiff({258: (3, 1, 17)})),
    "tiff whose directory is behind its end": (
        *(422, "image-truncated"),
        lambda: b"II*\0\xff\xff\xff\x7f" + bytes(100),
    ),
    "gif with a page behind it": (
        *(422, "image-truncated"),
        lambda: b"GIF89a=1;/*" + b"<script>alert(1)</script>" * 9,
    ),
}

# Decoders fill in what such files leave out, and a service has no reason to know better.
GENEROUS: dict[str, Callable[[], bytes]] = {
    "a jpeg of 3000 x 3000, of which almost nothing is there": lambda: _jpeg_of(3000, 3000),
    "a png with a palette that is not there": lambda: png(2, 2, 8, 3, bytes(6)),
    "a png with fewer rows than it says": lambda: png(9, 9, 8, 0, bytes(10)),
    "a tiff in Lab": lambda: encode(Image.merge("LAB", photo().split()), "TIFF"),
}

POLYGLOT: dict[str, Callable[[], bytes]] = {
    "with a zip behind it": lambda: picture() + _zip(),
    "with a script behind it": lambda: picture() + b"<script>alert(1)</script>" * 1000,
    "with a megabyte behind it": lambda: picture() + bytes(1 << 20),
    "with a gif behind it": lambda: picture() + gif(1),
}


def cases() -> Iterator[Case]:
    """All of them."""
    for name in _CUT:
        for part in (0.15, 0.5, 0.85):
            yield upload(f"{name} cut at {part:.0%}", 422, "image-truncated", _cut(name, part))
    for name, make in TOO_LARGE.items():
        yield upload(name, 413, "image-too-large", make)
    for name, make in DAMAGED.items():
        yield upload(name, 422, "image-decode", make)
    for name, make in NO_PICTURE.items():
        yield upload(f"no picture: {name}", 415, "image-format", make)
    for name, (status, code, make) in LYING.items():
        yield upload(name, status, code, make)
    for name, make in GENEROUS.items():
        yield upload(f"odd but read: {name}", 200, None, make)
    for name, make in POLYGLOT.items():
        yield upload(f"picture {name}", 200, None, make)
    for name in sorted(every_format()):
        yield upload(f"odd but right: {name}", 200, None, lambda name=name: every_format()[name])
    yield upload("a file of 16 MB and a byte", 413, "image-too-large", lambda: bytes(16_000_001))
