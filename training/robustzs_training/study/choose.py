"""Picks results out of a row's cards: by set, attack, radius and depth."""

from __future__ import annotations

from collections.abc import Sequence

from robustzs.cards.schema import Meaning, Result
from robustzs_training.study.protocol import FULL, LABELS
from robustzs_training.study.results import RowResult

WORST = "worst"


def flat(row: RowResult, dataset: str, attack: str, eps: str) -> Result | None:
    """Top-1 among the labels under an attack on the labels; ``None`` where it was not measured."""
    return _first(row, dataset, attack, eps, None, "flat", None, "flat")


def at_depth(
    row: RowResult, dataset: str, eps: str, depth: int, meaning: Meaning, *, attacked: bool
) -> Result | None:
    """A verdict at a depth, under the attack on it, or (``attacked`` false) on the labels."""
    on = (depth, meaning) if attacked else (None, "flat")
    return _first(row, dataset, LABELS, eps, depth, meaning, *on)


def label_attack(row: RowResult) -> str:
    """The attack that a row's verdicts come from."""
    return FULL if row.full else LABELS


def radii(rows: Sequence[RowResult]) -> list[str]:
    """All radii, in the order in which they were measured."""
    return list(dict.fromkeys(eps for row in rows for eps in row.asked["protocol"]["eps"]))


def depths(rows: Sequence[RowResult]) -> list[int]:
    """All depths, ascending."""
    return sorted({depth for row in rows for depth in row.asked["protocol"]["depths"]})


def _first(
    row: RowResult,
    dataset: str,
    attack: str,
    eps: str,
    depth: int | None,
    meaning: str,
    attacked_depth: int | None,
    attacked_meaning: str,
) -> Result | None:
    card = row.cards.get(dataset)
    wanted = (attack, eps, depth, meaning, attacked_depth, attacked_meaning)
    for result in () if card is None else card.results:
        found = (
            result.attack,
            result.eps,
            result.depth,
            result.meaning,
            result.attacked_depth,
            result.attacked_meaning,
        )
        if found == wanted and result.precision is None:
            return result
    return None
