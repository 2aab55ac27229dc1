"""FARE, and what the original encoder predicts: hold the features, most of all where they decide.

::

    p_0 = softmax( s cos(f_0(x_i), T) ),  p = softmax( s cos(f(x_i + d_i), T) )
    L = mean_i | f(x_i + d_i) - f_0(x_i) |_2^2 + kl_weight KL(p_0 || p)     attack: the same

Shapes: ``f``, ``f_0`` raw ``[B, D]``, ``p`` ``[B, C]``; no labels: ``T`` are texts of any classes.

A distance counts all directions alike, and a small model cannot keep all of them. The divergence
says which of them texts are told apart by. Source: FARE (Schlarmann et al., ICML 2024) with the
clean targets of knowledge distillation, as in AGFT; the sum is ours.
"""

from __future__ import annotations

import torch

from robustzs.errors import UsageError
from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms
from robustzs_training.objectives.tecoa import ClassObjective
from robustzs_training.objectives.terms import kl_divergence, squared_distance


class FareKl(ClassObjective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains.
        classes: Text features ``[C, D]``.
        logit_scale: ``s``; the checkpoint's own when ``None``.
        kl_weight: Of the divergence. Distances are not divided by ``D``, so that its weight goes
            with the square of the features' length: CLIP's is about 10, robustzs-lite's about 100.

    Raises:
        UsageError: A negative weight.
    """

    def __init__(
        self,
        model: ClipAdapter,
        classes: torch.Tensor,
        *,
        logit_scale: float | None = None,
        kl_weight: float = 10.0,
    ) -> None:
        super().__init__(model, classes, logit_scale=logit_scale)
        if kl_weight < 0.0:
            raise UsageError(f"kl_weight is {kl_weight}", hint="give zero or more")
        self.reference = model.frozen_image_encoder()
        self.kl_weight = kl_weight

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """Encode the clean images with the frozen encoder."""
        return batch.with_constants(reference=self.reference.image_features(batch.pixels))

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """The loss itself."""
        return self.loss(batch, perturbed).total

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Squared distance to the frozen features, and divergence from what they predict."""
        reference = batch.constant("reference")
        features = self.model.image_features(perturbed["pixels"])
        kl = kl_divergence(self.logits(reference), self.logits(features), "batchmean")
        return LossTerms.of(l2=squared_distance(features, reference), kl=self.kl_weight * kl)

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The classes; right is what the frozen encoder says of the clean image."""
        right = self.logits(batch.constant("reference")).argmax(dim=1)
        return self.logits(image_features), right
