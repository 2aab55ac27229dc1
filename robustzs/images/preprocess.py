"""From a decoded image to the pixels of a model, bit for bit as the model's origin does it.

Sources: ``open_clip.transform.image_transform`` (``is_train=False``), torchvision's ``Resize``,
``CenterCrop`` and ``ToTensor`` on PIL images. Held against both in ``tests/images``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustzs.errors import ImageTooLargeError
from robustzs.images.color import Image, to_rgb
from robustzs.images.config import PreprocessConfig

__all__ = ["PreprocessConfig", "fit", "preprocess"]

# A picture of 65535 x 1 pixels, its short side brought to 224, would have 3 billion.
MAX_RESIZED_PIXELS = 50_000_000

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def preprocess(image: Image.Image, config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """Resize, crop and scale an image.

    Args:
        image: As ``decode_image`` returns it. Other PIL images become RGB by the same rules.
        config: The rule of the model.

    Returns:
        ``pixels`` ``[3, H, W]`` float32 in [0, 1], not normalised, C-contiguous.

    Raises:
        ImageTooLargeError: so long and thin that the resized image would have more than
            ``MAX_RESIZED_PIXELS``.
    """
    pixels = np.ascontiguousarray(fit(image, config).transpose(2, 0, 1), dtype=np.float32)
    pixels /= np.float32(255.0)
    return pixels


def fit(image: Image.Image, config: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """Resize and crop an image: ``preprocess`` without the scaling, for where bytes are sent.

    Args:
        image: As for ``preprocess``.
        config: The rule of the model.

    Returns:
        ``[H, W, 3]`` uint8, read-only.

    Raises:
        ImageTooLargeError: as for ``preprocess``.
    """
    image = to_rgb(image)
    resample = _FILTERS[config.interpolation]
    height, width = config.image_size
    if config.resize_mode == "squash":
        image = _resize(image, (height, width), resample)
    elif config.resize_mode == "longest":
        image = _resize(image, _keep_ratio(image, config.image_size, longest=True), resample)
        image = _center_crop(image, config.image_size, config.fill_color)
    else:
        if config.resize_size is not None or height == width:
            size = _shortest(image, config.resize_size or height)
        else:
            # open_clip passes no interpolation here, and its default is bicubic.
            size = _keep_ratio(image, config.image_size, longest=False)
            resample = Image.Resampling.BICUBIC
        image = _center_crop(_resize(image, size, resample), config.image_size, (0, 0, 0))
    return np.asarray(image, dtype=np.uint8)


def _shortest(image: Image.Image, size: int) -> tuple[int, int]:
    """Height and width by torchvision's rule: the longer side is rounded down."""
    width, height = image.size
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def _keep_ratio(image: Image.Image, target: tuple[int, int], *, longest: bool) -> tuple[int, int]:
    """Height and width by open_clip's ``ResizeKeepRatio``: both sides rounded to even."""
    width, height = image.size
    ratios = (height / target[0], width / target[1])
    ratio = max(ratios) if longest else min(ratios)
    return max(round(height / ratio), 1), max(round(width / ratio), 1)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    if height * width > MAX_RESIZED_PIXELS:
        raise ImageTooLargeError(
            f"an image of {image.width} x {image.height} pixels is too long and thin: "
            f"resized for this model it would have {width} x {height}",
            hint="crop the image first",
        )
    return image.resize((width, height), resample)


def _center_crop(
    image: Image.Image, size: tuple[int, int], fill: tuple[int, int, int]
) -> Image.Image:
    """Crop around the centre; a side that is too short is padded first, the odd pixel behind."""
    height, width = size
    missing_x, missing_y = max(width - image.width, 0), max(height - image.height, 0)
    if missing_x or missing_y:
        padded = Image.new("RGB", (image.width + missing_x, image.height + missing_y), fill)
        padded.paste(image, (missing_x // 2, missing_y // 2))
        image = padded
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))
