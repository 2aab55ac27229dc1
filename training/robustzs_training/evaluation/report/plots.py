"""Plots of a card, as PNG: the same card gives the same bytes.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; every series has
a marker or a dash of its own besides, and intervals are drawn.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, PercentFormatter

from robustzs.cards.schema import Card, Interval, Meaning, Result
from robustzs.cli.escape import terminal_safe
from robustzs.metrics.curves import RiskCoverage
from robustzs.threat import parse_size
from robustzs_training.evaluation.report.choice import (
    at_depths,
    datasets_in,
    direct,
    from_labels,
    headline_attack,
    on_labels,
)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_TICKS = 8
_DASHES = ("-", "--", ":", "-.")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_DPI = 144
_MAX_POINTS = 400
_MAX_SERIES = 14
_LONGEST = 36


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Risk over coverage of one set of images, clean or attacked.

    Attributes:
        name: For the legend.
        curve: What was measured.
    """

    name: str
    curve: RiskCoverage


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot.

    Attributes:
        name: Of its file, without the ending.
        title: For people.
        png: The file.
        alt: What it shows, for those who do not see it.
    """

    name: str
    title: str
    png: bytes
    alt: str


def plots_of(card: Card, curves: Sequence[Curve] = ()) -> list[Plot]:
    """All plots that the card has numbers for."""
    made = [accuracy_against_eps(card), robust_against_depth(card), risk_against_coverage(curves)]
    return [plot for plot in made if plot is not None]


def accuracy_against_eps(card: Card) -> Plot | None:
    """Top-1 against the radius, from the clean accuracy at 0; ``None`` without results."""
    flat = on_labels(card.results)
    norms = sorted({result.norm for result in flat})
    if not norms:
        return None
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(5.2 * len(norms) + 1.0, 3.6), layout="constrained")
        for axes, norm in zip(_row(figure, len(norms)), norms, strict=True):
            _eps_panel(axes, card, [result for result in flat if result.norm == norm])
        png = _png_of(figure)
    said = [
        f"{result.dataset}, {result.attack}, {result.norm} {result.eps}: "
        f"{result.robust_accuracy:.1%}"
        for result in flat
    ]
    return Plot(
        name="accuracy-eps",
        title="Accuracy against the radius",
        png=png,
        alt=_alt("Top-1 accuracy under attack against eps, with intervals", said),
    )


def _eps_panel(axes: Axes, card: Card, results: Sequence[Result]) -> None:
    datasets, attacks = datasets_in(card), list(dict.fromkeys(result.attack for result in results))
    unit = 255.0 if results[0].norm == "Linf" else 1.0
    series = _grouped(results)
    widest = max(parse_size(result.eps) for result in results) * unit
    for number, ((dataset, attack), members) in enumerate(series):
        members = sorted(members, key=lambda result: parse_size(result.eps))
        points = [(0.0, members[0].clean_accuracy, members[0].clean_interval)]
        points += [
            (parse_size(each.eps) * unit, each.robust_accuracy, each.interval) for each in members
        ]
        _line(
            axes,
            points,
            label=f"{dataset}, {attack}",
            colour=COLOURS[datasets.index(dataset) % len(COLOURS)],
            marker=_MARKERS[attacks.index(attack) % len(_MARKERS)],
            dash=_DASHES[attacks.index(attack) % len(_DASHES)],
            shift=_shift(number, len(series), widest),
        )
    radii = sorted({0.0, *(parse_size(result.eps) * unit for result in results)})
    if len(radii) <= _TICKS:  # between few radii nothing was measured, so nothing is marked there
        axes.set_xticks(radii, [f"{radius:g}" for radius in radii])
    axes.set_xlabel("eps in 255ths of a pixel (Linf)" if unit > 1.0 else "eps (L2)")
    axes.set_ylabel("top-1 accuracy")
    _finish(axes, legend=len(series))


def _grouped(results: Sequence[Result]) -> list[tuple[tuple[str, str], list[Result]]]:
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.dataset, result.attack), []).append(result)
    return list(found.items())


def robust_against_depth(card: Card) -> Plot | None:
    """Accuracy at each depth, clean and under attack; ``None`` without depths."""
    datasets = [name for name in datasets_in(card) if at_depths(card.results, name)]
    if not datasets:
        return None
    said = []
    meanings = [
        meaning
        for meaning in get_args(Meaning)
        if any(row.meaning == meaning for name in datasets for row in at_depths(card.results, name))
    ]
    with mpl.rc_context(cast(Any, _STYLE)):
        size = (3.6 * len(meanings) + 2.6, 3.2 * len(datasets))
        figure = Figure(figsize=size, layout="constrained")
        panels = iter(_row(figure, len(meanings), len(datasets)))
        for dataset in datasets:
            rows = at_depths(card.results, dataset)
            attack = headline_attack(rows)
            rows = [row for row in rows if row.attack == attack]
            last = [meaning for meaning in meanings if any(row.meaning == meaning for row in rows)]
            for meaning in meanings:
                axes = next(panels)
                _depth_panel(
                    axes,
                    [row for row in rows if row.meaning == meaning],
                    legend=meaning == last[-1],
                )
                axes.set_title(_plain(f"{dataset}, {attack}: {meaning}"), loc="left", fontsize=9.0)
            said += [
                f"{dataset}, depth {row.depth}, {row.meaning}, {row.eps}: {row.robust_accuracy:.1%}"
                for row in direct(rows)
            ]
        png = _png_of(figure)
    return Plot(
        name="robust-depth",
        title="Accuracy against depth",
        png=png,
        alt=_alt("Accuracy at each depth of the tree, clean and attacked, with intervals", said),
    )


def _depth_panel(axes: Axes, rows: Sequence[Result], *, legend: bool) -> None:
    """One dataset in one meaning; may be empty."""
    radii = sorted({(row.norm, parse_size(row.eps), row.eps) for row in rows})
    by_depth = {row.depth: row for row in rows}
    clean = [(float(d or 0), row.clean_accuracy, row.clean_interval) for d, row in by_depth.items()]
    lines = [("clean", clean, "#666666", "o", "-")]
    for number, (norm, _, eps) in enumerate(radii):
        size = eps if norm == "Linf" else f"{norm} {eps}"
        for title, chosen, marker, dash in (
            ("the depth attacked", direct(rows), "s", "-"),
            ("the labels attacked", from_labels(rows), "^", ":"),
        ):
            points = [
                (float(row.depth or 0), row.robust_accuracy, row.interval)
                for row in chosen
                if (row.norm, row.eps) == (norm, eps)
            ]
            lines.append((f"{size}, {title}", points, COLOURS[number % 7], marker, dash))
    lines = [line for line in lines if line[1]]
    depths = [depth or 0 for depth in by_depth]
    widest = float(max(depths) - min(depths)) if depths else 1.0
    for number, (label, points, colour, marker, dash) in enumerate(lines):
        _line(
            axes,
            sorted(points, key=lambda point: point[0]),
            label=label,
            colour=colour,
            marker=marker,
            dash=dash,
            shift=_shift(number, len(lines), widest or 1.0),
        )
    axes.set_xlabel("depth")
    axes.set_ylabel("accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, legend=len(lines) if legend else 0)


def risk_against_coverage(curves: Sequence[Curve]) -> Plot | None:
    """Share of wrong answers against the share that is answered; ``None`` without curves."""
    if not curves:
        return None
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(6.2, 3.6), layout="constrained")
        (axes,) = _row(figure, 1)
        for number, each in enumerate(curves):
            coverage, risk = np.asarray(each.curve.coverage), np.asarray(each.curve.risk)
            kept = np.unique(np.linspace(0, len(coverage) - 1, _MAX_POINTS).round().astype(int))
            axes.plot(
                coverage[kept],
                risk[kept],
                color=COLOURS[number % len(COLOURS)],
                linestyle=_DASHES[number // len(COLOURS) % len(_DASHES)],
                linewidth=1.4,
                label=_plain(f"{each.name} (area {each.curve.area:.3f})"),
            )
        axes.set_xlabel("coverage: share of images answered, surest first")
        axes.set_ylabel("risk: share of wrong answers")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0.0, 1.0)
        _finish(axes, legend=len(curves))
        png = _png_of(figure)
    return Plot(
        name="risk-coverage",
        title="Risk against coverage",
        png=png,
        alt=_alt(
            "Share of wrong answers against the share of images answered",
            [f"{each.name}: area {each.curve.area:.3f}" for each in curves],
        ),
    )


# ---- parts ---------------------------------------------------------------------------------------


def _line(
    axes: Axes,
    points: Sequence[tuple[float, float, Interval]],
    *,
    label: str,
    colour: str,
    marker: str,
    dash: str,
    shift: float,
) -> None:
    """A series with its intervals; ``shift`` moves it, so that bars do not hide bars."""
    x, y = [point[0] + shift for point in points], [point[1] for point in points]
    low = [max(value - interval.low, 0.0) for _, value, interval in points]
    high = [max(interval.high - value, 0.0) for _, value, interval in points]
    axes.errorbar(
        x,
        y,
        yerr=[low, high],
        color=colour,
        marker=marker,
        markersize=4.5,
        linestyle=dash,
        linewidth=1.3,
        elinewidth=0.9,
        capsize=2.5,
        label=_plain(label),
    )


def _shift(number: int, n: int, widest: float) -> float:
    """Sideways, in the units of the axis: a hundredth of what is shown, all together a tenth."""
    return (number - (n - 1) / 2.0) * widest * min(0.012, 0.1 / max(n, 1))


def _finish(axes: Axes, *, legend: int) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.margins(x=0.06)
    if not legend:
        return
    handles, labels = axes.get_legend_handles_labels()
    shown = slice(0, _MAX_SERIES)
    box = axes.legend(
        handles[shown],
        labels[shown],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
    )
    if legend > _MAX_SERIES:
        box.set_title(f"the first {_MAX_SERIES} of {legend}; all are in the table")


def _row(figure: Figure, n_columns: int, n_rows: int = 1) -> list[Axes]:
    return list(figure.subplots(n_rows, n_columns, squeeze=False).flat)


def _png_of(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _plain(text: str) -> str:
    """What the font can draw, not too long; an underscore first would hide a series."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    safe = terminal_safe(text)
    drawn = "".join(each if font.get_char_index(ord(each)) else "\N{WHITE SQUARE}" for each in safe)
    if len(drawn) > _LONGEST * 2:
        drawn = drawn[: _LONGEST * 2 - 1] + "…"
    folded = [drawn[start : start + _LONGEST] for start in range(0, max(len(drawn), 1), _LONGEST)]
    text = "\n".join(folded)
    return f" {text}" if text.startswith("_") else text


def _alt(what: str, said: Sequence[str]) -> str:
    most = 8
    more = f"; and {len(said) - most} more, which are in the tables" if len(said) > most else ""
    return f"{what}. {'; '.join(said[:most])}{more}."
