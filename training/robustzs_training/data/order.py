"""Which examples make up which batch: from ``(seed, epoch)`` alone.

The order is that of **global** batches, of all processes together; each process takes its own
rows of every batch. So two processes with B/2 images see at every step what one with B sees, and a
run that goes on at step ``k`` cuts the same order at another place.

*Shards* are read piece by piece: their order is drawn, and examples are mixed within windows of
several of them. *Siblings*: within a window, every round holds each class about once, in a
depth-first order of the tree with the children of every node shuffled anew, cut into groups of
``siblings`` examples. Neighbours in such an order share a parent where it has enough classes, else
a grandparent, and so on: all levels get their contrast. The groups are then shuffled, so that a
batch holds families from all over the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustzs.errors import DataError, LabelMismatchError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs_training.data.randomness import generator

IndexArray = npt.NDArray[np.int64]

CHUNKS_MIXED = 8
"""Shards that are open at a time."""
_BATCHES_MIXED = 4  # a window holds at least so many batches, however small its chunks are


@dataclass(frozen=True, kw_only=True)
class Families:
    """Classes and the trees that say which of them are siblings.

    Args:
        label_of: int64 ``[n]``, the class of each example.
        leaf_nodes: For each tree, the node of each class: int64 ``[n_classes]``.
        trees: They take turns, round by round.
        size: Examples of one family in a row.
    """

    label_of: IndexArray
    leaf_nodes: tuple[IndexArray, ...]
    trees: tuple[Hierarchy, ...]
    size: int

    @classmethod
    def of(
        cls, label_of: IndexArray, labels: LabelSet, hierarchy: Hierarchy | Forest, size: int
    ) -> Families:
        """Match classes and leaves by id.

        Raises:
            LabelMismatchError: A class that a tree does not have.
        """
        trees = hierarchy.trees if isinstance(hierarchy, Forest) else (hierarchy,)
        leaf_nodes = []
        for tree in trees:
            node = {tree.ids[i]: int(i) for i in tree.leaf_nodes}
            missing = [label.id for label in labels if label.id not in node]
            if missing:
                raise LabelMismatchError(
                    f"the tree {tree.name!r} has no leaf for {len(missing)} classes of the data: "
                    f"{', '.join(missing[:8])}",
                    hint="make the tree from the data's labels, or set data.siblings=1",
                )
            leaf_nodes.append(np.array([node[label.id] for label in labels], dtype=np.int64))
        return cls(label_of=label_of, leaf_nodes=tuple(leaf_nodes), trees=trees, size=size)


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """The order of examples.

    Args:
        n_examples: How many there are.
        batch_size: Of a global batch.
        seed: Of the run.
        chunks: Ranges of examples that are cheap to read together; all of one when ``None``.
        families: For siblings in a batch; ``None`` for a uniform order.

    Raises:
        DataError: Chunks that do not cover the examples once.
    """

    n_examples: int
    batch_size: int
    seed: int
    chunks: Sequence[tuple[int, int]] | None = None
    families: Families | None = None

    def __post_init__(self) -> None:
        stop = 0
        for start, end in self.chunks or [(0, self.n_examples)]:
            if start != stop or end < start:
                raise DataError(
                    f"the chunk [{start}, {end}) does not begin where the one before it ends: "
                    f"{stop}"
                )
            stop = end
        if stop != self.n_examples:
            raise DataError(f"chunks cover {stop} of {self.n_examples} examples")

    @property
    def n_batches(self) -> int:
        """Full global batches of an epoch; what is left over is dropped."""
        return self.n_examples // self.batch_size

    def batches(self, epoch: int, *, skip: int = 0) -> Iterator[IndexArray]:
        """Global batches of an epoch: int64 ``[batch_size]`` each.

        Args:
            epoch: From 0.
            skip: Batches at the beginning that are left out.
        """
        order = self.permutation(epoch)
        for number in range(skip, self.n_batches):
            yield order[number * self.batch_size : (number + 1) * self.batch_size]

    def permutation(self, epoch: int) -> IndexArray:
        """All examples of an epoch, each once: int64 ``[n_examples]``."""
        rng = generator("order", self.seed, epoch)
        windows = [self._arranged(window, rng) for window in self._windows(rng)]
        return np.concatenate(windows) if windows else np.empty(0, dtype=np.int64)

    def _windows(self, rng: np.random.Generator) -> Iterator[IndexArray]:
        if self.chunks is None or len(self.chunks) <= 1:
            yield np.arange(self.n_examples, dtype=np.int64)
            return
        ranges = [self.chunks[i] for i in rng.permutation(len(self.chunks))]
        held: list[IndexArray] = []
        for start, stop in ranges:
            held.append(np.arange(start, stop, dtype=np.int64))
            if len(held) >= CHUNKS_MIXED and (
                sum(map(len, held)) >= _BATCHES_MIXED * self.batch_size
            ):
                yield np.concatenate(held)
                held = []
        if held:
            yield np.concatenate(held)

    def _arranged(self, window: IndexArray, rng: np.random.Generator) -> IndexArray:
        if self.families is None:
            return window[rng.permutation(len(window))]
        return by_families(window, self.families, rng)


def by_families(window: IndexArray, families: Families, rng: np.random.Generator) -> IndexArray:
    """The examples of a window in groups of relatives, each example once.

    Args:
        window: Examples.
        families: Their classes and trees.
        rng: Random numbers.
    """
    shuffled = window[rng.permutation(len(window))]
    labels = families.label_of[shuffled]
    rounds, repeats = _rounds(labels, rng)
    by_round = np.argsort(rounds, kind="stable")
    n_rounds = int(rounds.max(initial=-1)) + 1
    ends = np.searchsorted(rounds[by_round], np.arange(n_rounds), side="right")
    places = np.empty(len(shuffled), dtype=np.int64)
    for number, inside in enumerate(np.split(by_round, ends[:-1]) if n_rounds else []):
        turn = number % len(families.trees)
        order = shuffled_leaves(families.trees[turn], rng)[families.leaf_nodes[turn]]
        places[inside] = order[labels[inside]]
    in_rounds = shuffled[np.lexsort((places, repeats, rounds))]
    n_groups = len(in_rounds) // families.size
    groups = in_rounds[: n_groups * families.size].reshape(n_groups, families.size)
    rest = in_rounds[n_groups * families.size :]
    return np.concatenate([groups[rng.permutation(n_groups)].reshape(-1), rest])


def _rounds(labels: IndexArray, rng: np.random.Generator) -> tuple[IndexArray, IndexArray]:
    """Spread each class evenly over rounds.

    Returns:
        The round of each example, and how many of its class come before it in that round.
    """
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    n_rounds = max(1, -(-len(labels) // max(len(classes), 1)))
    by_class = np.argsort(inverse, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    within = np.empty(len(labels), dtype=np.int64)
    within[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    start = rng.random(len(classes))
    share = (within + start[inverse]) / counts[inverse]
    rounds = np.minimum((share * n_rounds).astype(np.int64), n_rounds - 1)
    # A class that begins a round has as many before it as earlier rounds hold.
    key = inverse.astype(np.int64) * n_rounds + rounds
    _, key_start, key_inverse = np.unique(key[by_class], return_index=True, return_inverse=True)
    repeats = np.empty(len(labels), dtype=np.int64)
    repeats[by_class] = np.arange(len(labels)) - key_start[key_inverse]
    return rounds, repeats


def shuffled_leaves(tree: Hierarchy, rng: np.random.Generator) -> IndexArray:
    """A depth-first order with the children of every node shuffled.

    Returns:
        int64 ``[n_nodes]``: the place of each leaf among the leaves; inner nodes have the place of
        their first leaf.
    """
    n_leaves = tree.n_leaf_descendants.astype(np.int64)
    parent = tree.parent.astype(np.int64)
    # Among its siblings, in a random order, each node begins after the leaves of those before it.
    key = rng.random(len(tree))
    order = np.lexsort((key[1:], parent[1:])) + 1
    before = np.cumsum(n_leaves[order]) - n_leaves[order]
    is_first = np.concatenate([[True], parent[order][1:] != parent[order][:-1]])[: len(order)]
    group = np.cumsum(is_first) - 1
    offset = np.zeros(len(tree), dtype=np.int64)
    offset[order] = before - before[is_first][group] if len(order) else before
    for depth in range(1, int(tree.depth.max()) + 1):  # parents come first
        nodes = np.flatnonzero(tree.depth == depth)
        offset[nodes] += offset[parent[nodes]]
    return offset
