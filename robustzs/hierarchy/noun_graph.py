"""WordNet's hypernym graph as arrays, with a few edges put right, and the tree inside it.

A synset can have several hypernyms; the tree keeps for each the one with the **longest** path to
the root, and of equally long ones the lowest offset. Longest paths keep what people expect: dog,
canine, carnivore, mammal, where the shortest goes dog, domestic animal, animal and skips mammal.
"""

from __future__ import annotations

import csv
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustzs.hierarchy.noun_index import BoolArray, Int32Array, NounIndex

OVERRIDES_PATH = Path(__file__).parent / "data" / "wordnet_overrides.csv"
"""``child,remove,add,reason``: wnids of an edge to drop and of the hypernym that replaces it."""


class NounGraph:
    """The hypernym edges of an index, overrides applied.

    Args:
        index: The nouns.
        instances: Whether individuals (``Ganges``) belong to the graph.
    """

    def __init__(self, index: NounIndex, *, instances: bool = True) -> None:
        child, parent, is_instance = index.edges
        keep = np.ones(len(child), dtype=bool) if instances else ~is_instance
        added: list[tuple[int, int]] = []
        for row_child, row_removed, row_added in _overrides(index):
            keep &= ~((child == row_child) & (parent == row_removed))
            if row_added is not None:
                added.append((row_child, row_added))
        extra = np.array(added, dtype=np.int32).reshape(-1, 2)
        self.n_rows = len(index)
        self.child: Int32Array = np.concatenate([child[keep], extra[:, 0]])
        self.parent: Int32Array = np.concatenate([parent[keep], extra[:, 1]])

    @cached_property
    def tree_parent(self) -> Int32Array:
        """:meth:`tree_parents` of the whole graph."""
        return self.tree_parents(np.ones(self.n_rows, dtype=bool))

    @cached_property
    def information(self) -> npt.NDArray[np.float64]:
        """Minus the logarithm of each row's share of all rows, by its subtree; ``[n_rows]``, nats.

        0 for the root, ln(n_rows) for a row without hyponyms (Resnik's information content with
        every noun counted once).
        """
        depth = np.zeros(self.n_rows, dtype=np.int32)
        has_parent = self.tree_parent >= 0
        while True:
            deeper = np.where(has_parent, depth[self.tree_parent] + 1, 0)
            if np.array_equal(deeper, depth):
                break
            depth = deeper
        size = np.ones(self.n_rows, dtype=np.int64)
        for level in range(int(depth.max()), 0, -1):
            rows = np.flatnonzero(depth == level)
            np.add.at(size, self.tree_parent[rows], size[rows])
        return -np.log(size / self.n_rows)

    def tree_path(self, row: int) -> list[int]:
        """A row and its ancestors in the tree, upwards."""
        path = []
        while row >= 0:
            path.append(row)
            row = int(self.tree_parent[row])
        return path

    def below(self, row: int) -> BoolArray:
        """Mask ``[n_rows]`` of a row and everything under it."""
        mask = np.zeros(self.n_rows, dtype=bool)
        mask[row] = True
        _spread(mask, self.parent, self.child)
        return mask

    def above(self, rows: npt.ArrayLike, *, within: BoolArray | None = None) -> BoolArray:
        """Mask ``[n_rows]`` of some rows and everything above them, inside ``within``."""
        mask = np.zeros(self.n_rows, dtype=bool)
        mask[np.asarray(rows, dtype=np.int32)] = True
        inside = slice(None) if within is None else within[self.parent]
        _spread(mask, self.child[inside], self.parent[inside])
        return mask

    def tree_parents(self, within: BoolArray) -> Int32Array:
        """The one parent of each row, int32 ``[n_rows]``: -1 for roots and rows not ``within``.

        Args:
            within: Mask ``[n_rows]``; only edges between its rows count.
        """
        inside = within[self.child] & within[self.parent]
        child, parent = self.child[inside], self.parent[inside]
        longest = np.zeros(self.n_rows, dtype=np.int32)  # edges to the root
        while True:
            before = longest.copy()
            np.maximum.at(longest, child, longest[parent] + 1)
            if np.array_equal(before, longest):
                break
        order = np.lexsort((parent, -longest[parent], child))
        child, parent = child[order], parent[order]
        found, first = np.unique(child, return_index=True)
        result = np.full(self.n_rows, -1, dtype=np.int32)
        result[found] = parent[first]
        return result

    def other_edges(self, within: BoolArray, tree_parent: Int32Array) -> list[tuple[int, int]]:
        """Edges ``(child, parent)`` between rows ``within`` that the tree does not keep; sorted."""
        inside = within[self.child] & within[self.parent] & (tree_parent[self.child] != self.parent)
        pairs = zip(self.child[inside].tolist(), self.parent[inside].tolist(), strict=True)
        return sorted(set(pairs))


@lru_cache(maxsize=4)
def noun_graph(index: NounIndex, *, instances: bool = True) -> NounGraph:
    """The graph of an index, made once."""
    return NounGraph(index, instances=instances)


def _spread(mask: BoolArray, source: Int32Array, target: Int32Array) -> None:
    """Grow ``mask`` in place along edges until nothing is added."""
    size = -1
    while size != (size := int(mask.sum())):
        mask[target[mask[source]]] = True


def _overrides(index: NounIndex) -> list[tuple[int, int, int | None]]:
    with OVERRIDES_PATH.open(encoding="utf-8", newline="") as lines:
        return [
            (
                index.row(entry["child"]),
                index.row(entry["remove"]),
                index.row(entry["add"]) if entry["add"] else None,
            )
            for entry in csv.DictReader(lines)
        ]
