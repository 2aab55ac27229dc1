from __future__ import annotations

import pickle

import numpy as np
import pytest

from robustzs.errors import HierarchyError, LabelMismatchError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from tests.hierarchy.trees import animals


def by_size() -> Hierarchy:
    """The same leaves as ``animals``, in another tree and order."""
    parents = {"cat": "small", "poodle": "small", "husky": "small", "bus": "large", "car": "large"}
    nodes = [Node(id="thing"), *(Node(id=i, parent_id="thing") for i in ("small", "large"))]
    return Hierarchy.from_nodes(
        [*nodes, *(Node(id=i, parent_id=p) for i, p in parents.items())], name="size"
    )


def test_leaf_order_carries_columns_from_the_first_tree_to_each() -> None:
    forest = Forest((animals(), by_size()))
    leaf_probs = np.array([[0.4, 0.1, 0.2, 0.05, 0.25]])  # car, bus, poodle, husky, cat
    first, second = forest.leaf_order
    assert first.tolist() == [0, 1, 2, 3, 4]
    size = forest[1]
    probs = size.node_probs(leaf_probs[:, second])
    for leaf_id, p in zip(forest[0].leaf_ids, leaf_probs[0], strict=True):
        assert probs[0, size.index(leaf_id)] == pytest.approx(p)
    assert probs[0, size.index("small")] == pytest.approx(0.5)


def test_a_forest_is_a_sequence_of_trees_with_the_labels_of_the_first() -> None:
    forest = Forest((animals(), by_size()))
    assert [tree.name for tree in forest] == ["animals", "size"]
    assert (len(forest), forest.n_leaves) == (2, 5)
    assert [label.id for label in forest.labels] == list(animals().leaf_ids)


def test_digest_depends_on_trees_and_their_order() -> None:
    forest = Forest((animals(), by_size()))
    assert pickle.loads(pickle.dumps(forest)) == forest
    assert Forest((animals(), by_size())).digest == forest.digest
    digests = {forest.digest, Forest((by_size(), animals())).digest, Forest((animals(),)).digest}
    assert len(digests) == 3
    assert animals().digest not in digests


def test_leaves_that_differ_are_named() -> None:
    fewer = by_size().restrict(["cat", "car", "bus"])
    other = Hierarchy.from_nodes([Node(id="r"), Node(id="mouse", parent_id="r")], name="mice")
    with pytest.raises(LabelMismatchError) as caught:
        Forest((animals(), fewer, other))
    assert "2 leaves only in 'animals': husky, poodle" in caught.value.message
    assert "1 leaves only in 'mice': mouse" in caught.value.message
    assert len(caught.value.problems) == 2


def test_a_forest_needs_trees_of_distinct_names() -> None:
    with pytest.raises(HierarchyError, match="at least one"):
        Forest(())
    with pytest.raises(HierarchyError, match=r"\['animals'\]"):
        Forest((animals(), animals()))
