"""`robustzs compare`: the cards of several models side by side."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.cards.compare import Comparison
    from robustzs.cards.schema import Card
    from robustzs.metrics.intervals import PairedDifference


class CompareFormat(str, Enum):
    """How the comparison is written."""

    table = "table"
    json = "json"


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Cards (card.json), folders of bundles, or names; the first is before."
        ),
    ],
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    output_format: Annotated[CompareFormat, typer.Option("--format", "-f")] = CompareFormat.table,
) -> None:
    """Compare the cards of models with the first one's, with intervals paired by image.

    \b
    Examples:
      robustzs compare before/card.json after/card.json
      robustzs compare robustzs-lite-clean robustzs-lite --format json
    """  # noqa: D301
    from robustzs.cards.compare import compare as compare_cards

    if len(models) < 2:
        raise UsageError("one model alone is not compared", hint="robustzs compare before after")
    first, *others = [_card(model) for model in models]
    found = [(card, compare_cards(first, card, confidence=confidence)) for card in others]
    if output_format is CompareFormat.json:
        _write_json(first, found)
        return
    for card, comparisons in found:
        sys.stdout.write(terminal_safe(f"{first.model.name} -> {card.model.name}") + "\n")
        for comparison in comparisons:
            for line in _lines(comparison):
                sys.stdout.write(terminal_safe(line) + "\n")


def _card(model: str) -> Card:
    from robustzs.bundle.registry import resolve_model
    from robustzs.cards.reading import read_card

    return read_card(model if Path(model).is_file() else resolve_model(model))


def _write_json(first: Card, found: list[tuple[Card, list[Comparison]]]) -> None:
    document = {
        "first": first.model.model_dump(mode="json"),
        "comparisons": [
            {
                "model": card.model.model_dump(mode="json"),
                "results": [_object(comparison) for comparison in comparisons],
            }
            for card, comparisons in found
        ],
    }
    sys.stdout.write(json_safe(document, indent=2) + "\n")


def _object(comparison: Comparison) -> dict[str, Any]:
    result = comparison.first
    keys = (
        "dataset",
        "attack",
        "norm",
        "eps",
        "depth",
        "meaning",
        "attacked_depth",
        "precision",
        "n",
    )
    return {
        **{key: getattr(result, key) for key in keys},
        "clean_accuracy": [result.clean_accuracy, comparison.second.clean_accuracy],
        "robust_accuracy": [result.robust_accuracy, comparison.second.robust_accuracy],
        "clean_difference": None if comparison.clean is None else asdict(comparison.clean),
        "robust_difference": None if comparison.robust is None else asdict(comparison.robust),
        "unpaired": comparison.unpaired or None,
    }


def _lines(comparison: Comparison) -> list[str]:
    first, second = comparison.first, comparison.second
    where = "top-1" if first.depth is None else f"depth {first.depth} ({first.meaning})"
    if first.precision is not None:
        where += f", deployed in {first.precision}"
    lines = [f"  {first.dataset}, {where}, {first.attack} {first.norm} eps {first.eps}"]
    for name, before, after, change in (
        ("clean", first.clean_accuracy, second.clean_accuracy, comparison.clean),
        ("robust", first.robust_accuracy, second.robust_accuracy, comparison.robust),
    ):
        lines.append(f"    {name:<7}{before:.3f} -> {after:.3f}   {_change(before, after, change)}")
    if comparison.unpaired:
        lines.append(f"    no intervals: {comparison.unpaired}")
    return lines


def _change(before: float, after: float, change: PairedDifference | None) -> str:
    text = f"{100.0 * (after - before):+.1f} points"
    if change is None:
        return text
    low, high = 100.0 * change.low, 100.0 * change.high
    counts = f"{change.gained} gained, {change.lost} lost of {change.n}"
    return f"{text} [{low:+.1f}, {high:+.1f}]   {counts}"
