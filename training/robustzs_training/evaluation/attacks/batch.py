"""A batch under attack: what still stands, and the images that broke the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.view import (
    check_bounds,
    check_pixels,
    factors_of,
    finite_logits,
    judge,
)
from robustzs_training.evaluation.base import Proposal, Victim


class Batch:
    """Images, what is right for them, and the state of an attack on them.

    Images that are wrong before any attack count as broken from the start, by themselves. Images
    for which every label is right cannot be broken and are not attacked.

    Attributes:
        clean: float32 ``[B, 3, H, W]`` on the victim's device.
        right: bool ``[B, C]`` there.
        rows: Places in the set.
        logits: Clean ones, as deployed ``[B, C]``.
        factors: ``[B]``: what attacks multiply logits by.
        standing: int64, places in the batch that an attack should try.

    Args:
        victim: The model.
        pixels: float32 ``[B, 3, H, W]`` in [0, 1].
        right: bool ``[B, C]``.
        rows: Places in the set, ``B`` of them.
        threat: What every perturbation is held against.
        rescale: Whether attacks see logits scaled to one gap per image, or as deployed.

    Raises:
        UsageError: Inputs of another kind.
        UntrustworthyResultError: Logits that are not finite, or all equal.
    """

    def __init__(
        self,
        victim: Victim,
        pixels: torch.Tensor,
        right: torch.Tensor,
        rows: Sequence[int],
        threat: ThreatModel,
        *,
        rescale: bool = True,
    ) -> None:
        check_pixels(pixels)
        self.victim = victim
        self.threat = threat
        self.clean = pixels.to(victim.device).contiguous()
        self.right = right.to(victim.device)
        self.rows = [int(row) for row in rows]
        with torch.no_grad():
            self.logits = finite_logits(victim.logits_of, self.clean)
        self._check()
        self.factors = factors_of(self.logits, self.right)
        if not rescale:
            self.factors = torch.ones_like(self.factors)
        self.adversarial = self.clean.clone()
        self.broken = ~judge(self.logits, self.right)
        self._unbreakable = self.right.all(dim=1)

    def _check(self) -> None:
        wanted = (len(self.rows), self.logits.shape[1])
        if self.right.dtype != torch.bool or tuple(self.right.shape) != wanted:
            raise UsageError(
                f"right is {self.right.dtype} {list(self.right.shape)} for {len(self.rows)} rows "
                f"and {self.logits.shape[1]} labels",
                hint="give bool [B, C]: which labels are right for each image",
            )
        if len(self.clean) != len(self.rows) or not bool(self.right.any(dim=1).all()):
            raise UsageError(
                f"{len(self.clean)} images, {len(self.rows)} rows, "
                f"{int((~self.right.any(dim=1)).sum())} images without a right label",
                hint="give one row of the set and at least one right label for each image",
            )

    @property
    def standing(self) -> torch.Tensor:
        """Places in the batch that stand and can be broken."""
        return (~self.broken & ~self._unbreakable).nonzero().flatten()

    def rows_of(self, places: torch.Tensor) -> list[int]:
        """Rows of the set at these places of the batch."""
        return [self.rows[place] for place in places.tolist()]

    def settle(self, places: torch.Tensor, found: torch.Tensor, broken: torch.Tensor) -> None:
        """Take what an attack found.

        Args:
            places: int64 ``[b]``: which images.
            found: ``[b, 3, H, W]``: what it shows instead, held against the threat model.
            broken: bool ``[b]``: which of these are wrong.

        Raises:
            EvaluationError: A perturbation is larger than allowed.
        """
        check_bounds(self.clean[places], found, self.threat)
        self.adversarial[places] = found.detach()
        self.broken[places] = broken

    def try_out(self, places: torch.Tensor, found: torch.Tensor) -> None:
        """Take what an attack found without looking, and judge it."""
        with torch.no_grad():
            logits = finite_logits(self.victim.logits_of, found)
        self.settle(places, found, ~judge(logits, self.right[places]))

    def proposal(self, by: str) -> Proposal:
        """What was found."""
        names = tuple(by if broken else "" for broken in self.broken.tolist())
        return Proposal(adversarial=self.adversarial, broken=self.broken, broken_by=names)
