"""One run of APGD from given starting points, on any loss: ``pyautoattack``'s, step for step.

Losses of ``[B, C]`` outputs, one value per image, to be raised:

* ``ce``: cross-entropy.
* ``dlr``: the difference of logits ratio, ``-(z_y - max_{j != y} z_j) / (z_1st - z_3rd)``.
* ``dlr-targeted``: ``-(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2)``.

The ratios need 3 and 4 classes. An image with fewer (after folding) gets the numerator alone, the
margin: the divisor only makes the ratio free of the logits' scale, which signs and normalised
gradients are anyway.

Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import cast

import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch.nn import functional as F

from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.view import Enough, Watch
from robustzs_training.evaluation.base import TensorFunction

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs ``[B, C]`` and places of what is right ``[B]`` -> ``[B]``, to be raised."""


class Apgd(APGDAttack_targeted):
    """APGD on a given loss, or on one of its own, whose names are as above.

    Args:
        model: ``pixels`` -> outputs ``[B, C]``.
        threat: Norm and radius.
        n_steps: How many.
        loss: A function, or a name.
        device: Where pixels are.
        targets: int64 ``[B]``, for ``dlr-targeted``.
    """

    def __init__(
        self,
        model: TensorFunction,
        threat: ThreatModel,
        n_steps: int,
        loss: str | Loss,
        device: torch.device,
        *,
        targets: torch.Tensor | None = None,
    ) -> None:
        super().__init__(
            model, n_iter=n_steps, norm=threat.norm, n_restarts=1, eps=threat.eps, device=device
        )
        own: dict[str, Loss] = {
            "ce": lambda outputs, right: F.cross_entropy(outputs, right, reduction="none"),
            "dlr": self._ratio,
            "dlr-targeted": self._targeted_ratio,
        }
        self.y_target = targets
        self.chosen = own[loss] if isinstance(loss, str) else loss
        self.loss = "ce-targeted"  # the name of the loss that is overridden below

    def ce_loss_targeted(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss that was chosen."""
        return self.chosen(x, y)

    def _ratio(self, logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        rival = logits.scatter(1, right[:, None], -torch.inf).amax(dim=1)
        margin = rival - logits.gather(1, right[:, None]).squeeze(1)
        return _where_enough(
            logits, 3, lambda whole: APGDAttack.dlr_loss(self, whole, right), margin
        )

    def _targeted_ratio(self, logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        target = cast(torch.Tensor, self.y_target)
        margin = (logits.gather(1, target[:, None]) - logits.gather(1, right[:, None])).squeeze(1)
        return _where_enough(logits, 4, lambda whole: self.dlr_loss_targeted(whole, right), margin)

    def run(
        self, clean: torch.Tensor, right: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor | None:
        """Attack ``clean`` ``[B, 3, H, W]`` from ``starts``.

        Returns:
            For each image the point of highest loss; ``None`` if the model said that it is enough.
        """
        devices = [clean.device] if clean.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), contextlib.suppress(Enough):
            self.init_hyperparam(clean)
            # perturb() would decide again which images to attack; rounding must not.
            highest = self.attack_single_run(clean, right, x_init=starts)[0]
            return cast(torch.Tensor, highest).detach()
        return None


def _where_enough(
    logits: torch.Tensor, n_classes: int, ratio: TensorFunction, margin: torch.Tensor
) -> torch.Tensor:
    if logits.shape[1] < n_classes:
        return margin
    enough = logits.isfinite().sum(dim=1) >= n_classes
    if bool(enough.all()):
        return ratio(logits)
    # Rows with too few are kept out of the ratio: its gradient there would not be finite.
    kept = torch.where(enough[:, None], logits, torch.zeros_like(logits))
    return torch.where(enough, ratio(kept), margin)


def run_watched(
    watch: Watch,
    clean: torch.Tensor,
    starts: torch.Tensor,
    *,
    threat: ThreatModel,
    n_steps: int,
    loss: str = "ce",
    targets: torch.Tensor | None = None,
) -> Watch:
    """One run on watched logits, ended as soon as all images are broken; returns ``watch``."""
    attack = Apgd(watch, threat, n_steps, loss, clean.device, targets=targets)
    attack.run(clean, watch.labels, starts)
    return watch
