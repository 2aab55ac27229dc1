"""PMG-AFT: cross-entropy, held by the frozen model's and the own clean predictions.

::

    L = mean_i CE(p_adv, y) + alpha KL(p_ref || p_adv) + beta KL(p_clean || p_adv)
    p_adv = softmax(s cos(f(x + d), T)),  p_ref = softmax(s cos(f_0(x + d), T)),
    p_clean = softmax(s cos(f(x), T))                     attack: the cross-entropy alone

Shapes: ``p`` ``[B, C]``. The frozen model sees the *attacked* images.

Source: Wang et al., CVPR 2024; ``PMG_AFT.py`` of the authors. ``alpha = beta = 1``.
"""

from __future__ import annotations

import torch

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms
from robustzs_training.objectives.tecoa import ClassObjective
from robustzs_training.objectives.terms import Reduction, check_choice, kl_divergence


class PmgAft(ClassObjective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains.
        classes: Text features ``[C, D]``.
        logit_scale: The factor on cosines; the checkpoint's own when ``None``.
        alpha: Weight of the frozen model's predictions.
        beta: Weight of the own clean predictions.
        kl_reduction: ``sum`` over the batch is what the released code computes, and its published
            numbers and learning rate come from it: the default. It makes the KL terms weigh as much
            as the batch is large. ``batchmean`` is how AGFT's authors read the paper; its balance
            does not depend on the batch.
        detach_clean: Stop the gradient through ``p_clean``; the released code lets it through.

    Raises:
        UsageError: Another ``kl_reduction``.
    """

    gradient_passes = 2

    def __init__(
        self,
        model: ClipAdapter,
        classes: torch.Tensor,
        *,
        logit_scale: float | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        kl_reduction: Reduction = "sum",
        detach_clean: bool = False,
    ) -> None:
        super().__init__(model, classes, logit_scale=logit_scale)
        check_choice("kl_reduction", kl_reduction, ("sum", "batchmean"))
        self.reference = model.frozen_image_encoder()
        self.alpha, self.beta = alpha, beta
        self.kl_reduction: Reduction = kl_reduction
        self.detach_clean = detach_clean

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """Cross-entropy of the attacked images."""
        return self.cross_entropy(batch, self.model.image_features(perturbed["pixels"]))

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Cross-entropy and both divergences."""
        features = self.model.image_features(perturbed["pixels"])
        adversarial = self.logits(features)
        with torch.no_grad():
            reference = self.logits(self.reference.image_features(perturbed["pixels"]))
        clean = self.logits(self.model.image_features(batch.pixels))
        if self.detach_clean:
            clean = clean.detach()
        kl_reference = kl_divergence(reference, adversarial, self.kl_reduction)
        kl_clean = kl_divergence(clean, adversarial, self.kl_reduction)
        return LossTerms.of(
            ce=self.cross_entropy(batch, features),
            kl_reference=self.alpha * kl_reference,
            kl_clean=self.beta * kl_clean,
        )
