"""Sim-CLIP: Siamese cosine alignment of attacked features with the frozen encoder's clean ones.

::

    attack: mean_i | f(x_i + d_i) - f_0(x_i) |_2^2
    L = mean_i [ -1/2 cos(f(x_i + d_i), sg f_0(x_i)) - 1/2 cos(f_0(x_i), sg f(x_i + d_i)) ]

Shapes: ``f``, ``f_0`` raw ``[B, D]``; ``sg`` stops the gradient.

Source: ``speedlab-git/SimCLIP`` ``train/adversarial_training_simclip.py``. ``f_0`` is frozen there,
so the second term has a value but no gradient: the gradient is half of that of ``-cos``. Kept as
released, because the learning rate of their recipe goes with it.
"""

from __future__ import annotations

from torch.nn import functional as F

from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms
from robustzs_training.objectives.fare import Fare
from robustzs_training.objectives.terms import widen


class SimClip(Fare):
    """See the module's text."""

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Both halves of the negative cosine."""
        features = widen(self.model.image_features(perturbed["pixels"]))
        reference = widen(batch.constant("reference"))
        return LossTerms.of(
            online=-0.5 * F.cosine_similarity(features, reference, dim=1).mean(),
            stopped=-0.5 * F.cosine_similarity(reference, features.detach(), dim=1).mean(),
        )
