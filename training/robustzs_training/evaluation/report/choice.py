"""Which results answer which question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robustzs.cards.schema import Card, Result

_STRONGEST = ("worst", "autoattack", "apgd-t", "apgd-ce", "apgd-dlr")
VERDICTS = frozenset(_STRONGEST)
"""Attacks whose number can stand on its own."""


def datasets_in(card: Card) -> list[str]:
    """Names of the datasets, in the card's order."""
    return [dataset.name for dataset in card.datasets]


def on_labels(results: Iterable[Result]) -> list[Result]:
    """Flat top-1 of the model that the card names, the labels attacked."""
    return [row for row in _flat(results) if row.precision is None]


def of_precisions(results: Iterable[Result], dataset: str) -> list[Result]:
    """Flat top-1 of deployed encoders."""
    return [row for row in _flat(results) if row.precision and row.dataset == dataset]


def _flat(results: Iterable[Result]) -> list[Result]:
    return [row for row in results if row.depth is None and row.attacked_depth is None]


def of_the_tree(results: Iterable[Result], dataset: str) -> list[Result]:
    """All rows that have to do with a depth, as measured or as attacked."""
    return [
        row
        for row in results
        if row.dataset == dataset and (row.depth is not None or row.attacked_depth is not None)
    ]


def at_depths(results: Iterable[Result], dataset: str) -> list[Result]:
    """Rows of a depth whose own loss, or whose labels', was attacked."""
    mine = [row for row in results if row.dataset == dataset and row.depth is not None]
    return [*direct(mine), *from_labels(mine)]


def direct(rows: Iterable[Result]) -> list[Result]:
    """The attack was on the depth itself, in the same meaning."""
    return [
        row
        for row in rows
        if row.depth is not None
        and (row.depth, row.meaning) == (row.attacked_depth, row.attacked_meaning)
    ]


def from_labels(rows: Iterable[Result]) -> list[Result]:
    """The attack was on the labels, and a depth looked on."""
    return [row for row in rows if row.depth is not None and row.attacked_depth is None]


def headline_attack(rows: Sequence[Result]) -> str:
    """The attack to be judged by: all together, else the strongest, else the first."""
    names = list(dict.fromkeys(row.attack for row in rows))
    return next((name for name in _STRONGEST if name in names), names[0])
