"""Confidence against being right: calibration error, and what backing off buys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.answer import StopRule
from robustzs.errors import EvaluationError, UsageError
from robustzs.hierarchy.shape import TreeShape
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.verdicts import (
    checked_probs,
    is_right,
    matching,
    path_ends,
    verdicts_at_depth,
)

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class RiskCoverage:
    """What a flat classifier risks when it answers only its surest images.

    Args:
        coverage: Shares of images answered, ascending, in (0, 1].
        risk: Share of wrong answers among them.
        area: Mean risk over coverage (AURC).
    """

    coverage: Float64Array
    risk: Float64Array
    area: float


@dataclass(frozen=True, eq=False, kw_only=True)
class HierarchicalCurve:
    """Every operating point of the stop rule, from "thing" for all to leaves for all.

    Args:
        theta: Thresholds, descending from 1; a point holds from its theta up to the previous one.
        specificity: Mean specificity of the answers there.
        accuracy: Hierarchical accuracy there.
        area: hAURC: area under ``1 - accuracy`` over specificity, trapezoids (HSC, NeurIPS 2024).
    """

    theta: Float64Array
    specificity: Float64Array
    accuracy: Float64Array
    area: float


def expected_calibration_error(
    confidence: ArrayLike, right: ArrayLike, *, n_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width (Guo et al. 2017).

    ``sum over bins of n_bin / n * |accuracy - mean confidence|``; bin ``i`` of ``b`` holds
    confidences in ``((i - 1) / b, i / b]``, and 0 belongs to the first.

    Args:
        confidence: ``[n]`` in [0, 1], n >= 1.
        right: bool ``[n]``.
        n_bins: At least 1.

    Raises:
        EvaluationError: No images.
        UsageError: Shapes or values out of range.
    """
    sure, outcomes = _confidences(confidence, right)
    if n_bins < 1:
        raise UsageError(f"n_bins is {n_bins}", hint="at least 1, usually 15")
    edges = np.arange(1, n_bins) / n_bins
    place = np.searchsorted(edges, sure, side="left")
    gap = np.bincount(place, weights=outcomes - sure, minlength=n_bins)
    return float(np.abs(gap).sum() / len(sure))


def calibration_errors_at_depths(
    node_probs: ArrayLike, truth: ArrayLike, tree: TreeShape, *, n_bins: int = 15, root: int = 0
) -> list[float]:
    """ECE of the rollup verdict at every depth, from its own probability.

    Args:
        node_probs: ``[n, n_nodes]``, n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.
        n_bins: Bins of equal width.
        root: Node to which answers are confined.
    """
    probs = checked_probs(node_probs, tree)
    true = matching(truth, probs, tree)
    errors = []
    for depth in range(int(tree.depth.max()) + 1):
        said = verdicts_at_depth(probs, tree, depth, root=root)
        sure = np.minimum(probs[np.arange(len(probs)), said], 1.0)
        errors.append(expected_calibration_error(sure, is_right(said, true, tree), n_bins=n_bins))
    return errors


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> RiskCoverage:
    """Risk among the surest images, for every number of them.

    Images of equal confidence are answered together; within them risk is taken as even, so that
    the order of the images does not matter.

    Args:
        confidence: ``[n]``, n >= 1.
        right: bool ``[n]``.

    Raises:
        EvaluationError: No images.
        UsageError: Shapes or values out of range.
    """
    sure, outcomes = _confidences(confidence, right)
    order = np.argsort(-sure, kind="stable")
    ranked, wrong = sure[order], 1.0 - outcomes[order]
    group = np.concatenate([[0], np.cumsum(np.diff(ranked) != 0.0)])
    even = (np.bincount(group, weights=wrong) / np.bincount(group))[group]
    answered = np.arange(1, len(sure) + 1)
    risk = np.cumsum(even) / answered
    return RiskCoverage(coverage=answered / len(sure), risk=risk, area=float(risk.mean()))


def hierarchical_curve(
    node_probs: ArrayLike,
    truth: ArrayLike,
    tree: Hierarchy,
    *,
    rule: StopRule = "greedy",
    root: int = 0,
) -> HierarchicalCurve:
    """Hierarchical accuracy against specificity for all thresholds at once.

    Each node of an image's path becomes its answer where theta falls below the node's probability,
    so that the curve is the running sum of what these changes add. Nodes of probability 0 are never
    answers.

    Args:
        node_probs: ``[n, n_nodes]``, n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.
        rule: How paths are chosen.
        root: Where paths start.

    Raises:
        EvaluationError: No images.
    """
    probs = checked_probs(node_probs, tree)
    true = matching(truth, probs, tree)
    if len(probs) == 0:
        raise EvaluationError("no images to draw a curve of", hint="give at least one")
    at = path_ends(probs, tree, rule=rule, root=root)
    base = np.full(len(at), root, np.int64)
    start = (_specificity(base, tree).mean(), float(is_right(base, true, tree).mean()))
    values, gained, turned = _changes(at, probs, true, tree, root)
    order = np.argsort(-values, kind="stable")
    values = values[order]
    last = np.flatnonzero(np.diff(values, append=-1.0))  # of each group of equal values
    n = len(probs)
    specificity = np.concatenate([[0.0], np.cumsum(gained[order])[last] / n]) + start[0]
    accuracy = start[1] + np.concatenate([[0.0], np.cumsum(turned[order])[last] / n])
    steps = values[last]
    theta = np.concatenate([[1.0], steps[1:], [0.0]]) if len(steps) else np.array([1.0])
    risk = 1.0 - accuracy
    area = float(np.sum(np.diff(specificity) * (risk[1:] + risk[:-1]) / 2.0))
    return HierarchicalCurve(theta=theta, specificity=specificity, accuracy=accuracy, area=area)


def _changes(
    ends: NDArray[np.int64],
    probs: NDArray[np.float32],
    truth: NDArray[np.int64],
    tree: Hierarchy,
    root: int,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """For each visible node below the root on each path: its probability, and what it changes.

    Returns:
        Probabilities, changes of specificity, changes of being right; all ``[n_changes]``.
    """
    values, gained, turned = [], [], []
    at, rows = ends, np.arange(len(ends))
    while np.any(inside := at != root):
        at, rows = at[inside], rows[inside]
        above = tree.parent[at].astype(np.int64)
        counts = ~tree.hidden[at] & (probs[rows, at] > 0.0)
        shown = above.copy()
        while np.any(unseen := tree.hidden[shown] & (shown != root)):
            shown[unseen] = tree.parent[shown[unseen]]
        values.append(probs[rows, at][counts].astype(np.float64))
        more = _specificity(at, tree) - _specificity(shown, tree)
        gained.append(more[counts])
        true = truth[rows]
        change = is_right(at, true, tree).astype(np.float64) - is_right(shown, true, tree)
        turned.append(change[counts])
        at = above
    empty = [np.empty(0)]
    return (
        np.concatenate(values or empty),
        np.concatenate(gained or empty),
        np.concatenate(turned or empty),
    )


def _specificity(nodes: NDArray[np.int64], tree: TreeShape) -> Float64Array:
    return np.asarray(tree.specificity[nodes], np.float64)


def _confidences(confidence: ArrayLike, right: ArrayLike) -> tuple[Float64Array, Float64Array]:
    sure, outcomes = np.asarray(confidence, np.float64), np.asarray(right)
    if len(sure) == 0:
        raise EvaluationError("no images to measure", hint="give at least one")
    if sure.ndim != 1 or outcomes.shape != sure.shape or outcomes.dtype != np.bool_:
        raise UsageError(
            f"confidence {sure.shape} and outcomes {outcomes.dtype} {outcomes.shape} do not fit",
            hint="one number and one bool for each image",
        )
    if not (np.all(sure >= 0.0) and np.all(sure <= 1.0)):
        raise UsageError("confidence is not within [0, 1]", hint="give probabilities")
    return sure, outcomes.astype(np.float64)
