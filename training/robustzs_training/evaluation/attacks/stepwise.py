"""PGD of our own training, on the deployed logits: reported, never the verdict.

``pgd`` raises the cross-entropy. ``cw`` raises the margin, the largest wrong logit minus the
largest right one: Carlini and Wagner's sixth objective by projected gradient, which is what "CW"
means in Madry et al. (2018) and in QT-AFT's evaluation. Their confidence of 50 is left away: logits
of scale 100 do not reach it, and a clipped margin would have no gradient. It is not the search for
the smallest L2 perturbation. Both judge the last step only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F

from robustzs.threat import AttackConfig, ThreatModel, format_size
from robustzs_training.attacks import PerturbedInput, pgd
from robustzs_training.evaluation.attacks.batch import Batch
from robustzs_training.evaluation.attacks.view import (
    Fold,
    Gradients,
    differentiable,
    finite_logits,
    fold_scaled,
    starting_points,
)
from robustzs_training.evaluation.attacks.white_box import described, scaling
from robustzs_training.evaluation.base import Proposal, Victim

MOMENTUM = 0.9
"""Of our training's PGD."""
_SALT = {"pgd": 10_000, "cw": 11_000}


@dataclass(frozen=True, kw_only=True)
class PgdAttack:
    """Steps of one size from noise.

    Attributes:
        name: The loss, see above.
        threat: Norm and radius.
        n_steps: How many.
        step_size: In pixels in [0, 1]; ``None``: a quarter of the radius, as 1/255 at 4/255.
        n_restarts: Runs, each judged.
        momentum: Share of the last direction; 0.9 where FARE and QT-AFT train, none where QT-AFT
            and TeCoA measure.
        seed: Of starting points.
        rescale: As in ``ApgdAttack``.
    """

    name: Literal["pgd", "cw"]
    threat: ThreatModel
    n_steps: int = 10
    step_size: float | None = None
    n_restarts: int = 1
    momentum: float = MOMENTUM
    seed: int = 0
    rescale: bool = True

    @property
    def _step_size(self) -> float:
        return self.threat.eps / 4.0 if self.step_size is None else self.step_size

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            step_size=format_size(self._step_size),
            n_restarts=self.n_restarts,
            momentum=self.momentum,
            loss="ce" if self.name == "pgd" else "margin",
            logits=scaling(self.rescale),
            several_right="logsumexp of their logits as deployed"
            if self.name == "pgd"
            else "maximum",
            source="robustzs_training.attacks.pgd",
            note="the attack of training, never the verdict",
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch."""
        batch = Batch(victim, pixels, right, rows, self.threat, rescale=self.rescale)
        for run in range(self.n_restarts):
            places = batch.standing
            if len(places):
                batch.try_out(places, self._attack(batch, places, run))
        return batch.proposal(self.name)

    def _attack(self, batch: Batch, places: torch.Tensor, run: int) -> torch.Tensor:
        clean, right, factors = batch.clean[places], batch.right[places], batch.factors[places]
        gradients = Gradients(len(places), clean.device)

        def loss(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            gradients.watch(inputs["pixels"])
            logits = differentiable(finite_logits(batch.victim.logits_of, inputs["pixels"]))
            how: Fold = "mass" if self.name == "pgd" else "top"
            folded, first = fold_scaled(logits, right, factors, how)
            if self.name == "pgd":
                return F.cross_entropy(folded, first, reduction="sum")
            rival = folded.scatter(1, first[:, None], -torch.inf).amax(dim=1)
            return (rival - folded.gather(1, first[:, None]).squeeze(1)).sum()

        salt = _SALT[self.name] + run
        rows = batch.rows_of(places)
        starts = starting_points(clean, self.threat, self.seed, rows, run=salt)
        config = AttackConfig(
            n_steps=self.n_steps,
            step_size=self._step_size,
            momentum=self.momentum,
            start="none",
        )
        # A row's noise must not depend on its neighbours, so it is drawn here.
        given = PerturbedInput(clean=clean, threat=self.threat, first=starts)
        found = pgd(loss, {"pixels": given}, config)["pixels"]
        if self.n_steps:
            gradients.check(torch.ones(len(places), dtype=torch.bool, device=clean.device))
        return found
