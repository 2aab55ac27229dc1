from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.data.order import (
    CHUNKS_MIXED,
    EpochOrder,
    Families,
    by_families,
    shuffled_leaves,
)

from robustzs.errors import DataError, LabelMismatchError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.grow import imagenet_tree
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet

NAMES = ("tabby", "persian cat", "beagle", "poodle", "collie", "oak", "maple", "chair", "sofa")


@cache
def small_tree() -> Hierarchy:
    labels = LabelSet.from_names(NAMES)
    tree = load_hierarchy("wordnet", labels, on_ambiguous="first").hierarchy
    assert isinstance(tree, Hierarchy)
    return tree


def chunks_of(sizes: list[int]) -> list[tuple[int, int]]:
    ends = np.cumsum([0, *sizes]).tolist()
    return list(itertools.pairwise(ends))


@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 3), st.integers(0, 3))
def test_every_example_comes_once(n: int, batch_size: int, seed: int, epoch: int) -> None:
    order = EpochOrder(n_examples=n, batch_size=batch_size, seed=seed)
    assert sorted(order.permutation(epoch).tolist()) == list(range(n))
    batches = list(order.batches(epoch))
    assert len(batches) == order.n_batches == n // batch_size
    assert {len(batch) for batch in batches} <= {batch_size}


def test_epochs_and_seeds_differ() -> None:
    order = EpochOrder(n_examples=100, batch_size=10, seed=0)
    again = EpochOrder(n_examples=100, batch_size=10, seed=0)
    other = EpochOrder(n_examples=100, batch_size=10, seed=1)
    assert (order.permutation(3) == again.permutation(3)).all()
    assert (order.permutation(3) != order.permutation(4)).any()
    assert (order.permutation(3) != other.permutation(3)).any()


def test_skipping_gives_the_rest_of_the_same_batches() -> None:
    order = EpochOrder(n_examples=100, batch_size=7, seed=0)
    whole = list(order.batches(2))
    for skip in (0, 1, 5, 14, 20):
        rest = list(order.batches(2, skip=skip))
        assert len(rest) == max(0, 14 - skip)
        assert all((a == b).all() for a, b in zip(whole[skip:], rest, strict=True))


def test_the_global_batch_does_not_depend_on_who_shares_it() -> None:
    one = list(EpochOrder(n_examples=100, batch_size=8, seed=0).batches(0))
    assert all(len(set(batch.tolist())) == 8 for batch in one)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 20))
def test_chunks_cover_everything_once(sizes: list[int], batch_size: int) -> None:
    order = EpochOrder(
        n_examples=sum(sizes), batch_size=batch_size, seed=0, chunks=chunks_of(sizes)
    )
    assert sorted(order.permutation(0).tolist()) == list(range(sum(sizes)))


def test_few_chunks_are_open_at_a_time() -> None:
    order = EpochOrder(n_examples=64_000, batch_size=64, seed=0, chunks=chunks_of([1000] * 64))
    chunk = order.permutation(0) // 1000
    first = {c: int(np.flatnonzero(chunk == c)[0]) for c in range(64)}
    last = {c: int(np.flatnonzero(chunk == c)[-1]) for c in range(64)}
    for place in range(0, 64_000, 500):
        n_open = sum(first[c] <= place <= last[c] for c in range(64))
        assert n_open <= CHUNKS_MIXED
    batches = list(order.batches(0))
    assert np.mean([len(set((batch // 1000).tolist())) for batch in batches]) > 6
    assert sorted(chunk[::1000].tolist()) != chunk[::1000].tolist()  # the chunks are shuffled


def test_small_chunks_are_mixed_over_several_batches() -> None:
    order = EpochOrder(n_examples=1000, batch_size=50, seed=0, chunks=chunks_of([4] * 250))
    batch = next(order.batches(0))
    assert len(set((batch // 4).tolist())) > 30


@pytest.mark.parametrize("chunks", [[(0, 5), (6, 10)], [(0, 10), (5, 10)], [(0, 9)], [(1, 10)]])
def test_chunks_that_leave_gaps_are_refused(chunks: list[tuple[int, int]]) -> None:
    with pytest.raises(DataError, match="chunk"):
        EpochOrder(n_examples=10, batch_size=2, seed=0, chunks=chunks)


# ---- siblings ------------------------------------------------------------------------------------


def families(
    tree: Hierarchy, label_of: npt.NDArray[np.int64], size: int, labels: LabelSet | None = None
) -> Families:
    return Families.of(label_of, labels or tree.labels, tree, size)


def siblings_per_parent(
    tree: Hierarchy, label_of: npt.NDArray[np.int64], batches: list[npt.NDArray[np.int64]]
) -> float:
    """Mean over batches and parents met there: distinct classes under one parent."""
    parents = tree.parent[tree.leaf_nodes]
    means = []
    for batch in batches:
        classes = np.unique(label_of[batch])
        _, counts = np.unique(parents[classes], return_counts=True)
        means.append(counts.mean())
    return float(np.mean(means))


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=300),
    st.integers(2, 5),
    st.integers(0, 5),
)
def test_siblings_leave_nobody_out(labels: list[int], size: int, seed: int) -> None:
    label_of = np.array(labels, dtype=np.int64)
    window = np.arange(len(labels), dtype=np.int64) + 0
    rng = np.random.default_rng(seed)
    found = by_families(window, families(small_tree(), label_of, size), rng)
    assert sorted(found.tolist()) == window.tolist()


def test_a_shuffled_tree_is_still_a_depth_first_order() -> None:
    tree = imagenet_tree()
    place = shuffled_leaves(tree, np.random.default_rng(0))
    leaves = place[tree.leaf_nodes]
    assert sorted(leaves.tolist()) == list(range(tree.n_leaves))
    for node in range(len(tree)):
        below = leaves[tree.leaf_start[node] : tree.leaf_end[node]]
        assert below.max() - below.min() == len(below) - 1  # families stay together
    again = shuffled_leaves(tree, np.random.default_rng(1))[tree.leaf_nodes]
    assert (again != leaves).mean() > 0.9


def test_siblings_meet_more_often_than_by_chance() -> None:
    tree = imagenet_tree()
    rng = np.random.default_rng(0)
    # About 30 images of each class, unevenly.
    label_of = np.sort(rng.permutation(np.repeat(np.arange(1000), rng.integers(15, 45, 1000))))
    label_of = label_of.astype(np.int64)
    uniform = EpochOrder(n_examples=len(label_of), batch_size=128, seed=0)
    chance = siblings_per_parent(tree, label_of, list(uniform.batches(0)))
    measured = {}
    for size in (2, 4, 8):
        order = EpochOrder(
            n_examples=len(label_of),
            batch_size=128,
            seed=0,
            families=families(tree, label_of, size),
        )
        batches = list(order.batches(0))
        measured[size] = siblings_per_parent(tree, label_of, batches)
        assert sorted(order.permutation(0).tolist()) == list(range(len(label_of)))
        # Variety stays: a batch is not one family.
        n_classes = np.mean([len(np.unique(label_of[batch])) for batch in batches])
        assert n_classes > 100
    assert chance < 1.25
    assert chance + 0.2 < measured[2] < measured[4] < measured[8]
    assert measured[4] > 1.6


def test_siblings_meet_at_several_levels() -> None:
    tree = imagenet_tree()
    label_of = np.repeat(np.arange(1000), 4).astype(np.int64)
    order = EpochOrder(
        n_examples=4000, batch_size=128, seed=0, families=families(tree, label_of, 4)
    )
    groups = np.concatenate(list(order.batches(0))).reshape(-1, 4)
    nodes = tree.leaf_nodes[label_of[groups]]
    meeting = tree.lca(tree.lca(nodes[:, 0], nodes[:, 1]), tree.lca(nodes[:, 2], nodes[:, 3]))
    climbed = tree.depth[nodes[:, 0]] - tree.depth[meeting]
    # A parent, a grandparent, ...: all of them occur, the nearest ones most.
    shares = [(climbed == height).mean() for height in (1, 2, 3)]
    assert min(shares) > 0.08
    assert (climbed <= 3).mean() > 0.6
    assert (meeting == 0).mean() < 0.05


def test_trees_of_a_forest_take_turns() -> None:
    first = small_tree()
    labels = first.labels
    flat = load_hierarchy("flat", labels).hierarchy
    assert isinstance(flat, Hierarchy)
    label_of = np.repeat(np.arange(len(labels)), 40).astype(np.int64)
    forest = Families.of(label_of, labels, Forest((first, flat)), 3)
    tree = Families.of(label_of, labels, first, 3)

    def mean(chosen: Families) -> float:
        order = EpochOrder(n_examples=len(label_of), batch_size=3, seed=0, families=chosen)
        return siblings_per_parent(first, label_of, list(order.batches(0)))

    chance = EpochOrder(n_examples=len(label_of), batch_size=3, seed=0)
    low = siblings_per_parent(first, label_of, list(chance.batches(0)))
    assert low < mean(forest) < mean(tree)


def test_labels_are_matched_to_leaves_by_id() -> None:
    tree = small_tree()
    backwards = LabelSet(tuple(reversed(tree.labels.labels)))
    label_of = np.repeat(np.arange(len(backwards)), 20).astype(np.int64)
    chosen = Families.of(label_of, backwards, tree, 3)
    order = EpochOrder(n_examples=len(label_of), batch_size=3, seed=0, families=chosen)
    in_tree_order = len(backwards) - 1 - label_of
    chance = EpochOrder(n_examples=len(label_of), batch_size=3, seed=0)
    assert siblings_per_parent(tree, in_tree_order, list(order.batches(0))) > (
        siblings_per_parent(tree, in_tree_order, list(chance.batches(0))) + 0.1
    )


def test_a_tree_of_other_classes_is_refused() -> None:
    with pytest.raises(LabelMismatchError, match="has no leaf for 1 classes of the data: tuba"):
        Families.of(np.zeros(3, np.int64), LabelSet.from_names(["tuba"]), small_tree(), 2)


def test_siblings_of_the_whole_of_imagenet_are_arranged_in_seconds() -> None:
    import time

    tree = imagenet_tree()
    label_of = np.repeat(np.arange(1000), 200).astype(np.int64)
    order = EpochOrder(
        n_examples=200_000, batch_size=256, seed=0, families=families(tree, label_of, 4)
    )
    began = time.perf_counter()
    next(order.batches(0))
    assert time.perf_counter() - began < 20  # 1 s alone on one core
