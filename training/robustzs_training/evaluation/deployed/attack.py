"""The attack on a deployed precision: each picture's worst of three.

(a) APGD on the differentiable twin of this very precision. (b) Images made on the float32 model,
replayed. (c) Square on the deployed graph, by scores alone. All are rounded to bytes within the
ball, and the deployed graph alone judges. The direct attack comes first, and the others try what it
left standing: how many these break says whether the twin is any good.

Attacks stop at the first image that breaks the model they see, which lies just behind the boundary
and often breaks nothing else. So where such an image does not break the deployed graph, the image
of highest loss on the same model is tried, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.engine import Apgd
from robustzs_training.evaluation.attacks.view import (
    factors_of,
    finite_logits,
    fold_scaled,
    judge,
    starting_points,
)
from robustzs_training.evaluation.attacks.white_box import described, package
from robustzs_training.evaluation.base import Attack, Proposal, Victim
from robustzs_training.evaluation.deployed.grid import (
    N_REPAIRS,
    GridReport,
    check_on_grid,
    project,
    search_grid,
)
from robustzs_training.evaluation.eight_bit import on_the_grid, whole_levels

WORST = "deployed-worst"
TRANSFER = "deployed-transfer"
REPLAYED = " replayed"
"""Behind an attack's name where it broke a picture by images made on the float32 model."""
_SALT = 90_000  # of starting points, apart from those of other attacks


@dataclass
class Tally:
    """What the parts of an attack did; grows from batch to batch.

    Attributes:
        grid: What rounding did to images that broke the float32 model, judged on that model.
        broken: Pictures broken by each part.
    """

    grid: GridReport = field(default_factory=GridReport)
    broken: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeployedAttack:
    """An attack whose victim is a score oracle: a deployed graph.

    Attributes:
        threat: Norm and radius.
        parent: The float32 torch model; ``None``: nothing is replayed.
        replayed: Attacks on it.
        twin: White box of this precision; ``None``: there is none.
        on_twin: Attacks on it.
        by_scores: On the deployed graph; ``None``: not asked for.
        n_steps: Towards the highest loss; 0 leaves that out.
        eight_bit: Show the deployed graph whole 255ths only.
        n_repairs: Roundings beside the nearest.
        seed: Of all randomness.
        tally: Of what happened; no part of the protocol.
    """

    threat: ThreatModel
    parent: Victim | None = None
    replayed: tuple[Attack, ...] = ()
    twin: Victim | None = None
    on_twin: tuple[Attack, ...] = ()
    by_scores: Attack | None = None
    n_steps: int = 100
    eight_bit: bool = True
    n_repairs: int = N_REPAIRS
    seed: int = 0
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def transfer_only(self) -> bool:
        """Whether a part is missing, so that the number is an upper bound that says little."""
        replayed = self.parent is not None and bool(self.replayed)
        white_box = self.twin is not None and bool(self.on_twin)
        return not (replayed and white_box and self.by_scores is not None)

    @property
    def name(self) -> str:
        """:data:`WORST`, or :data:`TRANSFER` where a part is missing."""
        return TRANSFER if self.transfer_only else WORST

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        members: list[dict[str, Any]] = []
        if self.twin is not None:
            members += [{**attack.protocol, "on": "twin"} for attack in self.on_twin]
        if self.parent is not None:
            members += [{**attack.protocol, "on": "float32 torch"} for attack in self.replayed]
        if self.by_scores is not None:
            members.append({**self.by_scores.protocol, "on": "deployed graph"})
        return described(
            self.name,
            self.threat,
            self.seed,
            members=members,
            highest_loss_steps=self.n_steps,
            eight_bit=self.eight_bit,
            roundings=1 + self.n_repairs if self.eight_bit else 0,
            source=package(),
        )

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch.

        Raises:
            UsageError: With ``eight_bit``: pictures that are not of whole 255ths, or a radius
                (``Linf``) below 1/255.
        """
        if self.eight_bit:
            check_on_grid(pixels)
            if self.threat.norm == "Linf":
                whole_levels(self.threat)
        batch = _Batch(victim, pixels, right, rows)
        if self.twin is not None:
            for attack in self.on_twin:
                self._through(batch, attack, self._seen(self.twin), f"{attack.name} on twin")
        if self.parent is not None:
            for attack in self.replayed:
                self._through(batch, attack, self.parent, f"{attack.name}{REPLAYED}", replay=True)
        places = batch.standing
        if self.by_scores is not None and len(places):
            parts = batch.parts(places)
            found = self.by_scores(self._seen(victim), *parts)
            self._show(batch, places, found.adversarial, self.by_scores.name)
        return batch.proposal()

    def _seen(self, victim: Victim) -> Victim:
        return on_the_grid(victim) if self.eight_bit and self.threat.norm == "Linf" else victim

    def _through(
        self, batch: _Batch, attack: Attack, model: Victim, name: str, *, replay: bool = False
    ) -> None:
        """Attack another model; what is found, and then what is worst there, is shown."""
        places = batch.standing
        if not len(places):
            return
        pixels, right, rows = batch.parts(places)
        found = attack(model, pixels, right, rows)
        if replay and self.eight_bit:
            _, report = project(
                found, model, pixels, right, rows, self.threat,
                seed=self.seed, n_repairs=self.n_repairs,
            )  # fmt: skip
            self.tally.grid += report
        self._show(batch, places, found.adversarial, name)
        places = batch.standing
        if len(places) and self.n_steps:
            pixels, right, rows = batch.parts(places)
            worst = highest_loss(
                model, pixels, right, rows, self.threat, n_steps=self.n_steps, seed=self.seed
            )
            self._show(batch, places, worst, name)

    def _show(self, batch: _Batch, places: torch.Tensor, found: torch.Tensor, name: str) -> None:
        found = found.to(batch.pixels.device)
        pixels, right, rows = batch.parts(places)
        if self.eight_bit:
            shown, _, broken = search_grid(
                found, pixels, right, rows, batch.victim.logits_of, self.threat,
                seed=self.seed, n_repairs=self.n_repairs,
            )  # fmt: skip
        else:
            with torch.no_grad():
                shown, broken = found, ~judge(batch.victim.logits_of(found), right)
        batch.take(places, shown, broken, name)
        self.tally.broken[name] = self.tally.broken.get(name, 0) + int(broken.sum())


class _Batch:
    """Pictures, and which of them stand on the deployed graph."""

    def __init__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> None:
        self.victim = victim
        self.pixels = pixels.to(victim.device)
        self.right = right.to(victim.device)
        self.rows = [int(row) for row in rows]
        with torch.no_grad():
            self.broken = ~judge(victim.logits_of(self.pixels), self.right)
        self.adversarial = self.pixels.clone()
        self.by = [""] * len(self.rows)

    @property
    def standing(self) -> torch.Tensor:
        unbreakable = self.right.all(dim=1)
        return (~self.broken & ~unbreakable).nonzero().flatten()

    def parts(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        rows = [self.rows[place] for place in places.tolist()]
        return self.pixels[places], self.right[places], rows

    def take(
        self, places: torch.Tensor, shown: torch.Tensor, broken: torch.Tensor, name: str
    ) -> None:
        self.adversarial[places] = shown
        self.broken[places] = broken
        for place, hit in zip(places.tolist(), broken.tolist(), strict=True):
            if hit:
                self.by[place] = name

    def proposal(self) -> Proposal:
        return Proposal(adversarial=self.adversarial, broken=self.broken, broken_by=tuple(self.by))


def highest_loss(
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    rows: Sequence[int],
    threat: ThreatModel,
    *,
    n_steps: int,
    seed: int = 0,
) -> torch.Tensor:
    """The image of highest cross-entropy that APGD finds for each picture, broken or not.

    Args:
        victim: White box.
        pixels: float32 ``[B, 3, H, W]``.
        right: bool ``[B, C]``.
        rows: Places in the set.
        threat: Norm and radius.
        n_steps: Of APGD.
        seed: Of starting points.
    """
    clean, right = pixels.to(victim.device), right.to(victim.device)
    with torch.no_grad():
        factors = factors_of(finite_logits(victim.logits_of, clean), right)

    def seen(shown: torch.Tensor) -> torch.Tensor:
        return fold_scaled(finite_logits(victim.logits_of, shown), right, factors)[0]

    starts = starting_points(clean, threat, seed, list(rows), run=_SALT)
    first = right.int().argmax(dim=1)
    found = Apgd(seen, threat, n_steps, "ce", clean.device).run(clean, first, starts)
    return clean if found is None else found
