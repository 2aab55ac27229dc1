"""Attacks for 8-bit pixels: what is sent to a service is a picture of whole 255ths.

Rounding a perturbed image can put it outside the ball and can undo the attack. Here it never does
the first: every value is a whole 255th within the ball around the clean image. Against the second
there are two ways: an attack that sees the rounded image in the first place (gradients pass the
rounding as if it were not there), and a small search among roundings of what an attack found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel, format_size
from robustzs_training.evaluation.attacks.view import judge
from robustzs_training.evaluation.base import Attack, Proposal, Victim
from robustzs_training.evaluation.eight_bit import on_the_grid, whole_levels

Judge = Callable[[torch.Tensor], torch.Tensor]
"""``pixels`` ``[B, 3, H, W]`` -> logits ``[B, C]``, as deployed; called with single images, too."""

N_REPAIRS = 8
_LEVELS = 255.0
_SLACK = 1e-3  # of a 255th: float32 rounding of k/255 is 1e-5 of one


def is_on_grid(pixels: torch.Tensor) -> bool:
    """Whether all values are whole 255ths, up to the rounding of float32."""
    levels = pixels.double() * _LEVELS
    return bool(((levels - levels.round()).abs() <= _SLACK).all())


def from_grid(image: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    """Bytes as pixels in [0, 1], as the preprocessing of a bundle makes them."""
    values = torch.as_tensor(image)
    return values.float() / _LEVELS


def to_grid(
    adversarial: torch.Tensor, clean: torch.Tensor, eps: float, *, norm: str = "Linf"
) -> npt.NDArray[np.uint8]:
    """Round perturbed images to bytes without leaving the ball.

    ``Linf``: each value becomes the nearest whole 255th within ``eps`` of its clean value; around
    an 8-bit image that is ``eps`` rounded down to 255ths. ``L2``: the nearest ones if the image
    stays within ``eps``, else those next to them on the clean image's side.

    Args:
        adversarial: ``[B, 3, H, W]`` in [0, 1].
        clean: Likewise. For ``L2`` whole 255ths.
        eps: In units of pixels in [0, 1].
        norm: ``Linf`` or ``L2``.

    Returns:
        uint8 of the same shape.

    Raises:
        UsageError: Shapes that differ, or no byte lies within ``eps`` of some clean value.
    """
    if adversarial.shape != clean.shape:
        raise UsageError(
            f"perturbed images are {list(adversarial.shape)}, clean ones {list(clean.shape)}",
            hint="give the clean image of each",
        )
    wanted = adversarial.detach().double().cpu() * _LEVELS
    origin = clean.detach().double().cpu() * _LEVELS
    if norm == "L2":
        return _within_l2(wanted, origin, eps)
    low = (origin - eps * _LEVELS - _SLACK).ceil().clamp(0.0, _LEVELS)
    high = (origin + eps * _LEVELS + _SLACK).floor().clamp(0.0, _LEVELS)
    if bool((low > high).any()):
        raise UsageError(
            f"no whole 255th lies within eps {format_size(eps)} of some clean pixels",
            hint="start from 8-bit pictures, or use at least 1/255",
        )
    return _bytes(torch.minimum(torch.maximum(wanted.round(), low), high))


def _within_l2(wanted: torch.Tensor, origin: torch.Tensor, eps: float) -> npt.NDArray[np.uint8]:
    if bool(((origin - origin.round()).abs() > _SLACK).any()):
        raise UsageError(
            "the clean images are not of whole 255ths", hint="start from 8-bit pictures"
        )
    origin = origin.round()
    delta = wanted - origin
    nearest = (origin + delta.round()).clamp(0.0, _LEVELS)
    size = (nearest - origin).flatten(1).norm(dim=1).view(-1, *[1] * (origin.ndim - 1))
    inner = (origin + delta.trunc()).clamp(0.0, _LEVELS)
    return _bytes(torch.where(size <= eps * _LEVELS, nearest, inner))


def _bytes(levels: torch.Tensor) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(levels.round().to(torch.uint8).numpy())


# ---- rounding what an attack found ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GridReport:
    """What rounding did to images that an attack had broken.

    Attributes:
        n_broken: Before.
        n_nearest: Of these still broken when rounded to the nearest bytes in the ball.
        n_repaired: Of the others broken by another rounding.
    """

    n_broken: int = 0
    n_nearest: int = 0
    n_repaired: int = 0

    def __add__(self, other: GridReport) -> GridReport:
        """Of two batches."""
        return GridReport(
            n_broken=self.n_broken + other.n_broken,
            n_nearest=self.n_nearest + other.n_nearest,
            n_repaired=self.n_repaired + other.n_repaired,
        )

    @property
    def survival(self) -> float | None:
        """Share of the broken ones that are broken in bytes, too; ``None`` where there are none."""
        return (self.n_nearest + self.n_repaired) / self.n_broken if self.n_broken else None


@torch.no_grad()
def search_grid(
    found: torch.Tensor,
    clean: torch.Tensor,
    right: torch.Tensor,
    rows: Sequence[int],
    logits_of: Judge,
    threat: ThreatModel,
    *,
    seed: int = 0,
    n_repairs: int = N_REPAIRS,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Look for roundings of perturbed images that break a model.

    The nearest bytes are tried first; then, for images that stand, the whole perturbation pushed to
    the ball's surface (``Linf``), rounding away from the clean image, and rounding at random in
    proportion to the distance, drawn from the seed and the row.

    Args:
        found: ``[B, 3, H, W]``, what attacks found.
        clean: Likewise.
        right: bool ``[B, C]``.
        rows: Places in the set, ``B`` of them.
        logits_of: The model that is to be broken.
        threat: What every rounding is held against.
        seed: Of random roundings.
        n_repairs: Roundings besides the nearest.

    Returns:
        Pixels of whole 255ths ``[B, 3, H, W]`` (the nearest where none breaks), bool ``[B]``:
        broken by the nearest, and bool ``[B]``: broken by any.
    """

    def on_grid(wanted: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        grid = to_grid(wanted, clean[places], threat.eps, norm=threat.norm)
        return from_grid(grid).to(clean.device)

    everyone = torch.arange(len(clean), device=clean.device)
    best = on_grid(found, everyone)
    nearest = ~judge(logits_of(best), right)
    broken = nearest.clone()
    for rounding in _roundings(found, clean, rows, threat, seed, n_repairs):
        places = (~broken).nonzero().flatten()
        if not len(places):
            break
        tried = on_grid(rounding(places), places)
        hit = ~judge(logits_of(tried), right[places])
        best[places[hit]] = tried[hit]
        broken[places[hit]] = True
    return best, nearest, broken


Rounding = Callable[[torch.Tensor], torch.Tensor]


def _roundings(
    found: torch.Tensor,
    clean: torch.Tensor,
    rows: Sequence[int],
    threat: ThreatModel,
    seed: int,
    n: int,
) -> Iterator[Rounding]:
    """Places ``[b]`` -> what to hold against the ball and round, ``n`` times."""
    delta = found - clean
    made: list[Rounding] = []
    if threat.norm == "Linf":
        made.append(lambda places: (clean + threat.eps * delta.sign())[places].clamp(0.0, 1.0))
    outward = delta.sign() * (delta.abs() * _LEVELS - _SLACK).ceil() / _LEVELS
    made.append(lambda places: (clean + outward)[places].clamp(0.0, 1.0))
    generators = [np.random.default_rng([seed, int(row)]) for row in rows]

    def at_random(places: torch.Tensor) -> torch.Tensor:
        noise = np.stack([generators[place].random(found.shape[1:]) for place in places.tolist()])
        shift = torch.from_numpy(noise).to(found)
        return ((found[places] * _LEVELS + shift).floor() / _LEVELS).clamp(0.0, 1.0)

    made += [at_random] * max(0, n - len(made))
    yield from made[:n]


@dataclass(frozen=True, kw_only=True)
class EightBitAttack:
    """An attack whose images are whole 255ths, whatever it is itself.

    Attributes:
        attack: Made for ``threat``; with ``aware``, for its radius rounded down to 255ths.
        threat: Norm and radius.
        aware: Let the attack see the rounded image (``Linf``); otherwise it is rounded at the end.
        n_repairs: Roundings that are tried where the nearest one undid the attack.
        seed: Of random roundings.
    """

    attack: Attack
    threat: ThreatModel
    aware: bool = True
    n_repairs: int = N_REPAIRS
    seed: int = 0

    @property
    def name(self) -> str:
        """As of the attack, with ``-8bit``."""
        return f"{self.attack.name}-8bit"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides the result."""
        return {
            **self.attack.protocol,
            "attack": self.name,
            "eight_bit": True,
            "sees_rounding": self._sees,
            "roundings": 1 + self.n_repairs,
        }

    @property
    def _sees(self) -> bool:
        return self.aware and self.threat.norm == "Linf"

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch of 8-bit pictures.

        Raises:
            UsageError: The pictures are not of whole 255ths.
        """
        return self.reported(victim, pixels, right, rows)[0]

    def reported(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> tuple[Proposal, GridReport]:
        """Attack a batch, and say what rounding did."""
        check_on_grid(pixels)
        if self._sees:
            whole_levels(self.threat)
        target = on_the_grid(victim) if self._sees else victim
        proposal = self.attack(target, pixels, right, rows)
        return project(
            proposal, victim, pixels, right, rows, self.threat,
            name=self.name, seed=self.seed, n_repairs=self.n_repairs,
        )  # fmt: skip


def project(
    proposal: Proposal,
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    rows: Sequence[int],
    threat: ThreatModel,
    *,
    name: str = "",
    seed: int = 0,
    n_repairs: int = N_REPAIRS,
) -> tuple[Proposal, GridReport]:
    """What an attack found, in bytes; judged anew on the victim.

    Args:
        proposal: Of a batch.
        victim: That was attacked.
        pixels: Clean ones.
        right: bool ``[B, C]``.
        rows: Places in the set.
        threat: Norm and radius.
        name: Who broke an image that only its rounding broke.
        seed: Of random roundings.
        n_repairs: See :func:`search_grid`.
    """
    clean, right = pixels.to(victim.device), right.to(victim.device)
    best, nearest, broken = search_grid(
        proposal.adversarial, clean, right, rows, victim.logits_of, threat,
        seed=seed, n_repairs=n_repairs,
    )  # fmt: skip
    before = proposal.broken
    report = GridReport(
        n_broken=int(before.sum()),
        n_nearest=int((before & nearest).sum()),
        n_repaired=int((before & ~nearest & broken).sum()),
    )
    names = proposal.broken_by or (name,) * len(rows)
    by = tuple(
        (known or name) if hit else "" for known, hit in zip(names, broken.tolist(), strict=True)
    )
    return Proposal(adversarial=best, broken=broken, broken_by=by), report


def check_on_grid(pixels: torch.Tensor) -> None:
    """Refuse pictures that no 8-bit file can hold.

    Raises:
        UsageError: Values between two 255ths.
    """
    if not is_on_grid(pixels):
        raise UsageError(
            "the clean pictures are not of whole 255ths",
            hint="attack what a PNG can hold: the pictures as the bundle's preprocessing makes "
            "them, not what an attack or a float resize made",
        )
