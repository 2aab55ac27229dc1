"""Levels of a tree: which class each leaf belongs to at each of L + 1 levels, and who contrasts.

Level 0 is the leaf, level L the root, as in the paper's notation. Everything here is index
arithmetic, done once; the tensors follow the objective to its device.

Hidden nodes (spacers) and nodes with a single child below them are never classes of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from robustzs.errors import UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy

Cut = Literal["relative", "counts"]
Negatives = Literal["both", "finer", "coarser", "none"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of one tree.

    Attributes:
        nodes: The classes: node indices in the tree, ascending: ``[C]``.
        class_of_label: Place among ``nodes`` of each label: int64 ``[n_labels]``.
        columns: Rows of the prompt table that logits are taken over: int64 ``[K]``; the level's own
            classes first, then further negatives from the levels beside it.
        excluded: bool ``[C, K]``: columns that are no negative of a class, because they are the
            same node, above it or below it. The class's own column is never excluded.
    """

    nodes: tuple[int, ...]
    class_of_label: torch.Tensor
    columns: torch.Tensor
    excluded: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class TreeLevels:
    """All levels of one tree, 0 (leaves) to L (root).

    Attributes:
        name: The tree's.
        levels: L + 1 of them.
        edges: Prompt rows ``(child, parent)`` of classes at neighbouring levels, without repeats:
            int64 ``[E, 2]``.
        edge_weights: Leaves under each edge, divided by all leaves: float32 ``[E]``.
    """

    name: str
    levels: tuple[Level, ...]
    edges: torch.Tensor
    edge_weights: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class LevelTable:
    """Levels of a forest over one table of prompts.

    Attributes:
        prompts: Distinct texts; the first rows are the labels' where these are distinct.
        leaf_rows: Prompt row of each label: int64 ``[n_labels]``.
        trees: One for each tree.
    """

    prompts: tuple[str, ...]
    leaf_rows: torch.Tensor
    trees: tuple[TreeLevels, ...]


def build_levels(
    hierarchy: Hierarchy | Forest,
    *,
    n_levels: int = 5,
    cut: Cut = "relative",
    negatives: Negatives = "both",
) -> LevelTable:
    """Cut every tree at ``n_levels`` levels above its leaves.

    Labels are the leaves of the first tree, in its order.

    Args:
        hierarchy: One tree or several over the same leaves.
        n_levels: L; 5 in the paper, second-hand [S].
        cut: How ancestors are chosen; the paper does not say [R]. ``relative``: level l of a leaf
            is the node ``l / L`` of the way from it to the root, rounded. Paths of different
            lengths then can put a node and its ancestor at one level; such pairs are never
            contrasted. ``counts``: each level is a cut at one depth, the depth whose number of
            classes is nearest to ``n_leaves ** (1 - l / L)``; levels nest.
        negatives: Where further negatives of Eq. 9 come from: ``both`` neighbouring levels (the
            paper's best), only the ``finer`` or the ``coarser``, or ``none``.

    Raises:
        UsageError: No levels, an unknown option, or fewer than two leaves.
    """
    if n_levels < 1 or cut not in ("relative", "counts"):
        raise UsageError(f"{n_levels} levels cut {cut!r}", hint="at least 1; relative or counts")
    if negatives not in ("both", "finer", "coarser", "none"):
        raise UsageError(f"negatives are {negatives!r}", hint="choose both, finer, coarser or none")
    forest = hierarchy if isinstance(hierarchy, Forest) else Forest((hierarchy,))
    if forest.n_leaves < 2:
        raise UsageError("a hierarchy with one leaf has nothing to contrast", hint="add labels")
    first = forest.trees[0]
    rows: dict[str, int] = {}
    for leaf in first.leaf_nodes:
        rows.setdefault(first.prompts[leaf], len(rows))
    leaf_rows = torch.tensor([rows[first.prompts[leaf]] for leaf in first.leaf_nodes])
    trees = []
    for tree, order in zip(forest.trees, forest.leaf_order, strict=True):
        chains = _relative(tree, n_levels) if cut == "relative" else _counts(tree, n_levels)
        by_label = np.empty_like(chains)
        by_label[:, order] = chains
        label_of_leaf = {int(leaf): int(order[j]) for j, leaf in enumerate(tree.leaf_nodes)}
        # A leaf speaks with the label's prompt in every tree.
        texts = {
            int(node): first.prompts[first.leaf_nodes[label_of_leaf[int(node)]]]
            if int(node) in label_of_leaf
            else tree.prompts[node]
            for node in np.unique(chains)
        }
        for text in texts.values():
            rows.setdefault(text, len(rows))
        row_of_node = {node: rows[text] for node, text in texts.items()}
        trees.append(_tree_levels(tree, by_label, row_of_node, negatives))
    return LevelTable(prompts=tuple(rows), leaf_rows=leaf_rows, trees=tuple(trees))


def _relative(tree: Hierarchy, n_levels: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Node of each leaf at each level: ``[L + 1, n_leaves]``."""
    chains = np.empty((n_levels + 1, tree.n_leaves), np.int64)
    for column, leaf in enumerate(tree.leaf_nodes):
        path = _branching_path(tree, int(leaf))
        for level in range(n_levels + 1):
            chains[level, column] = path[int(level * (len(path) - 1) / n_levels + 0.5)]
    return chains


def _branching_path(tree: Hierarchy, leaf: int) -> list[int]:
    """From the leaf to the root: visible nodes, each with more leaves than the one before."""
    path = [leaf]
    counts = tree.n_leaf_descendants
    for node in reversed(tree.ancestors_or_self(leaf)):
        if counts[node] > counts[path[-1]] and not tree.hidden[node]:
            path.append(int(node))
    return path


def _counts(tree: Hierarchy, n_levels: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """As :func:`_relative`, by cuts at whole depths."""
    paths = {int(leaf): _branching_path(tree, int(leaf)) for leaf in tree.leaf_nodes}
    deepest = max(len(path) for path in paths.values()) - 1
    cuts = [
        np.array([path[max(len(path) - 1 - depth, 0)] for path in paths.values()])
        for depth in range(deepest + 1)
    ]
    sizes = np.log([len(np.unique(cut)) for cut in cuts])
    chains = np.empty((n_levels + 1, tree.n_leaves), np.int64)
    chains[0] = tree.leaf_nodes
    for level in range(1, n_levels + 1):
        wanted = np.log(tree.n_leaves) * (1.0 - level / n_levels)
        chains[level] = cuts[int(np.argmin(np.abs(sizes - wanted)))]
    return chains


def _tree_levels(
    tree: Hierarchy,
    chains: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    row_of_node: dict[int, int],
    negatives: Negatives,
) -> TreeLevels:
    classes = [np.unique(chain) for chain in chains]
    levels = []
    for level, nodes in enumerate(classes):
        beside: list[int] = []
        if negatives in ("both", "finer") and level > 0:
            beside += classes[level - 1].tolist()
        if negatives in ("both", "coarser") and level + 1 < len(classes):
            beside += classes[level + 1].tolist()
        further = sorted(set(beside) - set(nodes.tolist()))
        columns = np.concatenate([nodes, np.array(further, dtype=np.int64)])
        levels.append(
            Level(
                nodes=tuple(nodes.tolist()),
                class_of_label=torch.from_numpy(np.searchsorted(nodes, chains[level])),
                columns=torch.tensor([row_of_node[node] for node in columns.tolist()]),
                excluded=_same_lineage(tree, nodes, columns),
            )
        )
    edges, weights = _edges(chains, row_of_node)
    return TreeLevels(name=tree.name, levels=tuple(levels), edges=edges, edge_weights=weights)


def _same_lineage(
    tree: Hierarchy, nodes: Sequence[int] | np.ndarray, columns: np.ndarray
) -> torch.Tensor:
    """Bool ``[C, K]``: the column's node is above or below the class's; its own column is not."""
    starts, ends = tree.leaf_start, tree.leaf_end
    own = np.asarray(nodes)[:, None]
    other = columns[None]
    above = (starts[other] <= starts[own]) & (ends[own] <= ends[other])
    below = (starts[own] <= starts[other]) & (ends[other] <= ends[own])
    return torch.from_numpy((above | below) & (own != other))


def _edges(
    chains: np.ndarray[tuple[int, int], np.dtype[np.int64]], row_of_node: dict[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    counted: dict[tuple[int, int], int] = {}
    pairs: Iterable[tuple[int, int]] = (
        (int(child), int(parent))
        for finer, coarser in itertools.pairwise(chains)
        for child, parent in zip(finer, coarser, strict=True)
    )
    for child, parent in pairs:
        edge = (row_of_node[child], row_of_node[parent])
        if edge[0] != edge[1]:
            counted[edge] = counted.get(edge, 0) + 1
    edges = torch.tensor(sorted(counted), dtype=torch.int64).reshape(-1, 2)
    weights = torch.tensor([counted[edge] for edge in sorted(counted)], dtype=torch.float32)
    return edges, weights / chains.shape[1]
