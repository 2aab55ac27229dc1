"""Scales and thresholds of robustzs-lite, and the rules that they are set by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustzs.hierarchy.inference import marginal
from robustzs.hierarchy.walk import walk

if TYPE_CHECKING:
    from robustzs.hierarchy.tree import Hierarchy

Array = npt.NDArray[np.float64]

SHALLOW_DEPTH = 4
MAX_SHALLOW = 0.08
MIN_SPECIFICITY = 0.55
"""Promised are 10% and 0.5; what is chosen on 211 photographs keeps some distance from both."""
KEPT_SHARE = 0.95
_THETAS = [round(0.05 + 0.025 * i, 3) for i in range(37)]


def log_softmax(logits: Array) -> Array:
    """Row-wise logarithm of the softmax."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def match_logit_scale(cosines: Array, head_logits: Array) -> float:
    """The scale at which the cosines repeat the head's own confidence.

    Minimises the mean of ``KL(head || softmax(scale * cosines))`` over unlabelled pictures.

    Args:
        cosines: ``[n, 1000]``.
        head_logits: ``[n, 1000]`` of the ImageNet head for the same pictures.
    """
    target = np.exp(log_softmax(head_logits))
    return _minimise(lambda scale: -float((target * log_softmax(scale * cosines)).sum(1).mean()))


def fit_temperature(logits: Array, right: npt.NDArray[np.bool_]) -> float:
    """The temperature that makes the right classes' total probability most likely.

    Args:
        logits: ``[n, 1000]`` at temperature 1.
        right: ``[n, 1000]`` right classes, at least one per row.
    """

    def loss(inverse: float) -> float:
        log_probs = log_softmax(logits * inverse)
        return -float(np.log((np.exp(log_probs) * right).sum(1) + 1e-12).mean())

    return 1.0 / _minimise(loss, low=0.1, high=10.0)


@dataclass(frozen=True, kw_only=True)
class StopMeasures:
    """How deep answers go at one threshold.

    Attributes:
        theta: Stop threshold.
        shallow: Share of answers at a depth below 4.
        specificity: Mean specificity of the answers.
        hierarchical_accuracy: Share of answers at, above or below the truth.
    """

    theta: float
    shallow: float
    specificity: float
    hierarchical_accuracy: float


def measure_stops(
    probs: Array, tree: Hierarchy, truths: Sequence[frozenset[str]], theta: float
) -> StopMeasures:
    """Walk every row and judge the answer.

    Args:
        probs: ``[n, n_nodes]`` node probabilities.
        tree: The tree that they belong to.
        truths: For every row the ids that are true of it: what it shows, all above, all below.
        theta: Stop threshold.
    """
    answers = [step.answer for step in walk(probs, tree, theta=theta)]
    return StopMeasures(
        theta=theta,
        shallow=float(np.mean([tree.depth[a] < SHALLOW_DEPTH for a in answers])),
        specificity=float(np.mean([tree.specificity[a] for a in answers])),
        hierarchical_accuracy=float(
            np.mean([tree.ids[a] in true for a, true in zip(answers, truths, strict=True)])
        ),
    )


def choose_theta(
    probs: Array, tree: Hierarchy, truths: Sequence[frozenset[str]]
) -> tuple[StopMeasures, list[StopMeasures]]:
    """The largest threshold (the most careful answers) that keeps answers specific enough.

    Returns:
        The choice, and the measures over the whole grid.

    Raises:
        ValueError: no threshold keeps both limits.
    """
    grid = [measure_stops(probs, tree, truths, t) for t in _THETAS]
    fitting = [m for m in grid if m.shallow <= MAX_SHALLOW and m.specificity >= MIN_SPECIFICITY]
    if not fitting:
        raise ValueError("no threshold keeps answers deep and specific enough")
    return max(fitting, key=lambda m: m.theta), grid


def node_probabilities(logits: Array, tree: Hierarchy, class_wnids: Sequence[str]) -> Array:
    """Node probabilities ``[n, n_nodes]`` of class logits ``[n, 1000]`` in class order."""
    column = {wnid: i for i, wnid in enumerate(class_wnids)}
    order = [column[leaf] for leaf in tree.leaf_ids]
    return np.asarray(marginal(logits[:, order].astype(np.float32), tree), np.float64)


def low_confidence_threshold(top_probs: Array, is_right: npt.NDArray[np.bool_]) -> float:
    """The probability below which answers are at best as often right as wrong.

    The largest such value among those seen; 0 when even the least certain answers are right.
    """
    order = np.argsort(top_probs, kind="stable")
    share_right = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    doubtful = np.flatnonzero(share_right <= 0.5)
    if not len(doubtful):
        return 0.0
    following = min(int(doubtful[-1]) + 1, len(order) - 1)
    return float(top_probs[order[following]])


def rejection_threshold(similarities: Array) -> float:
    """The best similarity that 95% of real photographs reach."""
    return float(np.quantile(similarities, 1.0 - KEPT_SHARE, method="lower"))


def _minimise(loss: Callable[[float], float], low: float = 1.0, high: float = 400.0) -> float:
    grid = np.geomspace(low, high, 60)
    for _ in range(3):
        best = int(np.argmin([loss(float(x)) for x in grid]))
        left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.geomspace(left, right, 30)
    return float(grid[len(grid) // 2])
