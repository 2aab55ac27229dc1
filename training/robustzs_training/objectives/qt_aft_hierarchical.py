"""QT-AFT and Hierarchical together: captions say what this picture shows, trees what it is.

::

    L = L_QT-AFT(z) + weight L_Hierarchical(z, t^)          z = f(x + d_X), one forward pass
    attack: L_QT-AFT + weight L', on the same (image, prompt) perturbation

Shapes: ``z`` raw ``[B, D]``; terms as in ``qt_aft.py`` and ``hierarchical.py``. Captions are
compared by cosine with the text features of the original model, also while the text projection
trains; classes are compared in the Poincaré ball.

Source: ours; neither paper combines them.
"""

from __future__ import annotations

import torch
from torch import nn

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import PerturbedInput, Tensors
from robustzs_training.objectives.base import Batch, LossTerms, Objective
from robustzs_training.objectives.hierarchical import Hierarchical
from robustzs_training.objectives.qt_aft import QtAft


class QtAftHierarchical(Objective):
    """See the module's text.

    Args:
        captions: QT-AFT over the model.
        tree: Hierarchical over the same model.
        tree_weight: Weight of the hierarchical loss, in attack and defence.
    """

    def __init__(self, captions: QtAft, tree: Hierarchical, *, tree_weight: float = 1.0) -> None:
        model: ClipAdapter = tree.model
        super().__init__(model)
        if captions.model is not model:
            raise UsageError(
                "the two objectives were given different models", hint="give both the same adapter"
            )
        self.captions = captions
        self.tree = tree
        self.tree_weight = tree_weight
        self.select_trainable_()

    def trained_model_parameters(self) -> dict[str, nn.Parameter]:
        """The image tower and the text projection."""
        return self.tree.trained_model_parameters()

    def perturbable(self, batch: Batch, threat: ThreatModel) -> dict[str, PerturbedInput]:
        """Pixels and prompts."""
        return self.tree.perturbable(batch, threat)

    def prepare(self, batch: Batch) -> Batch:
        """What both need."""
        return self.tree.prepare(self.captions.prepare(batch))

    def begin_(self, batch: Batch) -> None:
        """Start the tree's image scale."""
        self.tree.begin_(batch)

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The tree's leaves."""
        return self.tree.choices(batch, image_features)

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """Both attacks' losses."""
        features = self.model.image_features(perturbed["pixels"])
        captions = torch.stack(list(self.captions.terms(batch, features).values())).sum()
        return captions + self.tree_weight * self.tree.attack_terms(batch, features, perturbed)

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Both losses."""
        features = self.model.image_features(perturbed["pixels"])
        captions = LossTerms.of(**self.captions.terms(batch, features))
        tree = self.tree.loss_terms(batch, features, perturbed)
        return LossTerms(
            total=captions.total + self.tree_weight * tree.total,
            terms={**captions.terms, **tree.terms},
        )

    def clamp_(self) -> None:
        """Both ranges."""
        self.captions.clamp_()
        self.tree.clamp_()
