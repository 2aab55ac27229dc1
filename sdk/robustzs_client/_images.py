"""Images of the caller's, encoded, with what to call them in answers."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

from robustzs_client._models import AnswerError, ErrorBody

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PILImage

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff"}
)
"""What counts as an image inside a folder, as for ``robustzs classify``."""

# What a PNG file holds as it is.
_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


@dataclass(frozen=True)
class NamedImage:
    """An encoded image with the name that its answer shall have."""

    name: str
    data: bytes


ImageInput: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, IO[bytes], "PILImage",
    "npt.NDArray[np.uint8]", NamedImage,
]  # fmt: skip
"""A path, encoded bytes, an open binary file, a PIL image, or an array ``[H, W, 3]`` uint8, RGB."""


def read_image(image: ImageInput) -> NamedImage:
    """The encoded image and its name.

    PIL images and arrays become PNG files, which lose nothing; neither package is imported.

    Raises:
        OSError: A file cannot be read.
        TypeError: Nothing that can hold an image.
        ValueError: An array or PIL image that no PNG file holds as it is.
    """
    if isinstance(image, NamedImage):
        return image
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        with open(path, "rb") as stream:
            return NamedImage(path, stream.read())
    if isinstance(image, (bytes, bytearray, memoryview)):
        return NamedImage("bytes", bytes(image))
    if _is_a("numpy", "ndarray", image):
        return NamedImage("array", _png_of_array(image))
    if _is_a("PIL.Image", "Image", image):
        name = getattr(image, "filename", None)
        return NamedImage(name or type(image).__name__, _png_of_pil(image))
    return _read_file(image)


def unreadable(name: str, reason: str) -> AnswerError:
    """The row of an image that cannot be read here."""
    return AnswerError(image=name, error=ErrorBody(code="image-source", message=reason))


def walk_folder(folder: str | os.PathLike[str]) -> Iterator[NamedImage | AnswerError]:
    """The images in a folder and below, sorted by name; links to folders are not followed.

    What cannot be read is a row that says so.

    Raises:
        NotADirectoryError: It is no folder.
    """
    root = os.fspath(folder)
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{root!r} is no folder")
    return _walk(root)


def _walk(root: str) -> Iterator[NamedImage | AnswerError]:
    pending = [root]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"the folder {current!r} cannot be read: {error.strerror}"
            yield unreadable(current, reason)
            continue
        pending += [e.path for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.is_dir():
                yield _try_to_read(entry.path)


def _try_to_read(path: str) -> NamedImage | AnswerError:
    if os.path.lexists(path) and not os.path.isfile(path):
        return unreadable(path, f"{path!r} is not a regular file")
    try:
        return read_image(path)
    except OSError as error:
        return unreadable(path, f"{path!r} cannot be read: {error.strerror}")


def _is_a(module: str, name: str, image: object) -> bool:
    """Whether ``image`` is of a class of a package that somebody else has imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(image, kind)


def _read_file(image: Any) -> NamedImage:
    if not callable(getattr(image, "read", None)):
        raise TypeError(
            f"cannot send {type(image).__name__}: give a path, bytes, an open binary file, a PIL "
            "image or an array [H, W, 3] uint8"
        )
    data = image.read()
    if not isinstance(data, bytes):
        raise TypeError(f'the open file gives {type(data).__name__}: open it as open(path, "rb")')
    name = getattr(image, "name", None)
    return NamedImage(name if isinstance(name, str) else type(image).__name__, data)


def _png_of_pil(image: Any) -> bytes:
    if image.mode not in _PNG_MODES:
        raise ValueError(
            f"no PNG file holds a PIL image of mode {image.mode}: send the file itself, or "
            'image.convert("RGB")'
        )
    buffer = io.BytesIO()
    # The orientation goes along: the service turns the picture upright.
    image.save(buffer, "PNG", exif=image.getexif(), compress_level=1)
    return buffer.getvalue()


def _png_of_array(array: Any) -> bytes:
    """An RGB PNG file, without PIL, which the caller may not have."""
    if str(array.dtype) != "uint8" or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            f"an array must be uint8 [H, W, 3], RGB, got {array.dtype} {list(array.shape)}: for "
            "pixels in [0, 1] use (255 * pixels).round().astype(numpy.uint8)"
        )
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + array[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows, 1))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
