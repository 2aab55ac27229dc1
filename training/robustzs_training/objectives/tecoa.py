"""TeCoA: contrast adversarial images with the texts of all classes.

::

    L = mean_i CE( s cos(f(x_i + d_i), T), y_i )          attack: the same

Shapes: ``x`` ``[B, 3, H, W]``, ``f`` ``[B, D]``, ``T`` ``[C, D]``, ``y`` ``[B]``; ``s`` a constant.

Source: Mao et al., ICLR 2023; ``cvlab-columbia/ZSRobust4FoundationModel`` ``finetuning.py``. ``T``
is ``"This is a photo of a {}"``; only the image tower trains.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms, Objective, need
from robustzs_training.objectives.terms import check_classes, cosine_logits


class ClassObjective(Objective):
    """An objective over a fixed list of classes.

    Args:
        model: The model; its image tower trains.
        classes: Text features ``[C, D]``; see :meth:`ClipAdapter.class_features`.
        logit_scale: The factor on cosines; the checkpoint's own when ``None``. Constant.
    """

    classes: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, model: ClipAdapter, classes: torch.Tensor, *, logit_scale: float | None = None
    ) -> None:
        super().__init__(model)
        scale = model.logit_scale.detach() if logit_scale is None else torch.tensor(logit_scale)
        self.register_buffer("classes", check_classes(classes))
        self.register_buffer("scale", scale.float().clone())
        self.select_trainable_()

    def logits(self, image_features: torch.Tensor) -> torch.Tensor:
        """``[B, C]`` of raw image features ``[B, D]``."""
        return cosine_logits(image_features, self.classes, self.scale)

    def cross_entropy(self, batch: Batch, image_features: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of raw image features ``[B, D]`` with the batch's labels."""
        return F.cross_entropy(self.logits(image_features), need(batch.labels, "labels"))

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The classes, where the batch has labels."""
        return None if batch.labels is None else (self.logits(image_features), batch.labels)


class Tecoa(ClassObjective):
    """See the module's text."""

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """The loss itself."""
        return self.cross_entropy(batch, self.model.image_features(perturbed["pixels"]))

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Cross-entropy of the attacked images."""
        return LossTerms.of(ce=self.attack_loss(batch, perturbed))
