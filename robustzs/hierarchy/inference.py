"""From logits to a probability at every node: four strategies, NumPy only.

Each takes logits that are scaled and tempered already, ``[B, ...]`` and finite, and gives node
probabilities float32 ``[B, n_nodes]``. What all of them promise, and what
:func:`robustzs.hierarchy.walk.walk` relies on:

- the root has probability 1 (exactly), every other node one in [0, 1];
- no node exceeds its parent, so that probabilities never rise along a path;
- the children of a node together do not exceed it, up to rounding. They make up all of it, except
  under ``level``.

With ``root``, only the leaves below that node are candidates: the softmax runs over them alone, so
the answer stays exact however little mass they would have had among all labels. The root and
everything above it is then 1, everything beside it 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import InferenceError, LabelMismatchError
from robustzs.hierarchy.shape import FloatArray, TreeShape
from robustzs.scoring import softmax

_Float64 = NDArray[np.float64]
_Int = NDArray[np.int64]


def marginal(leaf_logits: ArrayLike, tree: TreeShape, *, root: int = 0) -> FloatArray:
    """Softmax over the leaves, summed up the tree: the default.

    Args:
        leaf_logits: ``[B, n_leaves]`` in leaf order.
        tree: The tree.
        root: Node to which the answer is confined.

    Raises:
        LabelMismatchError: Another number of columns than leaves.
        InferenceError: Logits that are not finite.
    """
    logits = _checked(leaf_logits, tree.n_leaves, "leaf_logits")
    start, end = _leaf_range(tree, root)
    probs = np.zeros_like(logits)
    probs[:, start:end] = softmax(logits[:, start:end])
    return tree.node_probs(probs)


def topdown(node_logits: ArrayLike, tree: TreeShape, *, root: int = 0) -> FloatArray:
    """Softmax among the siblings at every branch, multiplied down each path.

    ``p(v) = p(parent(v)) * softmax(logits of the siblings of v)[v]``: the conditional softmax of
    hiercls (Valmadre, NeurIPS 2022), with the similarity of the image to each node's own prompt as
    its logit.

    Args:
        node_logits: ``[B, n_nodes]``; those of the root and of nodes outside ``root`` are unused.
        tree: The tree.
        root: Node to which the answer is confined.

    Raises:
        LabelMismatchError: Another number of columns than nodes.
        InferenceError: Logits that are not finite.
    """
    logits = _checked(node_logits, len(tree), "node_logits")
    probs = _above(tree, root, len(logits))
    for nodes, parents, starts in _generations(tree, root):
        siblings = _group_of(starts, len(nodes))
        here = logits[:, nodes]
        here = np.exp(here - np.maximum.reduceat(here, starts, axis=1)[:, siblings])
        here /= np.add.reduceat(here, starts, axis=1)[:, siblings]
        probs[:, nodes] = probs[:, parents] * here
    return probs.astype(np.float32)


def level(node_logits: ArrayLike, tree: TreeShape, *, root: int = 0) -> FloatArray:
    """Softmax over each depth of the tree, made consistent along paths.

    What a hierarchically trained model learned is a classifier per level, over the texts of that
    level's nodes. Level ``l`` chooses among the cut ``C_l`` of the tree at depth ``l``: the nodes
    at that depth and the leaves above it. With ``q_l = softmax(node_logits over C_l)``, a node
    ``v`` at depth ``l`` with parent ``u`` gets ::

        p(v) = q_l(v) * min(1, p(u) / sum of q_l over the children of u),   p(root) = 1

    that is, what its own level says, scaled down where the level gives the children of ``u``
    more than ``u`` itself was given. Siblings keep the order, and ratios, of their level; a level
    can only take mass away from what coarser levels granted, and ``p(u)`` minus the mass of its
    children is how much level ``l`` disagrees with them. Depths count from ``root``.

    Args:
        node_logits: ``[B, n_nodes]``; those of the root and of nodes outside ``root`` are unused.
        tree: The tree.
        root: Node to which the answer is confined.

    Raises:
        LabelMismatchError: Another number of columns than nodes.
        InferenceError: Logits that are not finite.
    """
    logits = _checked(node_logits, len(tree), "node_logits")
    probs = _above(tree, root, len(logits))
    is_leaf = tree.node_end == np.arange(1, len(tree) + 1)
    finished = np.full(len(logits), -np.inf)  # log of the summed weight of leaves further up
    for nodes, parents, starts in _generations(tree, root):
        siblings = _group_of(starts, len(nodes))
        here = logits[:, nodes]
        norm = np.logaddexp(np.logaddexp.reduce(here, axis=1), finished)
        q = np.exp(here - norm[:, None])
        family = np.add.reduceat(q, starts, axis=1)
        granted = probs[:, parents[starts]]
        scale = np.divide(granted, family, out=np.ones_like(family), where=family > granted)
        probs[:, nodes] = np.minimum(q * scale[:, siblings], granted[:, siblings])
        leaves = is_leaf[nodes]
        if leaves.any():
            done = np.logaddexp.reduce(here[:, leaves], axis=1)
            finished = np.logaddexp(finished, done)
    return probs.astype(np.float32)


def hyponyms(
    sub_logits: ArrayLike,
    sub_to_leaf: ArrayLike,
    tree: TreeShape,
    *,
    leaf_logits: ArrayLike | None = None,
    reduce: Literal["sum", "max"] = "sum",
    root: int = 0,
) -> FloatArray:
    """Classify among sub-labels, map back to the leaves, then sum up the tree (CHiLS, ICML 2023).

    The score of sub-label ``s`` of leaf ``j`` is
    ``softmax(sub_logits)[s] * softmax(leaf_logits)[j]`` (the paper's reweighting), or the first
    factor alone without ``leaf_logits``. A leaf gets the sum, or the maximum, of the scores of its
    sub-labels, normalised over the leaves. ``"max"`` chooses the leaf that CHiLS chooses, always;
    ``"sum"`` keeps probabilities additive.

    Args:
        sub_logits: ``[B, n_subs]``, over all sub-labels of all leaves.
        sub_to_leaf: int ``[n_subs]``, the leaf of each; every leaf has at least one, often itself.
        tree: The tree.
        leaf_logits: ``[B, n_leaves]`` of the labels' own prompts, for reweighting.
        reduce: How a leaf's sub-labels are put together.
        root: Node to which the answer is confined.

    Raises:
        LabelMismatchError: Columns that do not fit, or a leaf without sub-labels.
        InferenceError: Logits that are not finite.
    """
    leaf_of = np.asarray(sub_to_leaf, dtype=np.int64)
    n_subs = np.bincount(leaf_of[leaf_of >= 0], minlength=tree.n_leaves)
    if leaf_of.ndim != 1 or leaf_of.min(initial=0) < 0 or n_subs.shape != (tree.n_leaves,):
        raise LabelMismatchError(
            f"sub_to_leaf names leaves outside 0 to {tree.n_leaves - 1}",
            hint="give the leaf index of each sub-label",
        )
    if not n_subs.all():
        bare = np.flatnonzero(n_subs == 0)[:8].tolist()
        raise LabelMismatchError(f"leaves {bare} have no sub-labels", hint="add the leaf itself")
    start, end = _leaf_range(tree, root)
    order = np.argsort(leaf_of, kind="stable")
    order = order[(leaf_of[order] >= start) & (leaf_of[order] < end)]
    logits = _checked(sub_logits, len(leaf_of), "sub_logits")[:, order]
    score = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    if leaf_logits is not None:
        own = _checked(leaf_logits, tree.n_leaves, "leaf_logits")[:, start:end]
        own = own - np.logaddexp.reduce(own, axis=1)[:, None]
        score += own[:, leaf_of[order] - start]
    firsts = np.concatenate([[0], np.cumsum(n_subs[start:end])[:-1]])
    put_together = np.logaddexp if reduce == "sum" else np.maximum
    probs = np.zeros((len(logits), tree.n_leaves))
    probs[:, start:end] = softmax(put_together.reduceat(score, firsts, axis=1))
    return tree.node_probs(probs)


def _checked(logits: ArrayLike, n_columns: int, what: str) -> _Float64:
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != n_columns:
        raise LabelMismatchError(
            f"{what} has shape {array.shape}; {n_columns} columns are needed",
            hint="give [B, columns] in the order of the tree",
        )
    if not np.isfinite(array).all():
        raise InferenceError(f"{what} are not all finite", hint="check the model's features")
    return array


def _leaf_range(tree: TreeShape, root: int) -> tuple[int, int]:
    tree.check_node(root)
    return int(tree.leaf_start[root]), int(tree.leaf_end[root])


def _above(tree: TreeShape, root: int, n_rows: int) -> _Float64:
    """Zeros, but 1 from the tree's root down to ``root``."""
    probs = np.zeros((n_rows, len(tree)))
    probs[:, list(tree.ancestors_or_self(root))] = 1.0
    return probs


def _generations(tree: TreeShape, root: int) -> list[tuple[_Int, _Int, _Int]]:
    """Below ``root``, one depth at a time: nodes, their parents, and where each family starts.

    Nodes ascend; in preorder that puts siblings at one depth next to each other.
    """
    below = np.arange(root + 1, int(tree.node_end[root]))
    depth = tree.depth[below]
    by_depth = below[np.argsort(depth, kind="stable")]
    bounds = np.flatnonzero(np.diff(np.sort(depth))) + 1
    found = []
    for nodes in np.split(by_depth, bounds) if len(below) else []:
        parents = tree.parent[nodes].astype(np.int64)
        found.append((nodes, parents, np.flatnonzero(np.diff(parents, prepend=-2))))
    return found


def _group_of(starts: _Int, n: int) -> _Int:
    """The group of each of ``n`` columns, given where groups start."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=n))
