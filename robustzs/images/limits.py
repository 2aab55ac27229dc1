"""What an image may ask for: a value object, the same for files, standard input and requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Limits on one image.

    Attributes:
        max_bytes: Encoded size.
        max_pixels: Width times height, known before anything is decoded.
        max_frames: Animation frames, or pages of a TIFF. Only the first is ever decoded.
        max_text_bytes: Text and colour profile of a PNG, inflated. They are counted, never kept.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_frames: int = 1000
    max_text_bytes: int = 4 * 1024 * 1024


DEFAULT_LIMITS = ImageLimits()
