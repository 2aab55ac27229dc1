"""From a decoded image to the pixels that training sees.

``center`` is the model's own rule, bit for bit what the deployed model does. ``random-resized`` is
torchvision's ``RandomResizedCrop`` (area within ``scale``, aspect ratio log-uniform in
[3/4, 4/3]), with random numbers that follow from ``(seed, epoch, index)`` alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from robustzs.images.color import to_rgb
from robustzs.images.preprocess import PreprocessConfig, preprocess
from robustzs_training.data.randomness import generator
from robustzs_training.recipe import AugmentPart

_RATIO = (3.0 / 4.0, 4.0 / 3.0)
_TRIES = 10
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """How an image becomes uint8 pixels.

    Args:
        augment: Crop and flip.
        rule: The model's rule at the size that training uses; see :func:`resized_rule`.
        seed: Of the run.
    """

    augment: AugmentPart
    rule: PreprocessConfig
    seed: int

    def __call__(self, image: Image.Image, *, epoch: int, index: int) -> torch.Tensor:
        """Crop, resize, flip: uint8 ``[3, H, W]``.

        Args:
            image: Decoded; any mode.
            epoch: From 0.
            index: The example's place in its source.

        Raises:
            ImageTooLargeError: So long and thin that it cannot be resized.
        """
        if self.augment.crop == "center" and not self.augment.flip:
            return center_pixels(image, self.rule)
        rng = generator("augmentation", self.seed, epoch, index)
        if self.augment.crop == "center":
            pixels = center_pixels(image, self.rule)
        else:
            pixels = self._random_crop(to_rgb(image), rng)
        if self.augment.flip and rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return pixels

    def _random_crop(self, image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
        height, width = self.rule.image_size
        box = random_box(image.size, self.augment.scale, rng)
        resized = image.crop(box).resize((width, height), _FILTERS[self.rule.interpolation])
        return _to_tensor(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))


def resized_rule(rule: PreprocessConfig, image_size: tuple[int, int]) -> PreprocessConfig:
    """A model's rule at another size: the share that the crop keeps stays.

    Args:
        rule: The model's.
        image_size: Height and width that training uses.
    """
    if image_size == rule.image_size:
        return rule
    resize_size = rule.resize_size
    if resize_size is not None:
        scale = min(image_size) / min(rule.image_size)
        resize_size = max(1, round(resize_size * scale))
    return PreprocessConfig(
        image_size=image_size,
        resize_mode=rule.resize_mode,
        resize_size=resize_size,
        interpolation=rule.interpolation,
        fill_color=rule.fill_color,
    )


def center_pixels(image: Image.Image, rule: PreprocessConfig) -> torch.Tensor:
    """What the deployed model sees, as uint8 ``[3, H, W]``; its pixels are these, divided by 255.

    Raises:
        ImageTooLargeError: So long and thin that it cannot be resized.
    """
    # The rounding only undoes the division: the values were whole numbers before.
    return _to_tensor(np.rint(preprocess(image, rule) * np.float32(255.0)).astype(np.uint8))


def random_box(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A random part of an image, by torchvision's rule.

    Args:
        size: Width and height.
        scale: Least and largest share of the area.
        rng: Random numbers.
    """
    width, height = size
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w + 1))
            top = int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    # Nothing fits a long, thin image: its middle, as near to the allowed ratios as can be.
    w = min(width, round(height * _RATIO[1]))
    h = min(height, round(width / _RATIO[0]))
    left, top = (width - max(w, 1)) // 2, (height - max(h, 1)) // 2
    return left, top, left + max(w, 1), top + max(h, 1)


def _to_tensor(values: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
