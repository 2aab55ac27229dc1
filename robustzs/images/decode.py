"""Decoding of image files from anywhere, under limits, without surprises.

The format is told by its first bytes, never by name or declared type. The container is measured
and reduced to one bare picture (``containers``, ``tiff``) before one fixed decoder of Pillow gets
it; Pillow's search for a decoder, its warnings and its texts stay out. What comes back is RGB,
upright, without metadata.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from robustzs.errors import ImageFormatError, ImageTooLargeError
from robustzs.images import containers
from robustzs.images.color import Image, to_rgb
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits
from robustzs.images.reduced import Reduced, check_size, damaged, truncated
from robustzs.images.tiff import is_tiff, reduce_tiff

__all__ = ["ACCEPTED_FORMATS", "DEFAULT_LIMITS", "ImageLimits", "decode_image"]

ACCEPTED_FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Decoder(NamedTuple):
    name: str
    matches: Callable[[bytes], bool]
    reduce: Callable[[bytes, ImageLimits], Reduced]
    open: Callable[[io.BytesIO], Image.Image]


def _open_jpeg(stream: io.BytesIO) -> Image.Image:
    from PIL.JpegImagePlugin import JpegImageFile

    return JpegImageFile(stream)


def _open_png(stream: io.BytesIO) -> Image.Image:
    from PIL.PngImagePlugin import PngImageFile

    return PngImageFile(stream)


def _open_webp(stream: io.BytesIO) -> Image.Image:
    from PIL.WebPImagePlugin import WebPImageFile

    return WebPImageFile(stream)


def _open_gif(stream: io.BytesIO) -> Image.Image:
    from PIL.GifImagePlugin import GifImageFile

    return GifImageFile(stream)


def _open_bmp(stream: io.BytesIO) -> Image.Image:
    from PIL.BmpImagePlugin import BmpImageFile

    return BmpImageFile(stream)


def _open_tiff(stream: io.BytesIO) -> Image.Image:
    from PIL.TiffImagePlugin import TiffImageFile

    return TiffImageFile(stream)


_DECODERS = (
    _Decoder("JPEG", lambda d: d[:3] == b"\xff\xd8\xff", containers.reduce_jpeg, _open_jpeg),
    _Decoder("PNG", lambda d: d[:8] == b"\x89PNG\r\n\x1a\n", containers.reduce_png, _open_png),
    _Decoder(
        "WebP",
        lambda d: d[:4] == b"RIFF" and d[8:12] == b"WEBP",
        containers.reduce_webp,
        _open_webp,
    ),
    _Decoder("GIF", lambda d: d[:6] in (b"GIF87a", b"GIF89a"), containers.reduce_gif, _open_gif),
    _Decoder("BMP", lambda d: d[:2] == b"BM", containers.reduce_bmp, _open_bmp),
    _Decoder("TIFF", is_tiff, reduce_tiff, _open_tiff),
)

# Names for what people send instead, so that the refusal says more than "unknown".
_REFUSED = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%!PS", "a PostScript file"),
)


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode the first picture of an image file.

    Args:
        data: The file's content.
        limits: What it may ask for.

    Returns:
        An RGB image, turned as its EXIF orientation says, without metadata. ``color`` has the
        rules for other pixel formats.

    Raises:
        ImageFormatError: not one of ``ACCEPTED_FORMATS``, or a variant that is not accepted.
        ImageTruncatedError: the data end before the picture does.
        ImageTooLargeError: more bytes, pixels, frames or text than ``limits`` allow.
        ImageDecodeError: the content is damaged.
    """
    if not data:
        raise ImageFormatError("the image is empty", hint="it has no bytes at all")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(data)} bytes, more than the limit of {limits.max_bytes}",
            hint="save it smaller",
        )
    for decoder in _DECODERS:
        if decoder.matches(data):
            return _decode(decoder, data, limits)
    raise ImageFormatError(
        f"this is {_guess(data)}, not an image of an accepted format",
        hint=f"accepted are {', '.join(ACCEPTED_FORMATS)}",
    )


def _decode(decoder: _Decoder, data: bytes, limits: ImageLimits) -> Image.Image:
    name = decoder.name
    reduced = decoder.reduce(data, limits)
    try:
        image = decoder.open(io.BytesIO(reduced.data))
        # The decoder's own idea of the size is what it will allocate.
        check_size(image.size, limits, name)
        image.load()
        rgb = to_rgb(image)
    except MemoryError as error:
        raise ImageTooLargeError(
            f"there is not enough memory to decode a {name} image of "
            f"{reduced.size[0]} x {reduced.size[1]} pixels",
            hint="scale the image down first",
        ) from error
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        AssertionError,
        NotImplementedError,
        Image.DecompressionBombError,
        struct.error,
        zlib.error,
    ) as error:
        # Pillow's plugins fail in all of these ways on damaged data; their texts stay here.
        if "truncated" in str(error).lower():
            raise truncated(name) from error
        raise damaged(name, "its pixels cannot be decoded") from error
    rgb.info = {}
    turn = _TRANSPOSE.get(reduced.orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _guess(data: bytes) -> str:
    for start, name in _REFUSED:
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"avif", b"avis"):
            return "an AVIF image"
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis"):
            return "a HEIC image"
        return "a video"
    start = data[:256].lstrip().lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG or XML document"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return "data of an unknown kind"
