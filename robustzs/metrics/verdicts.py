"""What a model says at each depth, where it stops, and whether that is right.

Truth is a node: usually a leaf, but a label may also be an inner node, which counts through its
leaves. One rule covers both: **an answer is right when it lies on one path with the truth**. An
answer above the truth is vague and right. An answer below an inner truth is right, too: the label
does not say which of its leaves the picture shows. (Valmadre, NeurIPS 2022, counts alike.)

All functions take ``node_probs`` ``[n, n_nodes]`` of :mod:`robustzs.hierarchy.inference` and work
through rows in blocks that stay in cache, so that memory does not grow beyond inputs and results.
Hidden spacers are never answers; at a depth they count as the nodes that they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.answer import StopRule
from robustzs.errors import EvaluationError, LabelMismatchError, UnknownNodeError, UsageError
from robustzs.hierarchy.shape import TreeShape
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.intervals import wilson

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]
ProbArray = NDArray[np.float32]

_ROWS = 256  # of a block: 1.4 MB for the tree over ImageNet's classes


@dataclass(frozen=True, kw_only=True)
class DepthAccuracy:
    """Accuracy at one depth.

    Args:
        depth: Edges from the root.
        n: Images, all of them.
        n_reaching: Images whose truth is this deep; for the others the truth itself was asked.
        accuracy: Share of ``n`` that is right.
        low: Lower end of Wilson's interval.
        high: Upper end.
    """

    depth: int
    n: int
    n_reaching: int
    accuracy: float
    low: float
    high: float


def is_right(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> BoolArray:
    """Whether each prediction lies on one path with its truth: hierarchical accuracy's summand.

    Args:
        prediction: Node indices of any shape.
        truth: Node indices; shapes broadcast.
        tree: The tree.

    Raises:
        UnknownNodeError: An index that is not a node.
    """
    said, true = as_nodes(prediction, tree), as_nodes(truth, tree)
    above = (said <= true) & (true < tree.node_end[said])
    below = (true <= said) & (said < tree.node_end[true])
    return np.asarray(above | below)


def greedy_leaves(node_probs: ArrayLike, tree: TreeShape, *, root: int = 0) -> IndexArray:
    """The leaf at the end of each greedy path, as a node index ``[n]``.

    From the root on to the most probable child; of equals the earlier one.

    Args:
        node_probs: ``[n, n_nodes]``.
        tree: The tree.
        root: Where paths start.
    """
    probs = checked_probs(node_probs, tree)
    tree.check_node(root)
    families = Families(tree)
    ends = np.empty(len(probs), np.int64)
    for rows in blocks(len(probs)):
        best = families.winners(probs[rows])
        at = np.full(len(best), root, np.int64)
        each = np.arange(len(best))
        for _ in range(int(tree.height[root])):
            at = best[each, at].astype(np.int64)
        ends[rows] = at
    return ends


def flat_leaves(node_probs: ArrayLike, tree: TreeShape, *, root: int = 0) -> IndexArray:
    """The most probable leaf of each row, as a node index ``[n]``; of equals the earlier one."""
    probs = checked_probs(node_probs, tree)
    tree.check_node(root)
    leaves = tree.leaf_nodes[tree.leaf_start[root] : tree.leaf_end[root]]
    found = np.empty(len(probs), np.int64)
    for rows in blocks(len(probs)):
        found[rows] = leaves[np.argmax(probs[rows][:, leaves], axis=1)]
    return found


def path_ends(
    node_probs: ArrayLike, tree: TreeShape, *, rule: StopRule = "greedy", root: int = 0
) -> IndexArray:
    """The leaf that each row's path leads to, by the rule of :func:`robustzs.hierarchy.walk.walk`.

    Raises:
        UsageError: An unknown rule.
    """
    if rule == "greedy":
        return greedy_leaves(node_probs, tree, root=root)
    if rule == "climb":
        return flat_leaves(node_probs, tree, root=root)
    raise UsageError(f"unknown rule {rule!r}", hint="greedy or climb")


def answers_at(
    node_probs: ArrayLike,
    tree: Hierarchy,
    *,
    theta: float,
    rule: StopRule = "greedy",
    root: int = 0,
) -> IndexArray:
    """The node that each row is answered with: what ``walk`` answers, for many rows at once.

    Args:
        node_probs: ``[n, n_nodes]``.
        tree: The tree.
        theta: The answer is the deepest node of the path that is more probable than this.
        rule: How the path is chosen.
        root: Where paths start.
    """
    probs = checked_probs(node_probs, tree)
    at = path_ends(probs, tree, rule=rule, root=root)
    each = np.arange(len(probs))
    while np.any(low := (at != root) & (probs[each, at].astype(np.float64) <= theta)):
        at[low] = tree.parent[at[low]]
    while np.any(unseen := (at != root) & tree.hidden[at]):
        at[unseen] = tree.parent[at[unseen]]
    return at


def verdicts_at_depth(
    node_probs: ArrayLike, tree: TreeShape, depth: int, *, root: int = 0
) -> IndexArray:
    """The most probable node of the tree's cut at a depth, for each row: the rollup verdict.

    The cut holds the nodes at that depth and the leaves above it, as when ``classify --level``
    forces an answer there. Of equals the earlier one.
    """
    probs = checked_probs(node_probs, tree)
    candidates = cut_at(tree, depth, root)
    found = np.empty(len(probs), np.int64)
    for rows in blocks(len(probs)):
        found[rows] = candidates[np.argmax(probs[rows][:, candidates], axis=1)]
    return found


def right_at_depths(
    node_probs: ArrayLike, truth: ArrayLike, tree: TreeShape, *, root: int = 0
) -> BoolArray:
    """Whether the rollup verdict is right, at every depth: ``[n, tree height + 1]``.

    Column ``d`` asks which node of the cut at depth ``d`` holds the most mass. Column 0 is always
    true; the last one is flat top-1. Where the truth is less deep than ``d``, the truth itself is
    asked for.

    Args:
        node_probs: ``[n, n_nodes]``.
        truth: Node indices ``[n]``.
        tree: The tree.
        root: Node to which answers are confined.
    """
    true = matching(truth, checked_probs(node_probs, tree), tree)
    columns = [
        is_right(verdicts_at_depth(node_probs, tree, depth, root=root), true, tree)
        for depth in range(int(tree.depth.max()) + 1)
    ]
    return np.stack(columns, axis=1)


def flat_right_at_depths(prediction: ArrayLike, truth: ArrayLike, tree: TreeShape) -> BoolArray:
    """Whether the ancestor of one prediction is right, at every depth: ``[n, tree height + 1]``.

    Column ``d`` asks for the ancestor at depth ``d`` of, say, flat top-1, whatever mass it has.
    """
    said, true = as_nodes(prediction, tree), as_nodes(truth, tree)
    columns = [
        is_right(tree.ancestor_at_depth(depth, said), true, tree)
        for depth in range(int(tree.depth.max()) + 1)
    ]
    return np.stack(columns, axis=1)


def depth_accuracies(
    right: ArrayLike, truth: ArrayLike, tree: TreeShape, *, confidence: float = 0.95
) -> list[DepthAccuracy]:
    """Accuracy and its interval for each column of :func:`right_at_depths`.

    Args:
        right: bool ``[n, n_depths]``, n >= 1.
        truth: Node indices ``[n]``.
        tree: The tree.
        confidence: Of the intervals.

    Raises:
        EvaluationError: No images.
        UsageError: Shapes that do not fit.
    """
    outcomes = np.asarray(right, np.bool_)
    true = as_nodes(truth, tree)
    if outcomes.ndim != 2 or true.shape != (len(outcomes),):
        raise UsageError(
            f"outcomes {outcomes.shape} and truth {true.shape} do not fit",
            hint="[n, n_depths] and [n]",
        )
    if len(outcomes) == 0:
        raise EvaluationError("no images to measure", hint="give at least one")
    found = []
    for depth, column in enumerate(outcomes.T):
        k, n = int(column.sum()), len(column)
        low, high = wilson(k, n, confidence)
        found.append(
            DepthAccuracy(
                depth=depth,
                n=n,
                n_reaching=int(np.sum(tree.depth[true] >= depth)),
                accuracy=k / n,
                low=low,
                high=high,
            )
        )
    return found


class Families:
    """Children grouped by parent, so that every branch is decided at once.

    Args:
        tree: The tree.
    """

    def __init__(self, tree: TreeShape) -> None:
        self._n_nodes = len(tree)
        self._children = np.argsort(tree.parent[1:], kind="stable") + 1
        parents = tree.parent[self._children]
        self._starts = np.flatnonzero(np.diff(parents, prepend=-2))
        self._parents = parents[self._starts]
        sizes = np.diff(self._starts, append=len(parents))
        self._family = np.repeat(np.arange(len(self._starts)), sizes)

    def winners(self, scores: NDArray[np.floating]) -> NDArray[np.int32]:
        """The largest child of every node, the first of equals; a leaf's is the leaf.

        Args:
            scores: ``[n, n_nodes]``.

        Returns:
            Node indices ``[n, n_nodes]``.
        """
        best = np.tile(np.arange(self._n_nodes, dtype=np.int32), (len(scores), 1))
        if len(self._children) == 0:
            return best
        here = scores[:, self._children]
        largest = np.maximum.reduceat(here, self._starts, axis=1)[:, self._family]
        places = np.arange(len(self._children), dtype=np.int32)
        first = np.where(here == largest, places, np.int32(len(places)))
        best[:, self._parents] = self._children[np.minimum.reduceat(first, self._starts, axis=1)]
        return best


def cut_at(tree: TreeShape, depth: int, root: int = 0) -> IndexArray:
    """The distinct nodes of the cut at a depth, below ``root``, ascending."""
    cut = np.maximum(tree.ancestor_at_depth(depth), root)
    found: IndexArray = np.unique(cut[tree.leaf_start[root] : tree.leaf_end[root]]).astype(np.int64)
    return found


def blocks(n: int) -> Iterator[slice]:
    """Slices of rows that are worked on together."""
    for start in range(0, n, _ROWS):
        yield slice(start, min(start + _ROWS, n))


def checked_probs(node_probs: ArrayLike, tree: TreeShape) -> ProbArray:
    """Node probabilities as float32 ``[n, n_nodes]``.

    Raises:
        LabelMismatchError: Another shape.
    """
    probs = np.asarray(node_probs, np.float32)
    if probs.ndim != 2 or probs.shape[1] != len(tree):
        raise LabelMismatchError(
            f"node_probs has shape {probs.shape}; the tree has {len(tree)} nodes",
            hint="give [n, n_nodes]",
        )
    return probs


def as_nodes(nodes: ArrayLike, tree: TreeShape) -> IndexArray:
    """Node indices as int64.

    Raises:
        UnknownNodeError: One is not a node of the tree.
    """
    array = np.asarray(nodes)
    if array.dtype.kind not in "iu" and array.size:
        raise UnknownNodeError(f"nodes are indices, not {array.dtype}", hint="Hierarchy.index")
    array = array.astype(np.int64)
    if array.size and not (array.min() >= 0 and array.max() < len(tree)):
        tree.check_node(int(array.min()))
        tree.check_node(int(array.max()))
    return array


def matching(truth: ArrayLike, probs: ProbArray, tree: TreeShape) -> IndexArray:
    """Truth as node indices, one for each row of the probabilities.

    Raises:
        LabelMismatchError: Another number of them.
    """
    true = as_nodes(truth, tree)
    if true.shape != (len(probs),):
        raise LabelMismatchError(
            f"truth has shape {true.shape} for {len(probs)} rows", hint="one node for each image"
        )
    return true
