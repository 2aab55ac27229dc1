"""Images for the tests, each made here: one photo in every format, and files that mean harm."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image
from skimage import data


def photo(size: tuple[int, int] = (120, 80)) -> Image.Image:
    return Image.fromarray(data.chelsea()).resize(size)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.copy().save(stream, format, **options)  # saving leaves the encoder's setting behind
    return stream.getvalue()


@cache
def every_format() -> dict[str, bytes]:
    """The same small photo in every accepted format and its common variants."""
    image = photo()
    palette = image.quantize(64)
    cmyk = image.convert("CMYK")
    rgba = image.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encode(image, "JPEG"),
        "jpeg-progressive": encode(image, "JPEG", progressive=True, quality=95),
        "jpeg-grey": encode(image.convert("L"), "JPEG"),
        "jpeg-cmyk": encode(cmyk, "JPEG"),
        "jpeg-exif": encode(image, "JPEG", exif=exif, comment=b"hello"),
        "mpo": encode(image, "MPO", save_all=True, append_images=frames()),
        "png": encode(image, "PNG"),
        "png-palette": encode(palette, "PNG"),
        "png-rgba": encode(rgba, "PNG"),
        "png-grey-16": encode(Image.fromarray(ramp_16()), "PNG"),
        "png-1-bit": encode(image.convert("1"), "PNG"),
        "apng": encode(image, "PNG", save_all=True, append_images=frames()),
        "webp": encode(image, "WEBP"),
        "webp-lossless": encode(rgba, "WEBP", lossless=True),
        "webp-animated": encode(image, "WEBP", save_all=True, append_images=frames()),
        "gif": encode(palette, "GIF"),
        "gif-animated": encode(image, "GIF", save_all=True, append_images=frames(), comment=b"hi"),
        "bmp": encode(image, "BMP"),
        "bmp-palette": encode(palette, "BMP"),
        "bmp-1-bit": encode(image.convert("1"), "BMP"),
        "tiff": encode(image, "TIFF"),
        "tiff-big": encode(image, "TIFF", big_tiff=True),
        "tiff-lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encode(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encode(image, "TIFF", compression="jpeg"),
        "tiff-packbits": encode(palette, "TIFF", compression="packbits"),
        "tiff-1-bit": encode(image.convert("1"), "TIFF", compression="tiff_lzw"),
        "tiff-cmyk": encode(cmyk, "TIFF"),
        "tiff-grey-16": encode(Image.fromarray(ramp_16()), "TIFF"),
        "tiff-pages": encode(image, "TIFF", save_all=True, append_images=frames()),
    }


def frames() -> list[Image.Image]:
    return [photo().rotate(angle) for angle in (90, 180)]


def ramp_16() -> np.ndarray:
    """All of 0..65535 in a 256 x 256 picture."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG from its raw rows (each with its filter byte) and further chunks before the picture."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *extra,
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


def png_bomb(width: int, height: int) -> bytes:
    """A small file of a huge black 1-bit picture, complete and valid."""
    row = bytes(1 + (width + 7) // 8)
    return png(width, height, 1, 0, row * height)


def text_bomb(kind: bytes, n_bytes: int) -> bytes:
    """A 1 x 1 PNG with a text or profile chunk that inflates to ``n_bytes``."""
    compressed = zlib.compress(bytes(n_bytes), 9)
    content = {
        b"zTXt": b"Comment\0\0" + compressed,
        b"iTXt": b"Comment\0\1\0\0\0" + compressed,
        b"iCCP": b"profile\0\0" + compressed,
    }[kind]
    return png(1, 1, 8, 0, b"\0\0", png_chunk(kind, content))


def gif(
    n_frames: int, *, screen: tuple[int, int] = (1, 1), image: tuple[int, int] = (1, 1)
) -> bytes:
    """A GIF whose frames each have one pixel's worth of data."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, *image, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * n_frames + b";"


def bmp(
    width: int, height: int, bits: int = 24, compression: int = 0, pixels: bytes = b""
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def tiff(
    entries: list[tuple[int, int, int, int]], *, next_page: int = 0, tail: bytes = b""
) -> bytes:
    """A little-endian TIFF with one directory of ``(tag, type, count, value)``, then ``tail``."""
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", next_page) + tail


def tiny_tiff(changes: dict[int, tuple[int, int, int] | None], **options: object) -> bytes:
    """A valid 2 x 2 grey TIFF with some tags changed, added, or (``None``) left out."""
    entries = {256: (3, 1, 2), 257: (3, 1, 2), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    entries |= {273: (4, 1, 8), 277: (3, 1, 1), 278: (3, 1, 2), 279: (4, 1, 4)}
    for tag, entry in changes.items():
        entries.pop(tag, None)
        if entry is not None:
            entries[tag] = entry
    return tiff([(tag, *entry) for tag, entry in entries.items()], **options)
