"""Attacks that never look at the deployed logits: without text, or with other texts.

* ``features``: raises ``|f(x + d) - f(x)|_2^2`` of the raw image features: no text at all, the
  attack inside FARE.
* ``captions``: raises the cross-entropy of the image's own caption among other captions: the
  attack inside QT-AFT, but for the other captions, which are drawn from the whole set by the seed
  and not from the batch, so that no verdict depends on neighbours.
* ``prompts``: raises the cross-entropy of the right labels among all, described by other prompts
  than those that the deployed model compares with.

All by APGD's schedule. The attacker does not know the deployed verdict, so only the point of
highest loss of every run is judged, by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.batch import Batch
from robustzs_training.evaluation.attacks.engine import Apgd, Loss
from robustzs_training.evaluation.attacks.view import (
    Gradients,
    differentiable,
    factors_of,
    finite_logits,
    fold_scaled,
    generator_of,
    starting_points,
)
from robustzs_training.evaluation.attacks.white_box import described, package, scaling
from robustzs_training.evaluation.base import Proposal, TensorFunction, Victim

_SALTS = {"features": 20_000, "captions": 21_000, "prompts": 22_000}


def _search(
    name: str, batch: Batch, places: torch.Tensor, run: int, n_steps: int, seed: int,
    outputs_of: TensorFunction, loss: Loss,
) -> None:  # fmt: skip
    """One run of APGD on ``loss`` of ``outputs_of``, judged at its highest point."""
    clean = batch.clean[places]
    gradients = Gradients(len(places), clean.device)

    def watched(pixels: torch.Tensor) -> torch.Tensor:
        gradients.watch(pixels)
        return differentiable(finite_logits(outputs_of, pixels))

    rows = batch.rows_of(places)
    starts = starting_points(clean, batch.threat, seed, rows, run=_SALTS[name] + run)
    attack = Apgd(watched, batch.threat, n_steps, loss, clean.device)
    found = attack.run(clean, torch.zeros_like(places), starts)
    gradients.check(torch.ones_like(places, dtype=torch.bool))
    if found is not None:
        batch.try_out(places, found)


@dataclass(frozen=True, kw_only=True)
class FeatureAttack:
    """Away from the clean image's features, without any text.

    Attributes:
        threat: Norm and radius.
        n_steps: Of every run.
        n_restarts: Runs, each judged.
        seed: Of starting points.
        name: ``features``.
    """

    threat: ThreatModel
    n_steps: int = 100
    n_restarts: int = 1
    seed: int = 0
    name: str = "features"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            n_restarts=self.n_restarts,
            loss="squared distance of raw image features to the clean image's",
            judged="at the highest loss",
            source=f"the schedule of APGD, {package()}",
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch."""
        batch = Batch(victim, pixels, right, rows, self.threat)
        for run in range(self.n_restarts):
            places = batch.standing
            if len(places):
                with torch.no_grad():
                    clean = finite_logits(victim.image_features_of, batch.clean[places])

                def loss(found: torch.Tensor, _: torch.Tensor, clean: torch.Tensor = clean) -> Any:
                    return (found - clean).square().sum(dim=1)

                features_of = victim.image_features_of
                _search(self.name, batch, places, run, self.n_steps, self.seed, features_of, loss)
        return batch.proposal(self.name)


@dataclass(frozen=True, kw_only=True)
class CaptionAttack:
    """Away from the image's own caption.

    Attributes:
        threat: Norm and radius.
        captions: One for each picture of the set, by row; empty where there is none: such an image
            is not attacked.
        n_others: How many other captions it is compared with.
        n_steps: Of every run.
        n_restarts: Runs, each judged.
        seed: Of starting points and of the other captions.
        name: ``captions``.
    """

    threat: ThreatModel
    captions: Sequence[str] = field(repr=False)
    n_others: int = 64
    n_steps: int = 100
    n_restarts: int = 1
    seed: int = 0
    name: str = "captions"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            n_restarts=self.n_restarts,
            n_others=self.n_others,
            n_captions=sum(bool(caption) for caption in self.captions),
            captions_sha256=_digest(self.captions),
            loss="cross-entropy of the own caption among others of the set",
            logits=scaling(True),
            judged="at the highest loss",
            source=f"the schedule of APGD, {package()}",
        )

    def others(self) -> tuple[str, ...]:
        """The captions that every image's own is compared with: drawn from the set by the seed."""
        known = sorted({caption for caption in self.captions if caption})
        order = torch.randperm(len(known), generator=generator_of(self.seed, 0, _SALTS[self.name]))
        return tuple(known[place] for place in order[: self.n_others].tolist())

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch.

        Raises:
            UsageError: Fewer captions than rows, or fewer than two different ones.
        """
        if max(rows, default=0) >= len(self.captions):
            raise UsageError(
                f"row {max(rows)} has no caption: there are {len(self.captions)}",
                hint="give one caption for each picture of the set; it may be empty",
            )
        batch = Batch(victim, pixels, right, rows, self.threat)
        others = self.others()
        if len(others) < 2:
            raise UsageError(
                "all captions are the same text", hint="give each picture a caption of its own"
            )
        captioned = torch.tensor([bool(self.captions[row]) for row in batch.rows])
        for run in range(self.n_restarts):
            places = batch.standing
            places = places[captioned.to(places.device)[places]]
            if len(places):
                own = [self.captions[row] for row in batch.rows_of(places)]
                self._attack(batch, places, run, own, others)
        return batch.proposal(self.name)

    def _attack(
        self, batch: Batch, places: torch.Tensor, run: int, own: list[str], others: tuple[str, ...]
    ) -> None:
        """The own caption comes first; the same text among the others does not count twice."""
        texts = list(dict.fromkeys([*others, *own]))
        logits_for = batch.victim.logits_for(texts)
        same = [[other == caption for other in others] for caption in own]
        mine = torch.tensor([[texts.index(caption)] for caption in own], device=places.device)
        repeated = torch.tensor(same, device=places.device)

        def outputs_of(pixels: torch.Tensor) -> torch.Tensor:
            logits = logits_for(pixels)
            return torch.cat([logits.gather(1, mine), logits[:, : len(others)]], dim=1)

        with torch.no_grad():
            factors = factors_of(finite_logits(outputs_of, batch.clean[places]))[:, None]

        def loss(outputs: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
            rivals = outputs[:, 1:].masked_fill(repeated, -torch.inf)
            seen = torch.cat([outputs[:, :1], rivals], dim=1) * factors
            return F.cross_entropy(seen, first, reduction="none")

        _search(self.name, batch, places, run, self.n_steps, self.seed, outputs_of, loss)


@dataclass(frozen=True, kw_only=True)
class PromptAttack:
    """Away from the right labels, as other prompts describe them.

    Attributes:
        threat: Norm and radius.
        prompts: One for each label, in the order of the deployed ones.
        n_steps: Of every run.
        n_restarts: Runs, each judged.
        seed: Of starting points.
        name: ``prompts``.
    """

    threat: ThreatModel
    prompts: Sequence[str] = field(repr=False)
    n_steps: int = 100
    n_restarts: int = 1
    seed: int = 0
    name: str = "prompts"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            n_restarts=self.n_restarts,
            prompts_sha256=_digest(self.prompts),
            first_prompt=self.prompts[0] if self.prompts else None,
            loss="cross-entropy of the right labels under other prompts",
            logits=scaling(True),
            judged="at the highest loss",
            source=f"the schedule of APGD, {package()}",
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch.

        Raises:
            UsageError: Not one prompt for each label.
        """
        if len(self.prompts) != right.shape[1]:
            raise UsageError(
                f"{len(self.prompts)} prompts for {right.shape[1]} labels",
                hint="give one other prompt for each label, in their order",
            )
        batch = Batch(victim, pixels, right, rows, self.threat)
        outputs_of = victim.logits_for(list(self.prompts))
        for run in range(self.n_restarts):
            places = batch.standing
            if not len(places):
                break
            with torch.no_grad():
                shown = finite_logits(outputs_of, batch.clean[places])
            right_here = batch.right[places]
            factors = factors_of(shown, right_here)

            def loss(
                outputs: torch.Tensor,
                _: torch.Tensor,
                right_here: torch.Tensor = right_here,
                factors: torch.Tensor = factors,
            ) -> torch.Tensor:
                folded, first = fold_scaled(outputs, right_here, factors)
                return F.cross_entropy(folded, first, reduction="none")

            _search(self.name, batch, places, run, self.n_steps, self.seed, outputs_of, loss)
        return batch.proposal(self.name)


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()
