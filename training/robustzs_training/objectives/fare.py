"""FARE: keep attacked images where the original encoder puts the clean ones. No labels, no text.

::

    L = mean_i | f(x_i + d_i) - f_0(x_i) |_2^2            attack: the same

Shapes: ``f``, ``f_0`` raw ``[B, D]``: not normalised, summed over D, not divided by it.

Source: Schlarmann et al., ICML 2024; ``chs20/RobustVLM``
``train/adversarial_training_clip.py``. ``f_0`` is the encoder before training, frozen.
"""

from __future__ import annotations

import torch

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms, Objective
from robustzs_training.objectives.terms import squared_distance


class Fare(Objective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains.
    """

    def __init__(self, model: ClipAdapter) -> None:
        super().__init__(model)
        self.reference = model.frozen_image_encoder()
        self.select_trainable_()

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """Encode the clean images with the frozen encoder."""
        return batch.with_constants(reference=self.reference.image_features(batch.pixels))

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """The loss itself."""
        features = self.model.image_features(perturbed["pixels"])
        return squared_distance(features, batch.constant("reference"))

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Squared distance of the attacked images' features to the frozen ones."""
        return LossTerms.of(l2=self.attack_loss(batch, perturbed))
