"""Several attacks in sequence, each on what the ones before it left standing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.batch import Batch
from robustzs_training.evaluation.attacks.white_box import described
from robustzs_training.evaluation.base import Attack, Proposal, Victim

Ensemble = Literal["fare", "qt-aft", "standard"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """An ensemble; an image stands if no member breaks it.

    Attributes:
        threat: Norm and radius.
        members: In their order.
        ensemble: Whose choice of members it is.
        binary: Names of the members that attack where there are two labels; the published
            protocols leave those out whose loss needs more.
        seed: Of the members.
        name: ``autoattack``.
    """

    threat: ThreatModel
    members: tuple[Attack, ...]
    ensemble: Ensemble
    binary: tuple[str, ...]
    seed: int = 0
    name: str = "autoattack"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result, of every member."""
        return described(
            self.name,
            self.threat,
            self.seed,
            ensemble=self.ensemble,
            members=[dict(member.protocol) for member in self.members],
            with_two_labels=list(self.binary),
            order="each member attacks what stands",
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch."""
        batch = Batch(victim, pixels, right, rows, self.threat)
        by = [""] * len(batch.rows)
        for member in self.members:
            places = batch.standing
            if not len(places) or (right.shape[1] == 2 and member.name not in self.binary):
                continue
            found = member(victim, batch.clean[places], batch.right[places], batch.rows_of(places))
            batch.settle(places, found.adversarial, found.broken)
            for place, broken in zip(places.tolist(), found.broken.tolist(), strict=True):
                by[place] = member.name if broken else ""
        # What was wrong before any attack has no member to thank.
        names = tuple(
            name or (self.name if broken else "")
            for name, broken in zip(by, batch.broken.tolist(), strict=True)
        )
        return Proposal(adversarial=batch.adversarial, broken=batch.broken, broken_by=names)
