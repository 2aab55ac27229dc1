"""Margins: how far ahead the truth is at each depth, and how far ahead it could be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy.shape import TreeShape
from robustzs.metrics.verdicts import blocks, checked_probs, cut_at, matching
from robustzs.scoring import GeometryLike

Float64Array = NDArray[np.float64]

_SMALLEST = 1e-38  # of float32; keeps logarithms finite


def margins_at_depths(
    node_probs: ArrayLike, truth: ArrayLike, tree: TreeShape, *, root: int = 0
) -> Float64Array:
    """Log-margin of the truth at every depth: ``[n, tree height + 1]``.

    ``log p(truth at depth d) - log of the largest p of another node of the cut at depth d``:
    positive where the rollup verdict is right. For ``marginal`` probabilities this is a difference
    of logsumexps of logits. The truth at a depth is its ancestor there, or itself where it is less
    deep. Infinite where the cut has no other node, as at the root.

    Args:
        node_probs: ``[n, n_nodes]``.
        truth: Node indices ``[n]``.
        tree: The tree.
        root: Node to which answers are confined.
    """
    probs = checked_probs(node_probs, tree)
    true = matching(truth, probs, tree)
    n_depths = int(tree.depth.max()) + 1
    margins = np.empty((len(probs), n_depths))
    for depth in range(n_depths):
        cut = cut_at(tree, depth, root)
        asked = tree.ancestor_at_depth(depth, true).astype(np.int64)
        first = np.searchsorted(cut, asked, side="left")
        behind = np.searchsorted(cut, tree.node_end[asked], side="left")
        places = np.arange(len(cut))
        for rows in blocks(len(probs)):
            others = probs[rows][:, cut]
            own = (places >= first[rows, None]) & (places < behind[rows, None])
            best = np.where(own, np.float32(-1.0), others).max(axis=1).astype(np.float64)
            mine = probs[rows][np.arange(len(others)), asked[rows]].astype(np.float64)
            ahead = np.log(np.maximum(mine, _SMALLEST)) - np.log(np.maximum(best, _SMALLEST))
            margins[rows, depth] = np.where(best < 0.0, np.inf, ahead)
    return margins


def feasible_margin(
    norms: ArrayLike, geometry: GeometryLike, *, logit_scale: float
) -> Float64Array:
    """The largest gap between two logits that a geometry allows, for classes of given norms.

    Reached when the other class lies opposite and the image has the class's own norm: in the
    Poincaré ball of curvature ``-r``, where logits are ``-logit_scale * distance``, it is
    ``4 logit_scale / sqrt(r) artanh(sqrt(r) norm)``, which grows without bound towards the rim;
    for cosine logits it is ``2 logit_scale``, whatever the norm. (Theorem 1 of "Hierarchically
    Robust Zero-shot Vision-language Models", as reconstructed: the largest distance between points
    of one norm.)

    Args:
        norms: Of class vectors of :func:`robustzs.scoring.class_features`, any shape, >= 0.
        geometry: How features are compared.
        logit_scale: The factor itself, > 0.

    Raises:
        UsageError: A norm outside the ball.
    """
    sizes = np.asarray(norms, np.float64)
    if geometry.kind == "cosine":
        return np.full(sizes.shape, 2.0 * logit_scale)
    root = np.sqrt(float(geometry.curvature or 0.0))
    if not (root > 0.0 and np.all(sizes >= 0.0) and np.all(root * sizes < 1.0)):
        raise UsageError(
            f"norms up to {sizes.max(initial=0.0)} are not inside a ball of curvature "
            f"{geometry.curvature}",
            hint="give class vectors after exp_0",
        )
    return np.asarray(4.0 * logit_scale / root * np.arctanh(root * sizes))


def feasible_margin_per_depth(
    node_classes: ArrayLike, tree: TreeShape, geometry: GeometryLike, *, logit_scale: float
) -> Float64Array:
    """Mean feasible margin of the nodes at every depth: ``[tree height + 1]``.

    Args:
        node_classes: ``[n_nodes, D]`` of :func:`robustzs.scoring.class_features`.
        tree: The tree.
        geometry: How features are compared.
        logit_scale: The factor itself.

    Raises:
        LabelMismatchError: Another number of rows than nodes.
    """
    classes = np.asarray(node_classes, np.float64)
    if classes.ndim != 2 or len(classes) != len(tree):
        raise LabelMismatchError(
            f"node_classes has shape {classes.shape}; the tree has {len(tree)} nodes",
            hint="one class vector for each node",
        )
    margins = feasible_margin(np.linalg.norm(classes, axis=1), geometry, logit_scale=logit_scale)
    return np.asarray(np.bincount(tree.depth, weights=margins) / np.bincount(tree.depth))
