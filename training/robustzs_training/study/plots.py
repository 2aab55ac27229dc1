"""Plots of the study, as PNG: the same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robustzs.cards.schema import Interval, Result
from robustzs_training.evaluation.report.plots import COLOURS, Plot
from robustzs_training.study import choose
from robustzs_training.study.protocol import CAPTIONS, FEATURES, LABELS, PHOTOGRAPHS, SETS
from robustzs_training.study.results import RowResult

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
_DPI = 110
_Series = tuple[str, list[Result | None]]


def plots_of(rows: Sequence[RowResult]) -> list[Plot]:
    """All plots that there are numbers for."""
    if not rows:
        return []
    return [_by_set(rows), _by_attack(rows), _by_depth(rows)]


def _by_set(rows: Sequence[RowResult]) -> Plot:
    """A panel for each set: clean accuracy, and under the label attack within every radius."""
    radii = choose.radii(rows)
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(10.0, 0.9 + 0.36 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(SETS), sharey=True, squeeze=False)[0]
        for axes, dataset in zip(panels, SETS, strict=True):
            series: list[_Series] = [
                (
                    f"robust at {eps}",
                    [choose.flat(row, dataset, choose.label_attack(row), eps) for row in rows],
                )
                for eps in radii
            ]
            _bars(axes, rows, series, dataset)
            axes.set_title(dataset.removeprefix("held-out-"), fontsize=9.0)
        panels[-1].legend(loc="lower right")
        png = _png(figure)
    return Plot(
        name="accuracy",
        title="Clean and robust accuracy, by method",
        png=png,
        alt="Clean and robust top-1 accuracy of every method on three sets; numbers in the tables.",
    )


def _by_attack(rows: Sequence[RowResult]) -> Plot:
    """Photographs under attacks that see labels, captions, or no text."""
    eps = choose.radii(rows)[0]
    names = {LABELS: "labels", CAPTIONS: "captions", FEATURES: "text-free"}
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(7.0, 0.9 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        series: list[_Series] = [
            (title, [choose.flat(row, PHOTOGRAPHS, name, eps) for row in rows])
            for name, title in names.items()
        ]
        _bars(axes, rows, series, PHOTOGRAPHS)
        axes.legend(loc="lower right")
        png = _png(figure)
    return Plot(
        name="attacks",
        title=f"Photographs at {eps}, by what the attack is guided by",
        png=png,
        alt="Robust accuracy on held-out photographs under three attacks; numbers in the tables.",
    )


def _by_depth(rows: Sequence[RowResult]) -> Plot:
    """Photographs asked at depths, each attacked on its own loss."""
    eps = choose.radii(rows)[0]
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=(7.0, 0.9 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        series: list[_Series] = [
            (
                f"depth {depth}",
                [
                    choose.at_depth(row, PHOTOGRAPHS, eps, depth, "rollup", attacked=True)
                    for row in rows
                ],
            )
            for depth in choose.depths(rows)
        ]
        series.append(("labels", [choose.flat(row, PHOTOGRAPHS, LABELS, eps) for row in rows]))
        _bars(axes, rows, series, None)
        axes.legend(loc="lower right")
        png = _png(figure)
    return Plot(
        name="depths",
        title=f"Photographs at {eps}, by the depth that is asked and attacked",
        png=png,
        alt="Robust accuracy at depths of WordNet; numbers in the tables.",
    )


def _bars(
    axes: Axes, rows: Sequence[RowResult], series: Sequence[_Series], clean_of: str | None
) -> None:
    """A line for each row, the first one on top: points with intervals; clean as a hollow ring."""
    for number, (label, results) in enumerate(series):
        shift = (number - (len(series) - 1) / 2.0) * 0.22
        shown = [(place + shift, each) for place, each in enumerate(results) if each is not None]
        _points(
            axes,
            [place for place, _ in shown],
            [each.robust_accuracy for _, each in shown],
            [each.interval for _, each in shown],
            label=label,
            colour=COLOURS[number % len(COLOURS)],
            marker="osD^vPX"[number % 7],
        )
    if clean_of is not None:
        counts = [row.clean.get(clean_of) for row in rows]
        found = [(place, c[0] / c[1]) for place, c in enumerate(counts) if c is not None and c[1]]
        axes.scatter(
            [share for _, share in found],
            [place for place, _ in found],
            s=34,
            facecolors="none",
            edgecolors="#555555",
            label="clean",
        )
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _points(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[float],
    intervals: Sequence[Interval],
    *,
    label: str,
    colour: str,
    marker: str,
) -> None:
    pairs = list(zip(values, intervals, strict=True))
    axes.errorbar(
        values,
        places,
        xerr=[
            [max(value - each.low, 0.0) for value, each in pairs],
            [max(each.high - value, 0.0) for value, each in pairs],
        ],
        color=colour,
        marker=marker,
        markersize=4.0,
        linestyle="none",
        elinewidth=0.9,
        capsize=2.0,
        label=label,
    )


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
