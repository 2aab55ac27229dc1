"""Attacks on the pixels of small pictures: the resize is then a part of the victim.

CIFAR's pictures have 32 by 32 pixels. The papers of this field perturb these and let the model
resize: the attacker has 3,072 values, not the 150,528 of the model's input, which is another and a
weaker attack at the same eps. Bicubic interpolation may leave [0, 1] a little, as in their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from robustzs_training.evaluation.base import TensorFunction, Victim


def resize_inside(victim: Victim, size: tuple[int, int]) -> Victim:
    """The victim with a bicubic resize before everything that it computes from pixels.

    Args:
        victim: Takes pixels of ``size``.
        size: Height and width of the model's input; :attr:`SourceSet.inside_resize` says which.
    """

    def resized(function: TensorFunction) -> TensorFunction:
        def compute(pixels: torch.Tensor) -> torch.Tensor:
            return function(upsample(pixels, size))

        return compute

    def logits_for(texts: Sequence[str]) -> TensorFunction:
        return resized(victim.logits_for(texts))

    among = victim.logits_among

    return replace(
        victim,
        logits_of=resized(victim.logits_of),
        image_features_of=resized(victim.image_features_of),
        logits_for=logits_for,
        logits_among=None if among is None else (lambda prompts: resized(among(prompts))),
    )


def upsample(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic, corners not aligned, no antialiasing; the same tensor where the size is right.

    Args:
        pixels: float32 ``[B, 3, h, w]``.
        size: Height and width.
    """
    if tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    return functional.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
