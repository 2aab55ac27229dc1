"""The common product of the container readers: one picture and nothing around it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robustzs.errors import ImageDecodeError, ImageTooLargeError, ImageTruncatedError
from robustzs.images.limits import ImageLimits

# Parts (segments, chunks, blocks) that a container may be made of: bounds the time to walk it.
MAX_PARTS = 250_000


@dataclass(frozen=True)
class Reduced:
    """An encoded image without metadata.

    Attributes:
        data: What the decoder gets: one picture, no text, no profiles, no further frames.
        size: Width and height of what it will decode to.
        orientation: EXIF orientation, 1 to 8.
    """

    data: bytes
    size: tuple[int, int]
    orientation: int = 1


def truncated(kind: str) -> ImageTruncatedError:
    """The file ends too early."""
    return ImageTruncatedError(
        f"the {kind} file ends before the picture does", hint="get a complete copy of the image"
    )


def damaged(kind: str, what: str) -> ImageDecodeError:
    """The file contradicts its format."""
    return ImageDecodeError(
        f"the {kind} file is damaged: {what}", hint="open and save it with an image editor"
    )


def too_large(kind: str, what: str) -> ImageTooLargeError:
    """The file asks for more than the limits allow."""
    return ImageTooLargeError(f"the {kind} file has {what}", hint="save it as a plain picture")


def check_size(size: tuple[int, int], limits: ImageLimits, kind: str) -> None:
    """Refuse a picture without area, or with too much of it.

    Raises:
        ImageDecodeError: a side is not positive.
        ImageTooLargeError: more than ``limits.max_pixels``.
    """
    width, height = size
    if width < 1 or height < 1:
        raise damaged(kind, f"its size is {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the {kind} image has {width} x {height} pixels, "
            f"more than the limit of {limits.max_pixels}",
            hint="scale the image down first",
        )


def check_frames(count: int, limits: ImageLimits, kind: str, what: str = "frames") -> None:
    """Refuse more frames or pages than allowed.

    Raises:
        ImageTooLargeError: more than ``limits.max_frames``.
    """
    if count > limits.max_frames:
        raise ImageTooLargeError(
            f"the {kind} file has more than {limits.max_frames} {what}",
            hint="save its first picture alone",
        )


def exif_orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block; 1 when it has none or is damaged.

    Only the one tag is looked at: nothing else in EXIF changes what the picture shows.
    """
    exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, kind, n_values = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == 0x0112:
                if n_values != 1 or kind not in (3, 4):
                    return 1
                layout = f"{order}H" if kind == 3 else f"{order}I"
                (value,) = struct.unpack_from(layout, exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
