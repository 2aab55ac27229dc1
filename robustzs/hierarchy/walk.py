"""From node probabilities to an answer: one path from the root to a leaf, and where to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy.shape import FloatArray
from robustzs.hierarchy.tree import Hierarchy

if TYPE_CHECKING:
    from robustzs.answer import StopReason, StopRule

_RULES = ("greedy", "climb")


@dataclass(frozen=True)
class Walk:
    """One path, and the node to answer with.

    Args:
        path: Nodes from the root (the one asked for) to a leaf, without hidden ones.
        stop: Index in ``path`` of the answer.
        flat_top1: The most probable leaf, an index in leaf order; it need not lie on the path.
        reason: ``"leaf"``: the end was reached; ``"theta"``: the next node is not above theta;
            ``"max-depth"``: it is, but too deep; ``"level"``: the answer was forced at a level.
    """

    path: tuple[int, ...]
    stop: int
    flat_top1: int
    reason: StopReason

    @property
    def answer(self) -> int:
        """The node to answer with."""
        return self.path[self.stop]


def walk(
    node_probs: ArrayLike,
    tree: Hierarchy,
    *,
    theta: float,
    rule: StopRule = "greedy",
    root: int = 0,
    level: int | str | None = None,
    max_depth: int | None = None,
    flat_top1: ArrayLike | None = None,
) -> list[Walk]:
    """Walk each row of ``node_probs`` down the tree.

    ``"greedy"`` goes to the most probable child until a leaf; ``"climb"`` takes the path to the
    most probable leaf (HSC's Climbing). The answer is the deepest node of the path whose
    probability is above ``theta`` (strictly), or the root. For ``theta`` of at least 0.5 the nodes
    above it form a single chain, so that ``greedy`` is also "the most specific node that is more
    probable than theta" (Valmadre 2022; HSC's MaxCoverage).

    A forced ``level`` ignores ``theta``. Greedy then chooses the most probable node of the level's
    cut (see :meth:`Hierarchy.cut`; where a path ends above the level, its leaf), and the path
    leads there and on, greedily, to a leaf; climb takes the node that the fixed path has at the
    level. Ties go to the lowest index everywhere.

    Args:
        node_probs: ``[B, n_nodes]`` of a strategy in :mod:`robustzs.hierarchy.inference`, with the
            same ``root``.
        tree: The tree.
        theta: In [0, 1].
        rule: How the path is chosen.
        root: Where paths start.
        level: A depth (from the tree's root) or the name of a rank to answer at.
        max_depth: Depth (from the tree's root) below which no answer lies.
        flat_top1: int ``[B]`` leaf indices of the flat prediction, where the node probabilities do
            not imply it: ``topdown`` and ``level`` choose leaves by their own rules.

    Raises:
        UsageError: ``theta``, ``rule``, ``level`` or ``max_depth`` out of range.
        UnknownNodeError: No such root or rank.
        LabelMismatchError: Shapes that do not fit the tree.
    """
    _check_options(theta, rule, max_depth)
    tree.check_node(root)
    probs = np.asarray(node_probs, dtype=np.float32)
    if probs.ndim != 2 or probs.shape[1] != len(tree):
        raise LabelMismatchError(
            f"node_probs has shape {probs.shape}; hierarchy {tree.name!r} has {len(tree)} nodes"
        )
    top1 = _flat_top1(probs, tree, root, flat_top1)
    targets = _targets(probs, tree, level, rule, root, top1)
    walks = []
    for row, leaf, target in zip(probs, top1.tolist(), targets, strict=True):
        start = int(tree.leaf_nodes[leaf]) if rule == "climb" else (target or root)
        path = _visible_path(tree, root, _descend(row, tree, start))
        stop, reason = _stop(row, tree, path, theta, target, max_depth)
        walks.append(Walk(path, stop, leaf, reason))
    return walks


def _check_options(theta: float, rule: str, max_depth: int | None) -> None:
    if not (math.isfinite(theta) and 0.0 <= theta <= 1.0):
        raise UsageError(f"theta is {theta}", hint="give a probability from 0 to 1")
    if rule not in _RULES:
        raise UsageError(f"unknown rule {rule!r}", hint=f"one of {', '.join(_RULES)}")
    if max_depth is not None and max_depth < 0:
        raise UsageError(f"max_depth is {max_depth}", hint="0 is the root")


def _flat_top1(
    probs: FloatArray, tree: Hierarchy, root: int, given: ArrayLike | None
) -> NDArray[np.int64]:
    start, end = int(tree.leaf_start[root]), int(tree.leaf_end[root])
    if given is None:
        best: NDArray[np.int64] = np.argmax(probs[:, tree.leaf_nodes[start:end]], axis=1)
        return best + start
    top1 = np.asarray(given, dtype=np.int64)
    if top1.shape != (len(probs),) or not np.all((start <= top1) & (top1 < end)):
        raise LabelMismatchError(
            f"flat_top1 has shape {top1.shape} and must name one leaf from {start} to {end - 1} "
            f"for each of {len(probs)} rows"
        )
    return top1


def _targets(
    probs: FloatArray,
    tree: Hierarchy,
    level: int | str | None,
    rule: str,
    root: int,
    top1: NDArray[np.int64],
) -> list[int] | list[None]:
    """The node of the level's cut that each row answers with, if a level is forced."""
    if level is None:
        return [None] * len(probs)
    cut = np.maximum(tree.cut(level), root)  # a level above the root means the root
    if rule == "climb":
        return [int(node) for node in cut[top1]]
    candidates = np.unique(cut[tree.leaf_start[root] : tree.leaf_end[root]])
    return [int(node) for node in candidates[np.argmax(probs[:, candidates], axis=1)]]


def _descend(row: FloatArray, tree: Hierarchy, node: int) -> int:
    """The leaf at the end of the greedy path from ``node``."""
    while len(children := tree.children(node)):
        node = int(children[0] if len(children) == 1 else children[row[children].argmax()])
    return node


def _visible_path(tree: Hierarchy, root: int, leaf: int) -> tuple[int, ...]:
    path = tree.ancestors_or_self(leaf)[int(tree.depth[root]) :]
    return tuple(node for node in path if node == root or not tree.hidden[node])


def _stop(
    row: FloatArray,
    tree: Hierarchy,
    path: tuple[int, ...],
    theta: float,
    target: int | None,
    max_depth: int | None,
) -> tuple[int, StopReason]:
    if target is not None:  # a hidden target stands for the visible node above it
        return sum(tree.is_ancestor_or_self(node, target) for node in path) - 1, "level"
    falling = row[list(path)].astype(np.float64)  # theta is not rounded to float32
    stop = max(int(np.count_nonzero(falling > theta)) - 1, 0)
    reason: StopReason = "leaf" if stop == len(path) - 1 else "theta"
    if max_depth is not None:
        shallow = max(sum(int(tree.depth[node]) <= max_depth for node in path) - 1, 0)
        if shallow < stop:
            return shallow, "max-depth"
    return stop, reason
