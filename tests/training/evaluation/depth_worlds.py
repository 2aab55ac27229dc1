"""A linear model over the animals' tree, whose robust accuracy at every depth can be reasoned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from robustzs_training.evaluation.base import TensorFunction, Victim

from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet

SIDE = 4


def weights_of(prompts: Sequence[str], *, scale: float = 1.0) -> torch.Tensor:
    """A row of weights for each prompt, decided by its text: ``[M, 3 * SIDE * SIDE]``."""
    rows = []
    for prompt in prompts:
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:6], "big")
        rows.append(torch.randn(3 * SIDE * SIDE, generator=torch.Generator().manual_seed(seed)))
    return scale * torch.stack(rows)


def linear_victim(labels: LabelSet, *, scale: float = 1.0) -> Victim:
    """Logits are inner products of centred pixels with :func:`weights_of` prompts."""

    def among(prompts: Sequence[str]) -> TensorFunction:
        weight = weights_of(prompts, scale=scale)
        return lambda pixels: (pixels - 0.5).flatten(1) @ weight.T

    return Victim(
        logits_of=among([label.prompt for label in labels]),
        image_features_of=lambda pixels: pixels.flatten(1),
        logits_for=among,
        device=torch.device("cpu"),
        logits_among=among,
    )


def shuffled(tree: Hierarchy, seed: int = 0) -> LabelSet:
    """The tree's labels in another order than its leaves'."""
    labels = tuple(tree.labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    return LabelSet(tuple(labels[place] for place in order))


@dataclass(frozen=True)
class Pictures:
    """Noise around the weights of what it shows; some show another thing than they claim."""

    labels: LabelSet
    images: torch.Tensor
    right: npt.NDArray[np.bool_]
    truth: tuple[str, ...]
    name: str = "noise"
    digest: str = "0" * 64
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [f"{place}.png" for place in range(len(self.images))]

    def pixels(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        return self.images[torch.from_numpy(rows)]


def make_pictures(
    tree: Hierarchy, labels: LabelSet, n: int = 40, *, seed: int = 0, inner: Sequence[str] = ()
) -> Pictures:
    """Pictures whose truths are leaves in turn, and the nodes ``inner`` among them."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    weight = weights_of([label.prompt for label in labels])
    column = {label.id: place for place, label in enumerate(labels)}
    images, right, truth = [], np.zeros((n, len(labels)), np.bool_), []
    names = [*tree.leaf_ids, *inner]
    for row in range(n):
        name = names[row % len(names)]
        node = tree.index(name)
        below = tree.leaf_ids[tree.leaf_start[node] : tree.leaf_end[node]]
        right[row, [column[leaf] for leaf in below]] = True
        shown = below[int(rng.integers(len(below)))] if rng.random() < 0.85 else names[0]
        noise = torch.randn(weight.shape[1], generator=generator)
        image = 0.5 + 0.02 * weight[column[shown]] + 0.03 * noise
        images.append(image.clamp(0.05, 0.95).reshape(3, SIDE, SIDE))
        truth.append(name)
    return Pictures(labels, torch.stack(images), right, tuple(truth))
