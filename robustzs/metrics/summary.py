"""Everything that a table of results shows of one run over one tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from robustzs.answer import StopRule
from robustzs.errors import EvaluationError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.curves import calibration_errors_at_depths, hierarchical_curve
from robustzs.metrics.severity import (
    HierarchicalScore,
    hierarchical_distance,
    hierarchical_scores,
    mistake_severity,
)
from robustzs.metrics.verdicts import (
    DepthAccuracy,
    answers_at,
    checked_probs,
    depth_accuracies,
    flat_leaves,
    is_right,
    matching,
    right_at_depths,
)


@dataclass(frozen=True, kw_only=True)
class HierarchicalSummary:
    """Metrics of one run; definitions in ``docs/metrics.md``.

    Args:
        n: Images.
        theta: Threshold of the answers.
        top1: Flat accuracy.
        hierarchical_accuracy: Share of right answers at theta.
        specificity: Their mean specificity.
        scores: hP, hR and hF of the answers at theta, without the root.
        hd1: HD@1 of flat top-1; on attacked images the adversarial severity.
        mistake_severity: HD@1 over mistakes alone; ``None`` without mistakes.
        haurc: Area under hierarchical risk over specificity.
        depths: Accuracy of the rollup verdict at every depth.
        calibration_errors: ECE at every depth, 15 bins.
    """

    n: int
    theta: float
    top1: float
    hierarchical_accuracy: float
    specificity: float
    scores: HierarchicalScore
    hd1: float
    mistake_severity: float | None
    haurc: float
    depths: tuple[DepthAccuracy, ...]
    calibration_errors: tuple[float, ...]


def summarise(
    node_probs: ArrayLike,
    truth: ArrayLike,
    tree: Hierarchy,
    *,
    theta: float,
    rule: StopRule = "greedy",
) -> HierarchicalSummary:
    """Measure one run.

    Args:
        node_probs: ``[n, n_nodes]``, n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.
        theta: Threshold of the answers.
        rule: How paths are chosen.

    Raises:
        EvaluationError: No images.
        LabelMismatchError: Shapes that do not fit the tree.
    """
    probs = checked_probs(node_probs, tree)
    true = matching(truth, probs, tree)
    if len(probs) == 0:
        raise EvaluationError("no images to measure", hint="give at least one")
    flat = flat_leaves(probs, tree)
    answers = answers_at(probs, tree, theta=theta, rule=rule)
    return HierarchicalSummary(
        n=len(probs),
        theta=theta,
        top1=float(np.mean(is_right(flat, true, tree))),
        hierarchical_accuracy=float(np.mean(is_right(answers, true, tree))),
        specificity=float(np.mean(tree.specificity[answers], dtype=np.float64)),
        scores=hierarchical_scores(answers, true, tree),
        hd1=hierarchical_distance(flat, true, tree),
        mistake_severity=mistake_severity(flat, true, tree),
        haurc=hierarchical_curve(probs, true, tree, rule=rule).area,
        depths=tuple(depth_accuracies(right_at_depths(probs, true, tree), true, tree)),
        calibration_errors=tuple(calibration_errors_at_depths(probs, true, tree)),
    )
