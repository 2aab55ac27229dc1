"""Cards side by side: what one model gains over another, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustzs.cards.outcomes import unpack_outcomes
from robustzs.cards.schema import Card, Dataset, Outcomes, Result
from robustzs.errors import CardError
from robustzs.metrics.intervals import PairedDifference, paired_difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question, asked of two models.

    Args:
        first: Result of the model that is compared with.
        second: Result of the other one, of the same dataset, attack and depth.
        clean: Change of the clean accuracy, with an interval where images can be paired.
        robust: Change of the robust accuracy, likewise.
        unpaired: Why there are no intervals; empty where there are.
    """

    first: Result
    second: Result
    clean: PairedDifference | None
    robust: PairedDifference | None
    unpaired: str = ""

    @property
    def clean_difference(self) -> float:
        """Clean accuracy of the second minus that of the first."""
        return self.second.clean_accuracy - self.first.clean_accuracy

    @property
    def robust_difference(self) -> float:
        """Robust accuracy of the second minus that of the first."""
        return self.second.robust_accuracy - self.first.robust_accuracy


def compare(first: Card, second: Card, *, confidence: float = 0.95) -> list[Comparison]:
    """Compare all that both cards have, in the order of the first.

    Args:
        first: The card that is compared with, such as that of the model before hardening.
        second: The other one.
        confidence: Of the intervals.

    Raises:
        CardError: The cards have no question in common.
    """
    others = {result.key: result for result in second.results}
    pairs = [(result, others[result.key]) for result in first.results if result.key in others]
    if not pairs:
        raise CardError(
            f"the cards of {first.model.name} and {second.model.name} have no result of the same "
            "dataset, attack, eps and depth",
            hint="measure both by the same protocol",
        )
    return [_compare(first, second, a, b, confidence) for a, b in pairs]


def _compare(first: Card, second: Card, a: Result, b: Result, confidence: float) -> Comparison:
    unpaired = _unpaired(first, second, a, b)
    if unpaired or a.outcomes is None or b.outcomes is None:
        return Comparison(first=a, second=b, clean=None, robust=None, unpaired=unpaired)
    clean, robust = (
        paired_difference(
            unpack_outcomes(_side(a.outcomes, side), a.n),
            unpack_outcomes(_side(b.outcomes, side), b.n),
            confidence,
        )
        for side in ("clean", "robust")
    )
    return Comparison(first=a, second=b, clean=clean, robust=robust)


def _side(outcomes: Outcomes, side: str) -> str:
    return outcomes.clean if side == "clean" else outcomes.robust


def _unpaired(first: Card, second: Card, a: Result, b: Result) -> str:
    one, other = _dataset(first.datasets, a.dataset), _dataset(second.datasets, b.dataset)
    if one.digest != other.digest:
        return "the images are not the same"
    if a.depth is not None and one.hierarchy != other.hierarchy:
        return "depths are those of different trees"
    if a.n != b.n:
        return f"{a.n} images were measured for one and {b.n} for the other"
    if a.outcomes is None or b.outcomes is None:
        return "a card does not hold what became of every image"
    settings = [
        next(
            attack.model_dump(exclude={"seed"})
            for attack in card.attacks
            if (attack.name, attack.norm, attack.eps) == (a.attack, a.norm, a.eps)
        )
        for card in (first, second)
    ]
    if settings[0] != settings[1]:
        names = sorted(key for key in settings[0] if settings[0][key] != settings[1][key])
        return f"the attacks differ in {', '.join(names)}"
    return ""


def _dataset(datasets: Sequence[Dataset], name: str) -> Dataset:
    return next(dataset for dataset in datasets if dataset.name == name)
