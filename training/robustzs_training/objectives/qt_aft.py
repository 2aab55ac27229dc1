"""QT-AFT: FARE's consistency, and a contrast of each attacked image with its own caption.

::

    z0_i = f_0(x_i),  za_i = f(x_i + d_i)                  raw
    t_i  = g(caption_i)                                    frozen
    L = mean_i |za_i - z0_i|_2^2
        + 10 mean_i CE( s [cos(za_i, t_1) .. cos(za_i, t_B)], i )          attack: the same

Shapes: ``z`` ``[B, D]``, ``t`` ``[B, D]``; the captions of all processes are contrasted. One
direction only (image to text); no labels; no clean-image loss. ``s = exp(log_logit_scale)`` starts
at ``1 / 0.07``, trains, and is clamped to [1, 100].

Source: Waseda et al., ACM MM 2025 (arXiv 2507.16257), and their code ``futakw/QTAFT``
``train_qtaft.py``, which this follows exactly: weight 10, attack by momentum-sign PGD-10 with a
uniform start.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives.base import Batch, LossTerms, Objective, need
from robustzs_training.objectives.terms import cosine_logits, squared_distance
from robustzs_training.processes import gather, rank

INITIAL_LOGIT_SCALE = 1.0 / 0.07
MAX_LOGIT_SCALE = 100.0


class QtAft(Objective):
    """See the module's text.

    Args:
        model: The model as it is before training; its image tower trains.
        caption_weight: Weight of the contrast with captions.
        initial_logit_scale: ``s`` at the start. The checkpoint's own scale is not touched.
        mask_equal_captions: Leave another image's caption out of an image's contrast where it is
            the same as its own, as captions made of class names often are. The authors' code
            pushes an image away from such a caption.
    """

    def __init__(
        self,
        model: ClipAdapter,
        *,
        caption_weight: float = 10.0,
        initial_logit_scale: float = INITIAL_LOGIT_SCALE,
        mask_equal_captions: bool = False,
    ) -> None:
        super().__init__(model)
        self.reference = model.frozen_image_encoder()
        # The text projection trains in combinations; captions stay where the original put them.
        self.caption_projection = model.frozen_text_projection()
        self.caption_weight = caption_weight
        self.mask_equal_captions = mask_equal_captions
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(initial_logit_scale)))
        self.select_trainable_()

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """Frozen features of the clean images, and of the captions of all processes."""
        captions = batch.caption_features
        if captions is None:
            token_ids = self.model.trim(need(batch.caption_ids, "captions"))
            captions = self.caption_projection(self.model.pooled_text(token_ids))
        return batch.with_constants(
            reference=self.reference.image_features(batch.pixels),
            captions=gather(captions),
        )

    def terms(self, batch: Batch, image_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """The two weighted terms, of raw features ``[B, D]`` of the attacked images."""
        logits, own = self._contrast(batch, image_features)
        return {
            "l2": squared_distance(image_features, batch.constant("reference")),
            "image_to_caption": self.caption_weight * F.cross_entropy(logits, own),
        }

    def _contrast(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[B, W * B]`` over the captions of all processes, and each image's column."""
        captions = batch.constant("captions")
        logits = cosine_logits(image_features, captions, self.log_logit_scale.exp())
        own = torch.arange(len(logits), device=logits.device) + rank() * len(logits)
        if self.mask_equal_captions:
            same = (captions[own][:, None] == captions[None]).all(dim=2)
            same[torch.arange(len(own), device=own.device), own] = False
            logits = logits.masked_fill(same, -torch.inf)
        return logits, own

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The captions of the images of all processes; another image's is right if it is the same.

        Captions made of class names repeat, and nothing could tell such columns apart.
        """
        logits, own = self._contrast(batch, image_features)
        captions, best = batch.constant("captions"), logits.argmax(dim=1)
        is_same = (captions[best] == captions[own]).all(dim=1)
        return logits, torch.where(is_same, best, own)

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """The loss itself."""
        return self.loss(batch, perturbed).total

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """Both terms."""
        return LossTerms.of(**self.terms(batch, self.model.image_features(perturbed["pixels"])))

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep the scale within [1, 100]."""
        self.log_logit_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
