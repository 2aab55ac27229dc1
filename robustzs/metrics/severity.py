"""How far off a wrong answer is, and how specific a right one.

A prediction below an inner truth counts as the truth itself in all of these: the label does not
say more (see :mod:`robustzs.metrics.verdicts`). Predictions and truths are node indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import EvaluationError, UsageError
from robustzs.hierarchy.shape import TreeShape
from robustzs.metrics.verdicts import IndexArray, as_nodes

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HierarchicalScore:
    """Precision, recall and their harmonic mean.

    Args:
        precision: hP.
        recall: hR.
        f1: hF; 0 where both are.
    """

    precision: float
    recall: float
    f1: float


def judged(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> IndexArray:
    """Predictions, but the truth where a prediction lies below it."""
    said, true = np.broadcast_arrays(as_nodes(prediction, tree), as_nodes(truth, tree))
    return np.asarray(np.where((true <= said) & (said < tree.node_end[true]), true, said))


def lca_height(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> IndexArray:
    """Height of the lowest common ancestor, 0 for a prediction at or below the truth.

    Bertinetto et al., CVPR 2020, for leaves. Over predictions on attacked images its mean is the
    adversarial severity (Jeanneret et al. 2021). An answer that stopped above the truth costs the
    height of the node where it stopped.

    Args:
        prediction: Node indices of any shape.
        truth: Node indices; shapes broadcast.
        tree: The tree.
    """
    said, true = np.broadcast_arrays(as_nodes(prediction, tree), as_nodes(truth, tree))
    height = tree.height[tree.lca(said, true)].astype(np.int64)
    return np.asarray(np.where((true <= said) & (said < tree.node_end[true]), 0, height))


def hierarchical_distance(ranked: ArrayLike, truth: ArrayLike, tree: TreeShape) -> float:
    """HD@k: mean height of the lowest common ancestors of the truth and the k best leaves.

    Args:
        ranked: Leaves as node indices ``[n, k]``, or ``[n]`` for k = 1; n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.

    Raises:
        EvaluationError: No images.
    """
    best = as_nodes(ranked, tree)
    columns = best[:, None] if best.ndim == 1 else best
    true = as_nodes(truth, tree)
    _some(columns, true)
    return float(lca_height(columns, true[:, None], tree).mean())


def mistake_severity(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> float | None:
    """HD@1 over the wrong predictions alone; ``None`` where there is none.

    It falls when easy mistakes are added, so never publish it without top-1 and HD@1.

    Args:
        prediction: Leaves as node indices ``[n]``.
        truth: Node indices ``[n]``.
        tree: The tree.
    """
    heights = lca_height(prediction, truth, tree)
    wrong = heights > 0
    return float(heights[wrong].mean()) if wrong.any() else None


def tree_induced_error(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> IndexArray:
    """Edges on the way from each prediction to its truth."""
    said, true = judged(prediction, truth, tree), as_nodes(truth, tree)
    depth = tree.depth.astype(np.int64)
    return np.asarray(depth[said] + depth[true] - 2 * depth[tree.lca(said, true)])


def lca_distance(
    prediction: ArrayLike,
    truth: ArrayLike,
    tree: TreeShape,
    *,
    by: Literal["depth", "information"] = "information",
) -> Float64Array:
    """``f(truth) - f(lowest common ancestor)`` (LCA-on-the-Line, ICML 2024).

    Args:
        prediction: Node indices of any shape.
        truth: Node indices; shapes broadcast.
        tree: The tree.
        by: ``f``: depth in edges, or information content in bits.

    Raises:
        UsageError: Another ``by``.
    """
    if by not in ("depth", "information"):
        raise UsageError(f"unknown measure {by!r}", hint="depth or information")
    true = as_nodes(truth, tree)
    common = tree.lca(judged(prediction, true, tree), true)
    measure = information(tree) if by == "information" else tree.depth.astype(np.float64)
    return np.asarray(measure[true] - measure[common])


def information(tree: TreeShape) -> Float64Array:
    """Bits that each node tells: ``log2(n_leaves / n_leaf_descendants)``, ``[n_nodes]``."""
    return np.asarray(np.log2(tree.n_leaves / tree.n_leaf_descendants.astype(np.float64)))


def information_scores(
    prediction: ArrayLike, truth: ArrayLike, tree: TreeShape
) -> tuple[Float64Array, Float64Array]:
    """Information precision and recall of each prediction (Valmadre, NeurIPS 2022).

    ``I(lca) / I(prediction)`` and ``I(lca) / I(truth)``, where 0 / 0 is 1.

    Returns:
        Precision and recall, in the shape of the predictions.
    """
    said, true = judged(prediction, truth, tree), as_nodes(truth, tree)
    bits = information(tree)
    shared = bits[tree.lca(said, true)]
    return _ratio(shared, bits[said]), _ratio(shared, np.broadcast_to(bits[true], shared.shape))


def hierarchical_scores(
    prediction: ArrayLike, truth: ArrayLike, tree: TreeShape
) -> HierarchicalScore:
    """hP, hR and hF over all images at once, without the root.

    With ``a`` the prediction and its ancestors, ``b`` the truth and its ancestors, both without the
    root, which all share and which would flatter every score: ``hP = sum|a and b| / sum|a|``,
    ``hR = sum|a and b| / sum|b|`` (Kiritchenko et al. 2006). 0 / 0 is 1: who only ever says "thing"
    says nothing wrong.

    Args:
        prediction: Node indices ``[n]``, n >= 1; usually the answers at theta.
        truth: Node indices ``[n]``.
        tree: The tree.

    Raises:
        EvaluationError: No images.
    """
    said, true = judged(prediction, truth, tree), as_nodes(truth, tree)
    _some(said, true)
    depth = tree.depth.astype(np.int64)
    shared = int(depth[tree.lca(said, true)].sum())
    n_said, n_true = int(depth[said].sum()), int(depth[true].sum())
    precision = shared / n_said if n_said else 1.0
    recall = shared / n_true if n_true else 1.0
    both = precision + recall
    return HierarchicalScore(
        precision=precision, recall=recall, f1=2.0 * precision * recall / both if both else 0.0
    )


def _ratio(part: Float64Array, whole: Float64Array) -> Float64Array:
    return np.asarray(np.divide(part, whole, out=np.ones_like(part), where=whole > 0.0))


def _some(predictions: IndexArray, truth: IndexArray) -> None:
    if len(truth) == 0 or len(predictions) != len(truth):
        raise EvaluationError(
            f"{len(predictions)} predictions for {len(truth)} images",
            hint="give one for each of at least one image",
        )
