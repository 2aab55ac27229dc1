"""APGD on the deployed logits: cross-entropy, difference of logits ratio, targeted ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch

from robustzs.threat import ThreatModel, format_size
from robustzs_training.evaluation.attacks.batch import Batch
from robustzs_training.evaluation.attacks.engine import run_watched
from robustzs_training.evaluation.attacks.view import GAP, Watch, fold, starting_points
from robustzs_training.evaluation.base import Proposal, Victim

ApgdName = Literal["apgd-ce", "apgd-dlr", "apgd-t"]
_LOSSES: dict[ApgdName, str] = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}
_FEWER = {
    "apgd-ce": None,
    "apgd-dlr": "the margin alone where fewer than 3 classes are left: the ratio needs 3",
    "apgd-t": "the margin alone where fewer than 4 classes are left: the ratio needs 4",
}


def described(name: str, threat: ThreatModel, seed: int, **more: Any) -> dict[str, Any]:
    """What every attack's protocol says."""
    return {
        "attack": name,
        "norm": threat.norm,
        "eps": format_size(threat.eps),
        "seed": seed,
        **more,
    }


def package() -> str:
    """The package that attacks come from, with its version."""
    return f"pyautoattack {version('pyautoattack')}"


def scaling(rescale: bool) -> str:
    """How attacks see logits, in words."""
    return f"scaled for each image to a gap of {GAP:g}" if rescale else "as deployed"


@dataclass(frozen=True, kw_only=True)
class ApgdAttack:
    """APGD, in one of three forms.

    Attributes:
        name: Which.
        threat: Norm and radius.
        n_steps: Of every run.
        n_restarts: Runs, each from noise of its own; of every target for ``apgd-t``.
        n_targets: The most likely wrong classes of the clean image, for ``apgd-t``; all of them
            where there are fewer.
        seed: Of starting points.
        rescale: Whether the attack sees logits scaled to one gap: without it cross-entropy has no
            gradient where logits are large.
    """

    name: ApgdName
    threat: ThreatModel
    n_steps: int = 100
    n_restarts: int = 1
    n_targets: int = 9
    seed: int = 0
    rescale: bool = True

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        targeted = {"n_targets": self.n_targets} if self.name == "apgd-t" else {}
        return described(
            self.name,
            self.threat,
            self.seed,
            n_steps=self.n_steps,
            n_restarts=self.n_restarts,
            **targeted,
            loss=_LOSSES[self.name],
            substitute=_FEWER[self.name],
            logits=scaling(self.rescale),
            several_right="the logsumexp of their logits as deployed is one logit; then scaled",
            source=package(),
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch."""
        batch = Batch(victim, pixels, right, rows, self.threat, rescale=self.rescale)
        for run, target in self._runs(batch):
            places = batch.standing
            if target is not None:
                places = places[target[places] >= 0]
            if len(places):
                self._attack(batch, places, run, None if target is None else target[places])
        return batch.proposal(self.name)

    def _runs(self, batch: Batch) -> Iterator[tuple[int, torch.Tensor | None]]:
        """Number and targets ``[B]`` of each run; a target is -1 where a class is missing."""
        if self.name != "apgd-t":
            yield from ((run, None) for run in range(self.n_restarts))
            return
        folded, _ = fold(batch.logits, batch.right)
        ranked, order = folded.sort(dim=1, descending=True)
        for rank in range(1, min(self.n_targets, folded.shape[1] - 1) + 1):
            # As in AutoAttack: the largest logit is taken to be the right one.
            target = torch.where(ranked[:, rank].isfinite(), order[:, rank], -1)
            for restart in range(self.n_restarts):
                yield (rank - 1) * self.n_restarts + restart, target

    def _attack(
        self, batch: Batch, places: torch.Tensor, run: int, targets: torch.Tensor | None
    ) -> None:
        clean = batch.clean[places]
        salt = list(_LOSSES).index(self.name) * 1000
        starts = starting_points(
            clean, self.threat, self.seed, batch.rows_of(places), run=salt + run
        )
        watch = run_watched(
            Watch(batch.victim.logits_of, batch.right[places], batch.factors[places]),
            clean,
            starts,
            threat=self.threat,
            n_steps=self.n_steps,
            loss=_LOSSES[self.name],
            targets=targets,
        )
        watch.check()
        if watch.found is not None:
            batch.settle(places, watch.found, watch.broken)
