"""TGA-ZSR: cross-entropy, and attention maps that the attack must not move.

::

    L = mean_i CE(p_adv, y) + alpha mean_i |A(x_i + d_i) - A_0(x_i)|_2
                            + beta  mean_i |A(x_i)       - A_0(x_i)|_2
    A(x): patch features . text feature of the true class -> min-max over the patches -> bilinear
          up to the image -> flat                         attack: the cross-entropy alone

Shapes: patch features ``[B, P, D]``, maps ``[B, H * W]``; ``A_0`` is the frozen model's.

Source: Yu et al., NeurIPS 2024; ``zhyblue424/TGA-ZSR`` ``TGA-ZSR.py``, ``attention_map.py``:
``alpha = 0.08``, ``beta = 0.05``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms, need
from robustzs_training.objectives.tecoa import ClassObjective
from robustzs_training.objectives.terms import check_choice, widen
from robustzs_training.patches import PatchFeatures

NormAxis = Literal["tokens", "channels"]
_NORM_FLOOR = 1e-24  # under square roots: finite gradients where two maps are equal
_RANGE_FLOOR = 1e-12
_LEAST_CHANNEL = 1e-3  # of the root mean square over channels; see attention_maps


class TgaZsr(ClassObjective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains. Needs patch features.
        classes: Text features ``[C, D]``.
        logit_scale: The factor on cosines; the checkpoint's own when ``None``.
        alpha: Weight of the attacked images' maps.
        beta: Weight of the clean images' maps.
        norm_axis: What patch features are divided by before the product with the text.
            ``tokens``: each channel by its norm over all tokens of the image, the class token (the
            image's feature) included. That is what the released code does (``norm(dim=1)`` of
            ``[B, tokens, D]``), and its weights go with it: the default. ``channels``: each token
            by its norm, which makes the map one of cosines, as the paper's text suggests.

    Raises:
        UsageError: Another ``norm_axis``.
    """

    gradient_passes = 2

    def __init__(
        self,
        model: ClipAdapter,
        classes: torch.Tensor,
        *,
        logit_scale: float | None = None,
        alpha: float = 0.08,
        beta: float = 0.05,
        norm_axis: NormAxis = "tokens",
    ) -> None:
        super().__init__(model, classes, logit_scale=logit_scale)
        check_choice("norm_axis", norm_axis, ("tokens", "channels"))
        self.reference = model.frozen_image_encoder()
        self.alpha, self.beta = alpha, beta
        self.norm_axis: NormAxis = norm_axis

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """The frozen model's maps of the clean images."""
        return batch.with_constants(
            maps=self._maps(self.reference.patch_features(batch.pixels), batch)
        )

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """Cross-entropy of the attacked images."""
        return self.cross_entropy(batch, self.model.image_features(perturbed["pixels"]))

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Cross-entropy and the two distances of maps."""
        adversarial = self.model.patch_features(perturbed["pixels"])
        clean = self.model.patch_features(batch.pixels)
        reference = batch.constant("maps")
        return LossTerms.of(
            ce=self.cross_entropy(batch, adversarial.image_features),
            refinement=self.alpha * _mean_distance(self._maps(adversarial, batch), reference),
            constraint=self.beta * _mean_distance(self._maps(clean, batch), reference),
        )

    def _maps(self, found: PatchFeatures, batch: Batch) -> torch.Tensor:
        texts = self.classes[need(batch.labels, "labels")]
        return attention_maps(found, texts, batch.pixels.shape[2:], self.norm_axis)


def attention_maps(
    found: PatchFeatures, texts: torch.Tensor, size: tuple[int, ...], norm_axis: NormAxis
) -> torch.Tensor:
    """Maps in [0, 1], ``[B, H * W]``, of patch features and one text ``[B, D]`` each.

    By ``tokens``, a channel that is next to nothing in an image counts as nothing. Divided by its
    norm, noise in it would weigh as much as any other channel, and its gradient would outweigh
    theirs by as much as it is smaller: without bound at the zeros that a rank-deficient head gives.
    """
    patches, pooled = widen(found.patches), widen(found.image_features)
    if norm_axis == "tokens":
        square = patches.square().sum(dim=1) + pooled.square()
        counts = square > _LEAST_CHANNEL**2 * square.mean(dim=1, keepdim=True)
        norm = torch.where(counts, square, torch.inf).sqrt()
        unit = patches / norm[:, None]
    else:
        unit = F.normalize(patches, dim=-1)
    similarity = (unit * texts.to(unit)[:, None]).sum(dim=2)
    low, high = similarity.amin(dim=1, keepdim=True), similarity.amax(dim=1, keepdim=True)
    scaled = (similarity - low) / (high - low).clamp_min(_RANGE_FLOOR)
    grid = scaled.reshape(-1, 1, *found.grid)
    return F.interpolate(grid, size=list(size), mode="bilinear", align_corners=False).flatten(1)


def _mean_distance(maps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return ((maps - reference).square().sum(dim=1) + _NORM_FLOOR).sqrt().mean()
