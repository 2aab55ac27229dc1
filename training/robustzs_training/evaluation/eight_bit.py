"""Attacks on files of 8 bits: the perturbation is whole 255ths, as a PNG holds them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import UsageError
from robustzs.images.config import PreprocessConfig
from robustzs.threat import ThreatModel, format_size
from robustzs_training.evaluation.base import TensorFunction, Victim

UInt8Array = npt.NDArray[np.uint8]
LEVELS = 255
_TOLERANCE = 1e-9


def whole_levels(threat: ThreatModel) -> int:
    """The radius in whole 255ths, rounded down: what 8-bit pixels can hold.

    Raises:
        UsageError: Not Linf, or less than one.
    """
    if threat.norm != "Linf":
        raise UsageError(
            f"{threat}: pixels of 8 bits are perturbed within Linf", hint="write 1/255, or 2/255"
        )
    levels = math.floor(threat.eps * LEVELS + _TOLERANCE)
    if levels < 1:
        raise UsageError(
            f"eps {format_size(threat.eps)} is less than a PNG can hold: its pixels are whole "
            "255ths",
            hint="use 1/255 or more",
        )
    return levels


def on_the_grid(victim: Victim) -> Victim:
    """The victim behind an 8-bit file: pixels are rounded to 255ths, gradients pass straight."""

    def rounded(function: TensorFunction) -> TensorFunction:
        def behind(pixels: torch.Tensor) -> torch.Tensor:
            near = torch.round(pixels.detach() * LEVELS) / LEVELS
            return function(near + (pixels - pixels.detach()))

        return behind

    among = victim.logits_among
    return replace(
        victim,
        logits_of=rounded(victim.logits_of),
        image_features_of=rounded(victim.image_features_of),
        logits_for=lambda texts: rounded(victim.logits_for(texts)),
        logits_among=None if among is None else (lambda prompts: rounded(among(prompts))),
    )


def rounded(image: torch.Tensor) -> UInt8Array:
    """The file's values ``[H, W, 3]`` of pixels ``[3, H, W]``, as :func:`on_the_grid` sees them."""
    near = torch.round(image.detach().cpu() * LEVELS).clamp(0, LEVELS)
    return near.to(torch.uint8).numpy().transpose(1, 2, 0)


def as_pixels(image: UInt8Array) -> npt.NDArray[np.float32]:
    """Pixels ``[3, H, W]`` of a file's values ``[H, W, 3]``, as preprocessing has them."""
    values = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    return values / np.float32(LEVELS)


def framed(image: UInt8Array, config: PreprocessConfig) -> UInt8Array:
    """What preprocessing turns into exactly this model input ``[H, W, 3]``.

    Mostly the image itself. Where a model resizes to more than it looks at (256, then the 224 in
    the middle), a frame is put around it that the model does not see.
    """
    side = config.resize_size
    height, width = image.shape[:2]
    if side is None or side <= max(height, width):
        return image
    missing = [(round((side - size) / 2.0), size) for size in (height, width)]
    padding = [(start, side - size - start) for start, size in missing]
    return np.pad(image, [*padding, (0, 0)], mode="edge")
