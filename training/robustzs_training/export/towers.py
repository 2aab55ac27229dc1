"""The two towers of an open_clip model as the modules that are exported.

Image: ``pixels`` ``[B, 3, H, W]`` in [0, 1] -> raw ``image_features`` ``[B, D]``.
Text: ``token_ids`` ``[B, T]`` int64 -> raw ``text_features`` ``[B, D]``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

_IMAGE_PARTS = frozenset({"visual"})
_NOT_TEXT = frozenset({"visual", "text_decoder"})


class Normalize(nn.Module):
    """``(pixels - mean) / std`` per channel, inside the model so that pixels stay in [0, 1]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise ``pixels`` ``[B, 3, H, W]``."""
        return (pixels - self.mean) / self.std


class ImageTower(nn.Module):
    """Normalisation and image encoder of an open_clip model.

    Args:
        model: open_clip model in evaluation mode; shared, not copied.
        mean: Per channel, for pixels in [0, 1].
        std: Likewise.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.model = _with_parts(model, _IMAGE_PARTS & set(model._modules))
        self.train(model.training)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into raw features ``[B, D]``."""
        features: torch.Tensor = self.model.encode_image(self.normalize(pixels), normalize=False)
        return features


class TextTower(nn.Module):
    """Text encoder of an open_clip model.

    Args:
        model: open_clip model in evaluation mode; shared, not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = _with_parts(model, set(model._modules) - _NOT_TEXT)
        self.train(model.training)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Encode ``token_ids`` ``[B, T]`` int64 into raw features ``[B, D]``."""
        features: torch.Tensor = self.model.encode_text(token_ids, normalize=False)
        return features


def _with_parts(model: nn.Module, names: set[str] | frozenset[str]) -> Any:
    # A shallow copy shares every tensor but lists only the wanted children, so that tracing one
    # tower neither visits nor stores the other.
    part = copy.copy(model)
    part._modules = {name: child for name, child in model._modules.items() if name in names}
    return part
