"""Theta for a target hierarchical accuracy, by split conformal prediction on the path.

The score of an image is the probability of the first wrong node on its predicted path, 0 when the
whole path is right. Probabilities fall along a path, so an answer at ``theta`` is right exactly
when ``score <= theta``. With ``theta`` the ``ceil((n + 1)(1 - alpha))``-th smallest score of ``n``
calibration images, the answer to a further, exchangeable image is right with probability at least
``1 - alpha`` (and at most ``1 - alpha + 1 / (n + 1)`` without ties): on average over draws of the
calibration images, not for each class, and not under an attack that they did not suffer.

It is the threshold of hierarchical selective classification (NeurIPS 2024) with the finite-sample
quantile of split conformal prediction (Vovk et al. 2005; Lei et al. 2018).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.answer import StopRule
from robustzs.errors import InsufficientCalibrationDataError, UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.verdicts import checked_probs, is_right, matching, path_ends

Float64Array = NDArray[np.float64]

_ROUNDING = 1e-9  # (n + 1)(1 - alpha) of decimal alphas is a whole number only up to this


def path_scores(
    node_probs: ArrayLike,
    truth: ArrayLike,
    tree: Hierarchy,
    *,
    rule: StopRule = "greedy",
    root: int = 0,
) -> Float64Array:
    """The probability of the first wrong node on each path, 0 where there is none: ``[n]``.

    Args:
        node_probs: ``[n, n_nodes]``.
        truth: Node indices ``[n]``; right is what lies on one path with them.
        tree: The tree; its hidden nodes are never answers and never wrong.
        rule: How paths are chosen.
        root: Where paths start.
    """
    probs = checked_probs(node_probs, tree)
    true = matching(truth, probs, tree)
    at = path_ends(probs, tree, rule=rule, root=root)
    rows = np.arange(len(at))
    scores = np.zeros(len(at))
    while np.any(inside := at != root):
        at, rows = at[inside], rows[inside]
        wrong = ~tree.hidden[at] & ~is_right(at, true[rows], tree)
        found = probs[rows, at].astype(np.float64)
        scores[rows[wrong]] = np.maximum(scores[rows[wrong]], found[wrong])
        at = tree.parent[at].astype(np.int64)
    return scores


def least_samples(alpha: float) -> int:
    """The fewest calibration images that can promise an error of at most ``alpha``.

    Raises:
        UsageError: ``alpha`` is not within (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha is {alpha}", hint="1 - target accuracy, between 0 and 1")
    return max(1, math.ceil(1.0 / alpha - 1.0 - _ROUNDING))


def conformal_rank(n: int, alpha: float) -> int:
    """Which of ``n`` scores, in ascending order and from 1, is theta.

    Raises:
        InsufficientCalibrationDataError: There are too few; theta would have to be infinite.
        UsageError: ``alpha`` is not within (0, 1).
    """
    least = least_samples(alpha)
    rank = math.ceil((n + 1) * (1.0 - alpha) - _ROUNDING)
    if n < least or rank > n:
        raise InsufficientCalibrationDataError(
            f"{n} images are too few to promise a hierarchical accuracy of {1.0 - alpha:g}",
            hint=f"give at least {least} images that theta is set on, or a lower target",
        )
    return max(rank, 1)


def conformal_theta(scores: ArrayLike, alpha: float) -> float:
    """The threshold at which at most a share ``alpha`` of further answers is wrong, on average.

    Args:
        scores: ``[n]`` of :func:`path_scores`.
        alpha: 1 - target accuracy, in (0, 1).

    Raises:
        InsufficientCalibrationDataError: Too few scores.
        UsageError: ``alpha`` is not within (0, 1), or scores are not probabilities.
    """
    ranked = np.sort(np.asarray(scores, np.float64))
    if ranked.ndim != 1 or not np.all((ranked >= 0.0) & (ranked <= 1.0)):
        raise UsageError("scores are not probabilities [n]", hint="take those of path_scores")
    return float(ranked[conformal_rank(len(ranked), alpha) - 1])
