"""From a card to what the page says: numbers as text, rows of tables, what to beware of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from robustzs.cards.averages import in_words
from robustzs.cards.schema import Attack, Card, Dataset, Interval, Meaning, Result
from robustzs.threat import parse_size
from robustzs_training.evaluation.report.choice import (
    VERDICTS,
    headline_attack,
    of_precisions,
    of_the_tree,
    on_labels,
)

_FEW = 200
"""Fewer images than these leave intervals of ten points and more."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its interval.

    Attributes:
        text: ``41.2%``.
        interval: ``37.0 to 45.5``.
        value: In [0, 1].
        low: Likewise.
        high: Likewise.
    """

    text: str
    interval: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table of results."""

    attack: str
    eps: str
    asked: str
    attacked: str
    n: int
    clean: Share
    robust: Share
    note: str
    main: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A further number, before and under attack."""

    name: str
    clean: str
    attacked: str


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Further numbers of one result."""

    title: str
    rows: tuple[Metric, ...]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What a dataset comes to: the strongest attack at every radius."""

    dataset: str
    attack: str
    how: str
    n: int
    clean: Share
    robust: tuple[tuple[str, Share], ...]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """An average over datasets; ``over`` says which."""

    attack: str
    eps: str
    clean: str
    robust: str
    over: str


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A line on encoders as they are deployed; without ``robust`` they were not attacked."""

    precision: str
    n: int
    alike: str
    clean: Share
    robust: Share | None
    eps: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything of one dataset."""

    dataset: Dataset
    facts: str
    rows: tuple[Row, ...]
    deployed: tuple[Deployed, ...]
    tree_rows: tuple[Row, ...]
    metrics: tuple[Metrics, ...]


@dataclass(frozen=True, kw_only=True)
class Banner:
    """What nobody may overlook."""

    kind: str
    text: str


def headlines(card: Card) -> list[Headline]:
    """A line for each dataset that has numbers."""
    found = []
    for dataset in card.datasets:
        mine = [row for row in on_labels(card.results) if row.dataset == dataset.name]
        if not mine:
            continue
        name = headline_attack(mine)
        chosen = sorted(
            (row for row in mine if row.attack == name),
            key=lambda row: (row.norm, parse_size(row.eps)),
        )
        attack = _attack_of(card, chosen[0])
        found.append(
            Headline(
                dataset=dataset.name,
                attack=name,
                how=in_short(attack),
                n=chosen[0].n,
                clean=_share(chosen[0].clean_accuracy, chosen[0].clean_interval),
                robust=tuple(
                    (_size(row), _share(row.robust_accuracy, row.interval)) for row in chosen
                ),
            )
        )
    return found


def averages(card: Card) -> list[Mean]:
    """A line for each average over datasets."""
    return [
        Mean(
            attack=each.attack,
            eps=each.eps if each.norm == "Linf" else f"{each.norm} {each.eps}",
            clean=f"{each.clean_accuracy:.1%}",
            robust=f"{each.robust_accuracy:.1%}",
            over=in_words(each),
        )
        for each in card.averages
    ]


def sections(card: Card) -> list[Section]:
    """A section for each dataset, with or without numbers."""
    found = []
    for dataset in card.datasets:
        flat = [row for row in on_labels(card.results) if row.dataset == dataset.name]
        name = headline_attack(flat) if flat else ""
        flat = sorted(
            flat,
            key=lambda row: (row.norm, parse_size(row.eps), row.attack != name, row.attack),
        )
        tree = sorted(of_the_tree(card.results, dataset.name), key=_tree_order)
        found.append(
            Section(
                dataset=dataset,
                facts=_facts(dataset),
                rows=tuple(_row(card, row, main=row.attack == name) for row in flat),
                deployed=tuple(_deployed(card, dataset.name)),
                tree_rows=tuple(_row(card, row) for row in tree),
                metrics=tuple(
                    _metrics(row) for row in [*flat, *tree] if row.metrics or row.clean_metrics
                ),
            )
        )
    return found


def _deployed(card: Card, dataset: str) -> Iterator[Deployed]:
    attacked = of_precisions(card.results, dataset)
    for each in card.deployed:
        if each.dataset != dataset:
            continue
        mine = [row for row in attacked if row.precision == each.precision]
        clean = _share(each.clean_accuracy, each.clean_interval)
        alike = f"{each.n_as_measured} of {each.n}"
        if not mine:
            yield Deployed(
                precision=each.precision, n=each.n, alike=alike, clean=clean, robust=None, eps="",
                note="not attacked",
            )  # fmt: skip
        for row in mine:
            yield Deployed(
                precision=each.precision,
                n=row.n,
                alike=alike,
                clean=_share(row.clean_accuracy, row.clean_interval),
                robust=_share(row.robust_accuracy, row.interval),
                eps=_size(row),
                note="transfer only" if row.transfer_only else "worst of twin, replay and Square",
            )


def _tree_order(row: Result) -> tuple[object, ...]:
    return (
        row.norm,
        parse_size(row.eps),
        row.attack,
        -1 if row.attacked_depth is None else row.attacked_depth,
        get_args(Meaning).index(row.attacked_meaning),
        get_args(Meaning).index(row.meaning),
        -1 if row.depth is None else row.depth,
    )


def banners(card: Card) -> list[Banner]:
    """What is to be read before any number."""
    found = []
    if not card.complete:
        found.append(
            Banner(
                kind="bad",
                text="This measurement is not complete, and its numbers are of a part of the "
                f"images: {card.incomplete_reason}",
            )
        )
    for check in card.checks:
        if not check.passed:
            found.append(Banner(kind="bad", text=f"The check {check.name} failed: {check.message}"))
    if not card.results:
        found.append(Banner(kind="bad", text="There are no results."))
    return found + [Banner(kind="care", text=text) for text in _cares(card)]


def _cares(card: Card) -> list[str]:
    texts = []
    attacked = {row.attack for row in card.results}
    if attacked and not attacked & VERDICTS:
        texts.append(
            f"No attack here ({', '.join(sorted(attacked))}) is a verdict on its own: under "
            "AutoAttack the numbers may be much lower."
        )
    if any(row.transfer_only for row in card.results):
        texts.append(
            "Rows marked `transfer only` were attacked through another form of the model; attacks "
            "on the form itself may do more."
        )
    blind = sorted({each.name for each in card.attacks if not each.saw_defence})
    if blind:
        texts.append(
            f"{', '.join(blind)} did not see the model as it is deployed: such numbers say little."
        )
    made = [dataset.name for dataset in card.datasets if dataset.synthetic]
    if made:
        texts.append(
            f"The images of {', '.join(made)} are drawn or composed, not photographed: numbers on "
            "photographs may be quite different."
        )
    few = [dataset.name for dataset in card.datasets if dataset.n < _FEW]
    if few and card.results:
        texts.append(f"{', '.join(few)}: few images, so look at the intervals.")
    return texts


def in_short(attack: Attack) -> str:
    """An attack in a line."""
    parts: list[str] = [attack.norm]
    if attack.n_steps is not None:
        parts.append(f"{attack.n_steps} steps")
    if attack.n_restarts > 1:
        parts.append(f"{attack.n_restarts} restarts")
    if attack.loss:
        parts.append(f"loss {attack.loss}")
    parts.append(attack.knowledge)
    where = "model input" if attack.space == "model-input" else "native pixels"
    parts.append(f"perturbation in the {where}")
    if attack.eight_bit:
        parts.append("8-bit images")
    parts += [f"seed {attack.seed}", attack.implementation]
    return ", ".join(parts)


def protocol_rows(card: Card) -> list[tuple[str, str]]:
    """Each attack with its radii, and what it does; equal ones together."""
    found: dict[tuple[str, str], list[str]] = {}
    for attack in card.attacks:
        found.setdefault((attack.name, in_short(attack)), []).append(attack.eps)
    return [(f"{name} at eps {', '.join(sizes)}", how) for (name, how), sizes in found.items()]


# ---- parts ---------------------------------------------------------------------------------------


def _share(value: float, interval: Interval) -> Share:
    return Share(
        text=f"{value:.1%}",
        interval=f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        value=value,
        low=interval.low,
        high=interval.high,
    )


def _size(row: Result) -> str:
    return row.eps if row.norm == "Linf" else f"{row.norm} {row.eps}"


def _row(card: Card, row: Result, *, main: bool = False) -> Row:
    notes = []
    if row.transfer_only:
        notes.append("transfer only")
    attack = _attack_of(card, row)
    if attack.knowledge != "white-box":
        notes.append(attack.knowledge)
    if not attack.saw_defence:
        notes.append("did not see the defence")
    return Row(
        attack=row.attack,
        eps=_size(row),
        asked="top-1" if row.depth is None else f"depth {row.depth}, {row.meaning}",
        attacked="labels"
        if row.attacked_depth is None
        else f"depth {row.attacked_depth}, {row.attacked_meaning}",
        n=row.n,
        clean=_share(row.clean_accuracy, row.clean_interval),
        robust=_share(row.robust_accuracy, row.interval),
        note=", ".join(notes),
        main=main,
    )


def _metrics(row: Result) -> Metrics:
    asked = "top-1" if row.depth is None else f"depth {row.depth}, {row.meaning}"
    title = f"{asked}; {row.attack}, {row.norm} eps {row.eps}"
    if row.attacked_depth is not None:
        title += f", attacked at depth {row.attacked_depth} ({row.attacked_meaning})"
    names = dict.fromkeys([*row.clean_metrics, *row.metrics])
    return Metrics(
        title=title,
        rows=tuple(
            Metric(
                name=name,
                clean=_number(row.clean_metrics.get(name)),
                attacked=_number(row.metrics.get(name)),
            )
            for name in names
        ),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _facts(dataset: Dataset) -> str:
    parts = [f"{dataset.n} images"]
    if dataset.n_available is not None and dataset.n_available != dataset.n:
        parts[0] += f" of {dataset.n_available}, drawn by seed {dataset.seed}"
    parts.append(f"{dataset.n_labels} labels")
    if dataset.templates:
        parts.append(f"templates {dataset.templates}")
    parts.append(
        "resized before the attack"
        if dataset.resolution == "model"
        else "attacked before the resize"
    )
    if dataset.synthetic:
        parts.append("drawn or composed images")
    return ", ".join(parts)


def _attack_of(card: Card, row: Result) -> Attack:
    return next(
        each
        for each in card.attacks
        if (each.name, each.norm, each.eps) == (row.attack, row.norm, row.eps)
    )
