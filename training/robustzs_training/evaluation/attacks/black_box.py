"""Attacks of ``pyautoattack`` that are not APGD: Square, by scores alone, and FAB.

Square draws its squares from the seed alone and shows the same to every image, as it does inside
one batch anyway; so neither batch nor order decides a verdict. The targeted FAB has no randomness
in its first run, and more are not offered.

Sources: M. Andriushchenko et al., "Square Attack", ECCV 2020; F. Croce, M. Hein, "Minimally
distorted adversarial examples with a fast adaptive boundary attack", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack as PackagedSquare

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.batch import Batch
from robustzs_training.evaluation.attacks.view import (
    finite_logits,
    fold,
)
from robustzs_training.evaluation.attacks.white_box import described, package
from robustzs_training.evaluation.base import Proposal, Victim

_SMALLEST_L2 = 15  # its first pattern is five tiles wide, and a tile is at least three pixels


class _Square(PackagedSquare):
    """Square whose draws do not depend on how many images there are."""

    def random_choice(self, shape: Sequence[int]) -> torch.Tensor:
        if len(shape) < 4:
            return super().random_choice(shape)
        return super().random_choice([1, *shape[1:]]).expand(*shape).clone()


@dataclass(frozen=True, kw_only=True)
class SquareAttack:
    """Square: margins only, no gradients.

    Attributes:
        threat: Norm and radius.
        n_queries: Looks at the model, in each restart.
        n_restarts: Runs.
        seed: Of the squares.
        name: ``square``.
    """

    threat: ThreatModel
    n_queries: int = 5000
    n_restarts: int = 1
    seed: int = 0
    name: str = "square"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_queries=self.n_queries,
            n_restarts=self.n_restarts,
            loss="margin",
            p_init=0.8,
            several_right="maximum",
            randomness="from the seed, the same for all images",
            source=package(),
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch; the victim need not have gradients."""
        if self.threat.norm == "L2" and min(pixels.shape[2:]) < _SMALLEST_L2:
            raise UsageError(
                f"Square in L2 on images of {list(pixels.shape[2:])}",
                hint=f"it needs at least {_SMALLEST_L2} pixels on each side",
            )
        batch = Batch(victim, pixels, right, rows, self.threat)
        for run in range(self.n_restarts):
            places = batch.standing
            if len(places):
                batch.try_out(places, self._attack(batch, places, run))
        return batch.proposal(self.name)

    def _attack(self, batch: Batch, places: torch.Tensor, run: int) -> torch.Tensor:
        shown = _Shown(batch, places)
        attack = _Square(
            shown,
            norm=self.threat.norm,
            n_queries=self.n_queries,
            eps=self.threat.eps,
            device=batch.clean.device,
        )
        clean = batch.clean[places]
        attack.init_hyperparam(clean)
        devices = [clean.device] if clean.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.default_generator.manual_seed((self.seed * 1_000_003 + run) % 2**63)
            found: torch.Tensor = attack.attack_single_run(clean, shown.first)[1]
        return found


class _Shown:
    """Folded logits of some of a batch's images; finds out which, when only some are shown.

    Square leaves out images that are broken, keeping the order of the others. Which they are
    follows from the margins that it was given, so it is worked out in the same way.
    """

    def __init__(self, batch: Batch, places: torch.Tensor) -> None:
        self.logits_of = batch.victim.logits_of
        self.right = batch.right[places]
        self.first = self.right.int().argmax(dim=1)
        self.standing = torch.arange(len(places), device=self.right.device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        standing = self.standing
        folded, first = fold(finite_logits(self.logits_of, pixels), self.right[standing], "top")
        rival = folded.scatter(1, first[:, None], -torch.inf).amax(dim=1)
        own = folded.gather(1, first[:, None]).squeeze(1)
        self.standing = standing[own > rival]
        return folded.clone()


@dataclass(frozen=True, kw_only=True)
class FabAttack:
    """Targeted FAB: the nearest point beyond the boundary, kept if it is within the radius.

    Attributes:
        threat: Norm and radius.
        n_steps: For every target.
        n_targets: The most likely wrong classes, or all where there are fewer.
        seed: For the protocol; nothing is drawn.
        name: ``fab-t``.
    """

    threat: ThreatModel
    n_steps: int = 100
    n_targets: int = 9
    seed: int = 0
    name: str = "fab-t"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            n_restarts=1,
            n_targets=self.n_targets,
            several_right="maximum",
            source=package(),
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch."""
        batch = Batch(victim, pixels, right, rows, self.threat)
        n_wrong = (~batch.right).sum(dim=1)
        for rank in range(1, min(self.n_targets, int(n_wrong.max())) + 1):
            places = batch.standing
            places = places[n_wrong[places] >= rank]
            if len(places):
                batch.try_out(places, self._attack(batch, places, rank))
        return batch.proposal(self.name)

    def _attack(self, batch: Batch, places: torch.Tensor, rank: int) -> torch.Tensor:
        right, factors = batch.right[places], batch.factors[places]
        first = right.int().argmax(dim=1)

        def logits_of(pixels: torch.Tensor) -> torch.Tensor:
            folded, _ = fold(finite_logits(batch.victim.logits_of, pixels), right, "top")
            return folded * factors[:, None]

        clean = batch.clean[places]
        attack = FABAttack_PT(
            logits_of,
            norm=self.threat.norm,
            n_iter=self.n_steps,
            eps=self.threat.eps,
            targeted=True,
            device=clean.device,
        )
        attack.target_class = rank + 1
        found: torch.Tensor = attack.attack_single_run(clean, first, is_targeted=True)
        delta = (found - clean).flatten(1)
        size = delta.abs().amax(dim=1) if self.threat.norm == "Linf" else delta.norm(dim=1)
        near = (size <= self.threat.eps).view(-1, 1, 1, 1)
        return torch.where(near, found, clean).detach()
