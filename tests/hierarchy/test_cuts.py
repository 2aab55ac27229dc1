"""Cuts: the same leaves in other trees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from robustzs.errors import UsageError
from robustzs.hierarchy.build import BuildOptions, Node
from robustzs.hierarchy.cuts import cut_at_counts, cut_at_depths, with_other_parents
from robustzs.hierarchy.grow import imagenet_tree
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy

TREE = imagenet_tree()


@st.composite
def trees(draw: st.DrawFn) -> Hierarchy:
    """Random trees with an inner node below the root."""
    n_nodes = draw(st.integers(3, 40))
    parents = [draw(st.integers(0, i - 1)) for i in range(2, n_nodes)]
    nodes = [Node(id="0"), Node(id="1", parent_id="0"), Node(id="leaf", parent_id="1")]
    nodes += [Node(id=f"{i}", parent_id=f"{p}") for i, p in enumerate(parents, start=2)]
    return Hierarchy.from_nodes(nodes, name="random")


def _ancestors(tree: Hierarchy, leaf_id: str) -> list[str]:
    """Inner nodes above a leaf, root first."""
    above, node = [], int(tree.parent[tree.index(leaf_id)])
    while node >= 0:
        above.append(tree.ids[node])
        node = int(tree.parent[node])
    return above[::-1]


@given(trees(), st.sets(st.integers(1, 6), min_size=1))
def test_a_cut_keeps_what_lies_at_its_depths_and_the_order(
    tree: Hierarchy, depths: set[int]
) -> None:
    inner = {tree.ids[i] for i in range(1, len(tree)) if not tree.is_leaf(i)}
    at = {i for i in inner if int(tree.depth[tree.index(i)]) in depths}
    if not at:
        with pytest.raises(UsageError, match="no inner node"):
            cut_at_depths(tree, sorted(depths))
        return
    cut = cut_at_depths(tree, sorted(depths))
    assert cut.leaf_ids == tree.leaf_ids
    for leaf in tree.leaf_ids:
        kept = [node for node in _ancestors(tree, leaf)[1:] if node in at]
        found = _ancestors(cut, leaf)
        assert found[0] == tree.ids[0]
        # What is gone had a single child left.
        assert set(found[1:]) <= set(kept)
        assert found[1:] == [node for node in kept if node in found]
    for node in range(1, len(cut)):
        assert cut.is_leaf(node) or len(cut.children(node)) > 1
    for gone in at - set(cut.ids):
        # Its leaves are still told apart from the others, by a node below it or one leaf alone.
        span = {leaf for leaf in tree.leaf_ids if gone in _ancestors(tree, leaf)}
        same = [i for i in cut.ids if _leaves_below(cut, i) == span]
        assert same


def _leaves_below(tree: Hierarchy, node_id: str) -> set[str]:
    node = tree.index(node_id)
    return set(tree.leaf_ids[tree.leaf_start[node] : tree.leaf_end[node]])


@given(trees(), st.data())
def test_a_level_by_count_has_as_many_classes(tree: Hierarchy, data: st.DataObject) -> None:
    assume(tree.n_leaves >= 3)
    count = data.draw(st.integers(2, tree.n_leaves - 1))
    cut = cut_at_counts(tree, [count])
    assert cut.leaf_ids == tree.leaf_ids
    n_classes = len(cut.children(0))
    widest = max(len(tree.children(i)) for i in range(len(tree)))
    # Collapsed classes are those leaves themselves, so the count stays.
    assert count <= n_classes < count + max(1, widest)


def test_other_parents_never_close_a_ring_and_keep_every_leaf() -> None:
    nodes = [
        Node(id="thing"),
        Node(id="animal", parent_id="thing"),
        Node(id="pet", parent_id="thing"),
        Node(id="dog", parent_id="animal"),
        Node(id="wolf", parent_id="animal"),
        Node(id="poodle", parent_id="dog"),
        Node(id="pug", parent_id="dog"),
        Node(id="goldfish", parent_id="pet"),
        Node(id="budgie", parent_id="pet"),
    ]
    edges = [("dog", "pet"), ("animal", "dog"), ("wolf", "poodle"), ("pug", "nowhere")]
    tree = Hierarchy.from_nodes(nodes, name="t", options=BuildOptions(), dropped_edges=edges)
    moved = with_other_parents(tree)
    assert set(moved.leaf_ids) == set(tree.leaf_ids)
    assert _ancestors(moved, "pug") == ["thing", "pet", "dog"]
    # "animal" is left with the wolf alone and gives way to it.
    assert _ancestors(moved, "wolf") == ["thing"]
    assert ("dog", "animal") in moved.dropped_edges
    with pytest.raises(UsageError, match="no node"):
        with_other_parents(Hierarchy.from_nodes(nodes, name="t"))


def test_dogs_are_domestic_animals_in_the_other_tree_of_imagenet() -> None:
    index = NounIndex.load()
    other = with_other_parents(TREE, index)
    assert set(other.leaf_ids) == set(TREE.leaf_ids)
    dog = index.get("dog.n.01").wnid
    assert TREE.names[TREE.parent[TREE.index(dog)]] == "canine"
    assert other.names[other.parent[other.index(dog)]] == "domestic animal"
    assert (dog, index.get("canine.n.02").wnid) in other.dropped_edges


def test_five_trees_of_imagenet_make_a_forest(tmp_path: Path) -> None:
    forest = [
        TREE,
        cut_at_depths(TREE, [3, 5, 8]),
        cut_at_depths(TREE, [4, 7]),
        cut_at_counts(TREE, [10, 50, 200]),
        with_other_parents(TREE, NounIndex.load()),
    ]
    files = []
    for number, tree in enumerate(forest):
        path = tmp_path / f"{number}.json"
        path.write_text(tree.to_json(), encoding="utf-8")
        files.append(str(path))
    loaded = load_hierarchy(",".join(files))
    assert len(loaded.trees) == 5
    assert {tree.digest for tree in loaded.trees} == {tree.digest for tree in forest}
    assert len({tree.digest for tree in forest}) == 5
    groupings = set()
    for tree in loaded.trees:
        assert set(tree.leaf_ids) == set(TREE.leaf_ids)
        assert dict(tree.provenance)["licence"]
        inner = [i for i in range(len(tree)) if not tree.is_leaf(i)]
        groupings.add(frozenset(frozenset(_leaves_below(tree, tree.ids[i])) for i in inner))
    assert len(groupings) == 5, "not five names of one tree"
    assert "depths 3, 5, 8 of sha256:" in dict(forest[1].provenance)["cut"]
    level = forest[3].ancestor_at_depth(1)
    assert 10 <= len(np.unique(level)) < 25


@pytest.mark.parametrize("depths", [[], [0], [-1, 3], [16, 17]])
def test_depths_that_cannot_be(depths: list[int]) -> None:
    with pytest.raises(UsageError):
        cut_at_depths(TREE, depths)


@pytest.mark.parametrize("counts", [[], [1], [1000], [10, 5000]])
def test_counts_that_cannot_be(counts: list[int]) -> None:
    with pytest.raises(UsageError):
        cut_at_counts(TREE, counts)
