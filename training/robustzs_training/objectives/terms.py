"""Terms that several objectives share, as functions of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from robustzs.errors import UsageError
from robustzs_training.processes import world_size

Reduction = Literal["batchmean", "sum"]


def widen(features: torch.Tensor) -> torch.Tensor:
    """``features`` in float32, or as they are if they are float64."""
    return features if features.dtype == torch.float64 else features.float()


def squared_distance(features: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """``mean_i |features_i - reference_i|^2`` of ``[B, D]``: summed over D, averaged over B.

    Not divided by D, as in FARE and QT-AFT.
    """
    return (widen(features) - widen(reference)).square().sum(dim=1).mean()


def cosine_logits(
    image_features: torch.Tensor, classes: torch.Tensor, logit_scale: torch.Tensor | float
) -> torch.Tensor:
    """``logit_scale * cos(image, class)``: ``[B, C]``, float32 or wider even under autocast.

    Half precision would round logits of 100 to steps of a half (bfloat16).

    Args:
        image_features: ``[B, D]``, raw or normalised.
        classes: ``[C, D]``, raw or normalised.
        logit_scale: The factor itself, exponential taken.
    """
    with torch.autocast(image_features.device.type, enabled=False):
        unit = F.normalize(widen(image_features), dim=-1)
        return logit_scale * unit @ F.normalize(widen(classes), dim=-1).to(unit).T


def kl_divergence(
    target_logits: torch.Tensor, logits: torch.Tensor, reduction: Reduction
) -> torch.Tensor:
    """``KL(softmax(target_logits) || softmax(logits))`` of ``[B, C]``, differentiable in both.

    ``sum`` is the sum over the batch of all processes: each contributes its share times their
    number, so that the mean over processes is that sum.
    """
    log_p, log_q = target_logits.log_softmax(dim=1), logits.log_softmax(dim=1)
    per_image = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return per_image.mean() if reduction == "batchmean" else per_image.sum() * world_size()


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse an option that is not ``allowed``.

    Raises:
        UsageError: It is not.
    """
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}", hint=f"choose {' or '.join(allowed)}")


def check_classes(classes: torch.Tensor, embed_dim: int | None = None) -> torch.Tensor:
    """Unit rows of ``classes`` ``[C, D]``, detached.

    Raises:
        UsageError: Fewer than two classes, another shape, or a row of zeros or NaN.
    """
    if classes.ndim != 2 or len(classes) < 2 or embed_dim not in (None, classes.shape[1]):
        raise UsageError(
            f"class features have shape {list(classes.shape)}",
            hint="give [classes, embed_dim] with at least two classes",
        )
    lengths = classes.norm(dim=1)
    if not bool((lengths > 0).all() and lengths.isfinite().all()):
        raise UsageError("a class feature is zero or not finite", hint="encode the prompts again")
    return F.normalize(classes.detach().float(), dim=-1)
