"""Tables of the study, in Markdown: every share with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robustzs.cards.compare import Comparison, compare
from robustzs.cards.schema import Interval, Meaning, Result
from robustzs.errors import CardError
from robustzs.metrics.intervals import PairedDifference, wilson
from robustzs_training.study import choose
from robustzs_training.study.protocol import CAPTIONS, FEATURES, LABELS, PHOTOGRAPHS, SETS
from robustzs_training.study.results import RowResult

REFERENCE = "fare"
"""The row that others are held against."""
_NOTHING = "-"
_MEANINGS: tuple[Meaning, ...] = ("rollup", "prompt")


def accuracies(rows: Sequence[RowResult]) -> str:
    """Clean accuracy and the label attack, on every set."""
    radii = choose.radii(rows)
    parts = []
    for dataset in SETS:
        head = ["", "clean", *(f"robust at {eps}" for eps in radii), "of own clean"]
        lines = []
        for row in rows:
            found = [choose.flat(row, dataset, choose.label_attack(row), eps) for eps in radii]
            first = found[0] if found else None
            kept = _NOTHING
            if first is not None and first.n_clean:
                kept = ", ".join(f"{r.n_robust / r.n_clean:.0%}" for r in found if r is not None)
            lines.append([row.label, _clean(row, dataset), *map(_robust, found), kept])
        parts.append(f"**{_titled(rows, dataset)}**\n\n{_table(head, lines)}")
    return "\n\n".join(parts)


def differences(rows: Sequence[RowResult]) -> str:
    """Every row against the reference of its seed, picture by picture, at the first radius."""
    references = {row.seed: row for row in rows if row.row == REFERENCE}
    if not references:
        return f"The row `{REFERENCE}` is not finished."
    radii = choose.radii(rows)[:1]
    head = ["", *(f"{_short(dataset)}: {what}" for dataset in SETS for what in ("clean", *radii))]
    lines = []
    for row in rows:
        reference = references.get(row.seed, references.get(0))
        if reference is None or row.row == REFERENCE:
            continue
        cells = [row.label]
        for dataset in SETS:
            found = _compared(reference, row, dataset, radii[0])
            cells.append(_difference(None if found is None else found.clean))
            cells.append(_difference(None if found is None else found.robust))
        lines.append(cells)
    return _table(head, lines)


def other_attacks(rows: Sequence[RowResult]) -> str:
    """Held-out photographs under attacks that see labels, captions or nothing."""
    eps = choose.radii(rows)[0]
    names = {LABELS: "labels", CAPTIONS: "captions", FEATURES: "text-free", choose.WORST: "worst"}
    head = ["", "clean", *names.values()]
    lines = [
        [
            row.label,
            _clean(row, PHOTOGRAPHS),
            *(_robust(choose.flat(row, PHOTOGRAPHS, name, eps)) for name in names),
        ]
        for row in rows
    ]
    return f"Radius {eps}.\n\n{_table(head, lines)}"


def superclasses(rows: Sequence[RowResult]) -> str:
    """Held-out photographs, asked at depths of WordNet, each attacked on its own loss."""
    eps, depths = choose.radii(rows)[0], choose.depths(rows)
    head = [""]
    for depth in depths:
        head += [f"depth {depth}: clean"]
        head += [f"{meaning} attacked" for meaning in _MEANINGS] + ["rollup, labels attacked"]
    lines = []
    for row in rows:
        cells = [row.label]
        for depth in depths:
            own = [
                choose.at_depth(row, PHOTOGRAPHS, eps, depth, meaning, attacked=True)
                for meaning in _MEANINGS
            ]
            other = choose.at_depth(row, PHOTOGRAPHS, eps, depth, "rollup", attacked=False)
            cells.append(_NOTHING if own[0] is None else _share(own[0].n_clean, own[0].n))
            cells += [*map(_robust, own), _robust(other)]
        lines.append(cells)
    return f"Radius {eps}.\n\n{_table(head, lines)}"


def severity(rows: Sequence[RowResult]) -> str:
    """How far wrong answers are from the truth, in edges up the tree."""
    eps = choose.radii(rows)[0]
    names = ("hd1", "mistake_severity")
    sets = [dataset for dataset in SETS if any(_metric(row, dataset, eps, "hd1") for row in rows)]
    head = [""]
    for dataset in sets:
        for what in ("all answers", "mistakes alone"):
            head += [f"{_short(dataset)}, {what}: clean", "attacked"]
    lines = [
        [
            row.label,
            *(
                _number(value)
                for dataset in sets
                for name in names
                for value in _metric(row, dataset, eps, name) or (None, None)
            ),
        ]
        for row in rows
    ]
    return (
        f"Mean height of the lowest common ancestor of top-1 and truth; attacked: on the labels, "
        f"{eps}.\n\n{_table(head, lines)}"
    )


def costs(rows: Sequence[RowResult]) -> str:
    """What each row took, and what checks say."""
    head = ["", "steps", "training", "evaluation", "checks that refuse"]
    lines = []
    for row in rows:
        failed = [
            check.name for card in row.cards.values() for check in card.checks if not check.passed
        ]
        steps = _NOTHING if row.training is None else str(row.training["steps"])
        lines.append(
            [
                row.label,
                steps,
                f"{row.seconds['training']:.0f} s" if "training" in row.seconds else _NOTHING,
                f"{row.seconds.get('evaluation', 0.0):.0f} s",
                ", ".join(failed) or "none",
            ]
        )
    return _table(head, lines)


# ---- cells ---------------------------------------------------------------------------------------


def _clean(row: RowResult, dataset: str) -> str:
    found = row.clean.get(dataset)
    return _NOTHING if found is None else _share(*found)


def _robust(result: Result | None) -> str:
    return _NOTHING if result is None else _of(result.robust_accuracy, result.interval)


def _of(value: float, interval: Interval) -> str:
    return f"{value:.1%} ({interval.low * 100:.1f} to {interval.high * 100:.1f})"


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.1%} ({low * 100:.1f} to {high * 100:.1f})" if n else _NOTHING


def _difference(found: PairedDifference | None) -> str:
    if found is None:
        return _NOTHING
    text = f"{found.difference * 100:+.1f} ({found.low * 100:+.1f} to {found.high * 100:+.1f})"
    return f"**{text}**" if found.excludes_zero else text


def _compared(first: RowResult, second: RowResult, dataset: str, eps: str) -> Comparison | None:
    cards = first.cards.get(dataset), second.cards.get(dataset)
    if cards[0] is None or cards[1] is None:
        return None
    wanted = choose.flat(second, dataset, choose.label_attack(second), eps)
    try:
        found = compare(cards[0], cards[1])
    except CardError:  # one of them has no results: a check refused it
        return None
    return next((each for each in found if wanted and each.second.key == wanted.key), None)


def _metric(row: RowResult, dataset: str, eps: str, name: str) -> tuple[float, float] | None:
    result = choose.flat(row, dataset, LABELS, eps)
    if result is None:
        return None
    values = result.clean_metrics.get(name), result.metrics.get(name)
    return None if values[0] is None or values[1] is None else (values[0], values[1])


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _titled(rows: Sequence[RowResult], dataset: str) -> str:
    sizes = sorted({row.clean[dataset][1] for row in rows if dataset in row.clean})
    labels = sorted(
        {
            each.n_labels
            for row in rows
            if dataset in row.cards
            for each in row.cards[dataset].datasets
        }
    )
    return f"{_short(dataset)}, n = {_list(sizes)}, {_list(labels)} labels"


def _list(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in numbers)


def _short(dataset: str) -> str:
    return dataset.removeprefix("held-out-")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    safe: Callable[[str], str] = lambda text: text.replace("|", "\\|")  # noqa: E731
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(map(safe, row))} |" for row in rows)
