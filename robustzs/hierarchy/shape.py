"""The shape of a tree: parents, depths and leaf ranges, without names.

Nodes stand in depth-first preorder, so that parents come before children, the subtree of node
``i`` is the range ``[i, node_end[i])`` of nodes, and its leaves are the range
``[leaf_start[i], leaf_end[i])`` of columns. The probability mass of every node is then a difference
of prefix sums: linear in nodes, where a matrix over the concrete nouns of WordNet would hold 817
million entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import HierarchyError, LabelMismatchError, UnknownNodeError, UsageError

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]
_Scalar = TypeVar("_Scalar", bound=np.generic)

_SUM_TOLERANCE = 1e-3  # float32 softmax over 25 thousand leaves stays within 1e-5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TreeShape:
    """Which node hangs under which.

    Args:
        parent: int32 ``[n_nodes]`` in preorder, -1 for the root. Copied, and read-only.

    Attributes:
        node_end: int32 ``[n_nodes]``; the subtree of ``i`` is the nodes ``[i, node_end[i])``.
        leaf_nodes: int32 ``[n_leaves]``; node index of each leaf: leaf order, which is the order
            of labels and of columns of logits.
        leaf_start: int32 ``[n_nodes]``; node ``i`` covers leaves ``[leaf_start[i], leaf_end[i])``.
        leaf_end: int32 ``[n_nodes]``.
        depth: int32 ``[n_nodes]``, edges from the root.
    """

    parent: IntArray
    node_end: IntArray = field(init=False)
    leaf_nodes: IntArray = field(init=False)
    leaf_start: IntArray = field(init=False)
    leaf_end: IntArray = field(init=False)
    depth: IntArray = field(init=False)

    def __post_init__(self) -> None:
        parent = frozen(np.array(self.parent, dtype=np.int32))
        depth, node_end = _depth_and_end(parent)
        is_leaf = node_end == np.arange(1, len(parent) + 1)
        before = np.concatenate([[0], np.cumsum(is_leaf)])
        derived = {
            "parent": parent,
            "depth": depth,
            "node_end": node_end,
            "leaf_nodes": frozen(np.flatnonzero(is_leaf).astype(np.int32)),
            "leaf_start": frozen(before[:-1].astype(np.int32)),
            "leaf_end": frozen(before[node_end].astype(np.int32)),
        }
        for key, array in derived.items():
            object.__setattr__(self, key, array)

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def n_nodes(self) -> int:
        """Nodes, leaves included."""
        return len(self.parent)

    @property
    def n_leaves(self) -> int:
        """Leaves, which are the labels."""
        return len(self.leaf_nodes)

    def is_leaf(self, node: int) -> bool:
        """Whether ``node`` has no children."""
        return bool(self.node_end[node] == node + 1)

    def is_ancestor_or_self(self, above: int, below: int) -> bool:
        """Whether ``below`` lies in the subtree of ``above``."""
        return bool(above <= below < self.node_end[above])

    def ancestors_or_self(self, node: int) -> tuple[int, ...]:
        """The path from the root to ``node``, both included."""
        self.check_node(node)
        path = [int(node)]
        while self.parent[path[-1]] >= 0:
            path.append(int(self.parent[path[-1]]))
        return tuple(reversed(path))

    @cached_property
    def _children(self) -> tuple[IntArray, NDArray[np.int64]]:
        """Nodes grouped by parent, and where each parent's group starts."""
        grouped = np.argsort(self.parent[1:], kind="stable").astype(np.int32) + np.int32(1)
        counts = np.bincount(self.parent[1:], minlength=len(self))
        return frozen(grouped), frozen(np.concatenate([[0], np.cumsum(counts)]))

    def children(self, node: int) -> IntArray:
        """Children of ``node``, ascending; empty for a leaf."""
        grouped, start = self._children
        return grouped[start[node] : start[node + 1]]

    def lca(self, u: ArrayLike, v: ArrayLike) -> IntArray:
        """Lowest common ancestor-or-self of each pair; shapes broadcast, as in NumPy."""
        first, below = np.broadcast_arrays(np.asarray(u, np.int32), np.asarray(v, np.int32))
        above: IntArray = np.array(first, dtype=np.int32)
        while np.any(apart := (above > below) | (below >= self.node_end[above])):
            above[apart] = self.parent[above[apart]]
        return above

    def ancestor_at_depth(self, depth: int, nodes: ArrayLike | None = None) -> IntArray:
        """The ancestor-or-self of each node at ``depth``; a node that is no deeper stays itself.

        Args:
            depth: Edges from the root, at least 0.
            nodes: Node indices of any shape; the leaves, in leaf order, when ``None``.
        """
        if depth < 0:
            raise UsageError(f"depth {depth} is negative", hint="0 is the root")
        at = np.array(self.leaf_nodes if nodes is None else nodes, dtype=np.int32)
        while np.any(deep := self.depth[at] > depth):
            at[deep] = self.parent[at[deep]]
        return at

    @property
    def n_leaf_descendants(self) -> IntArray:
        """Leaves at or below each node: int32 ``[n_nodes]``."""
        return self.leaf_end - self.leaf_start

    @cached_property
    def specificity(self) -> FloatArray:
        """``1 - log(n_leaf_descendants) / log(n_leaves)``: 0 at the root, 1 at leaves, float32.

        The coverage of a node in hierarchical selective classification (NeurIPS 2024). A tree of
        one leaf says everything it can at every node: 1.
        """
        if self.n_leaves == 1:
            return frozen(np.ones(len(self), dtype=np.float32))
        share = np.log(self.n_leaf_descendants) / np.log(self.n_leaves)
        return frozen((1.0 - share).astype(np.float32))

    @cached_property
    def height(self) -> IntArray:
        """Edges from each node to its deepest leaf: int32 ``[n_nodes]``."""
        deepest = self.depth.copy()
        for i in range(len(self) - 1, 0, -1):
            deepest[self.parent[i]] = max(deepest[self.parent[i]], deepest[i])
        return frozen(deepest - self.depth)

    def node_probs(self, leaf_probs: ArrayLike) -> FloatArray:
        """Sum leaf probabilities up the tree: float32 ``[B, n_nodes]``.

        Prefix sums in float64, rounded once: the root is exactly 1 and no child exceeds its parent.

        Args:
            leaf_probs: ``[B, n_leaves]`` in leaf order, rows summing to 1 within 1e-3.

        Raises:
            LabelMismatchError: Another number of columns than leaves.
            HierarchyError: Negative, not finite, or not summing to 1.
        """
        probs = np.asarray(leaf_probs)
        if probs.ndim != 2 or probs.shape[1] != self.n_leaves:
            raise LabelMismatchError(
                f"leaf_probs has shape {probs.shape}; the tree has {self.n_leaves} leaves",
                hint="give [B, n_leaves], columns in leaf order",
            )
        mass = np.empty((len(probs), len(self)), dtype=np.float32)
        below = np.zeros(self.n_leaves + 1)
        for i, row in enumerate(probs):  # one row's sums stay in cache: 3 times faster than all
            np.cumsum(row, dtype=np.float64, out=below[1:])
            total = below[-1]
            if not abs(total - 1.0) <= _SUM_TOLERANCE or row.min() < 0.0:  # "not": NaN fails, too
                raise HierarchyError(
                    f"leaf_probs[{i}] are not probabilities: sum {total}, smallest {row.min()}",
                    hint="give a softmax over the leaves",
                )
            below /= total
            node = below.take(self.leaf_end)
            node -= below.take(self.leaf_start)
            mass[i] = node
        return mass

    def check_node(self, node: int) -> None:
        """Raise :class:`~robustzs.errors.UnknownNodeError` when ``node`` is not an index."""
        if not 0 <= node < len(self):
            raise UnknownNodeError(f"the tree has no node {node}", hint=f"0 to {len(self) - 1}")


def frozen(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """The same array, made read-only."""
    array.setflags(write=False)
    return array


def _depth_and_end(parent: IntArray) -> tuple[IntArray, IntArray]:
    """Depth and end of the subtree of each node, or an error when the order is not a preorder."""
    parents: list[int] = parent.tolist()
    if not parents or parents[0] != -1:
        raise HierarchyError("a hierarchy starts with its root", hint="use Hierarchy.from_nodes")
    depth = [0] * len(parents)
    end = [len(parents)] * len(parents)
    path = [0]
    for i in range(1, len(parents)):
        while path and path[-1] != parents[i]:
            end[path.pop()] = i
        if not path:
            raise HierarchyError(
                f"node {i} with parent {parents[i]} is not in depth-first order",
                hint="use Hierarchy.from_nodes, which sorts",
            )
        depth[i] = len(path)
        path.append(i)
    return frozen(np.array(depth, dtype=np.int32)), frozen(np.array(end, dtype=np.int32))
