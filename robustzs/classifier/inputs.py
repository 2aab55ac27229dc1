"""What may be classified, and how it becomes pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from robustzs.errors import (
    ImageDecodeError,
    ImageFormatError,
    ImageSourceError,
    ImageTooLargeError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.images.limits import ImageLimits
from robustzs.images.sources import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

ImageInput: TypeAlias = Union[
    str, Path, bytes, bytearray, memoryview, IO[bytes], ImageSource, "PILImage", npt.NDArray[Any]
]
"""A file's path, its bytes, an open file, a source, a PIL image or an array ``[H, W, 3]`` uint8."""


def image_name(image: ImageInput) -> str:
    """How an answer refers to an image that the caller gave no name."""
    if isinstance(image, ImageSource):
        return image.name
    if isinstance(image, (str, Path)):
        return os.fspath(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return "bytes"
    if isinstance(image, np.ndarray):
        return "array"
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return name if isinstance(name, str) else type(image).__name__


def to_pixels(
    image: ImageInput, config: PreprocessConfig, limits: ImageLimits
) -> npt.NDArray[np.float32]:
    """Read, decode and resize one image into ``pixels`` ``[3, H, W]`` in [0, 1].

    Raises:
        ImageError: anything that is wrong with the image.
        TypeError: not something that can hold an image.
    """
    from robustzs.images.preprocess import preprocess

    return preprocess(_open(image, limits), config)


def _open(image: ImageInput, limits: ImageLimits) -> PILImage:
    from robustzs.images.color import Image
    from robustzs.images.decode import decode_image

    if isinstance(image, Image.Image):
        return _from_pil(image, limits)
    if isinstance(image, np.ndarray):
        return _from_array(image, limits)
    return decode_image(_read(image, limits), limits)


def _read(image: Any, limits: ImageLimits) -> bytes:
    """The encoded image behind a path, bytes, an open file or a source."""
    if isinstance(image, ImageSource):
        return image.read(limits)
    if isinstance(image, (str, Path)):
        name = os.fspath(image)
        # in a source "-" is standard input; in Python it is the file of that name
        return ImageSource(os.path.join(".", name) if name == "-" else name).read(limits)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if callable(getattr(image, "read", None)):
        return _read_file(image, limits)
    raise TypeError(
        f"cannot classify {type(image).__name__}: give a path, bytes, an open binary file, "
        "a PIL image or an array [H, W, 3] uint8"
    )


def _read_file(stream: IO[bytes], limits: ImageLimits) -> bytes:
    try:
        data = stream.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        raise ImageSourceError(f"the open file cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise ImageSourceError(
            f"the open file gives {type(data).__name__}, not bytes",
            hint='open it in binary mode: open(path, "rb")',
        )
    return data


def _from_array(array: npt.NDArray[Any], limits: ImageLimits) -> PILImage:
    from robustzs.images.color import Image
    from robustzs.images.reduced import check_size

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ImageFormatError(
            f"an array must be uint8 [H, W, 3], RGB, got {array.dtype} {list(array.shape)}",
            hint="for pixels in [0, 1] use (255 * pixels).round().astype(np.uint8)",
        )
    check_size((array.shape[1], array.shape[0]), limits, "array")
    return Image.fromarray(np.ascontiguousarray(array))


def _from_pil(image: PILImage, limits: ImageLimits) -> PILImage:
    """The image as ``decode_image`` would give it: loaded, upright, RGB."""
    from PIL import ImageOps

    from robustzs.images.color import to_rgb
    from robustzs.images.reduced import check_size

    check_size(image.size, limits, image.format or "PIL")
    try:
        # a copy, since a lazy image may be shared with another thread's call
        upright = ImageOps.exif_transpose(image.copy())
    except MemoryError as error:
        raise ImageTooLargeError(
            f"there is not enough memory for an image of {image.width} x {image.height} pixels",
            hint="scale the image down first",
        ) from error
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise ImageDecodeError(
            "the PIL image cannot be loaded", hint="open the file with robustzs instead"
        ) from error
    return to_rgb(upright)
