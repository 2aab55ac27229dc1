"""AGFT: the frozen model's own soft predictions, sharpened or softened, as the only target.

::

    p_i = softmax( gamma s cos(f_0(x_i), T) )
    L = mean_i CE( s cos(f(x_i + d_i), T), p_i )          attack: the same

Shapes: ``p`` ``[B, C]``; no labels.

Source: ``YuboCui/AGFT`` (CVPR 2026): ``s = 180``, ``gamma = 0.4``.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms
from robustzs_training.objectives.tecoa import ClassObjective


class Agft(ClassObjective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains.
        classes: Text features ``[C, D]``.
        logit_scale: ``s``, of targets and predictions.
        sharpness: ``gamma``, of the targets.
    """

    def __init__(
        self,
        model: ClipAdapter,
        classes: torch.Tensor,
        *,
        logit_scale: float | None = 180.0,
        sharpness: float = 0.4,
    ) -> None:
        super().__init__(model, classes, logit_scale=logit_scale)
        self.reference = model.frozen_image_encoder()
        self.sharpness = sharpness

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """The targets: the frozen model's predictions for the clean images."""
        logits = self.logits(self.reference.image_features(batch.pixels))
        return batch.with_constants(targets=(self.sharpness * logits).softmax(dim=1))

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """The loss itself."""
        logits = self.logits(self.model.image_features(perturbed["pixels"]))
        return F.cross_entropy(logits, batch.constant("targets"))

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Cross-entropy with the soft targets."""
        return LossTerms.of(soft_ce=self.attack_loss(batch, perturbed))
