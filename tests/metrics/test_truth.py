"""From labels of data to nodes: names, ids, senses, aliases, and senses that a tree collapsed."""

from __future__ import annotations

import pytest

from robustzs.errors import DataError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.grow import imagenet_tree
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.truth import leaves_below, truth_nodes

TREE = Hierarchy.from_nodes(
    [
        Node(id="thing"),
        Node(id="n02084071", parent_id="thing", name="dog", synset="dog.n.01"),
        Node(id="lab", parent_id="n02084071", name="Labrador", aliases=("Labrador retriever",)),
        Node(id="pug", parent_id="n02084071", name="pug", aliases=("small one",)),
        Node(id="cat", parent_id="thing", name="house cat", aliases=("small one",)),
        Node(id="crane1", parent_id="thing", name="crane"),
        Node(id="crane2", parent_id="thing", name="Crane"),
    ],
    name="small",
)


def test_labels_are_ids_synsets_names_and_aliases() -> None:
    labels = ["n02084071", "dog.n.01", "DOG", "labrador_retriever", "lab", "House Cat", "crane2"]
    found = [TREE.ids[node] for node in truth_nodes(labels, TREE).tolist()]
    assert found == ["n02084071"] * 3 + ["lab", "lab", "cat", "crane2"]
    assert truth_nodes([], TREE).tolist() == []


def test_all_that_no_node_stands_for_are_named_at_once() -> None:
    labels = ["dog", "unicorn", "crane", "small one", "n99999999", "unicorn"]
    with pytest.raises(DataError) as caught:
        truth_nodes(labels, TREE)
    message = str(caught.value)
    assert message.startswith("4 labels are no nodes of the hierarchy 'small'")
    for part in (
        "'unicorn'",
        "2 nodes named 'crane'",
        "'small one' is an alias of several nodes: pug, cat",
        "WordNet has no noun 'n99999999'",
    ):
        assert part in message


def test_a_sense_that_the_tree_collapsed_is_the_node_of_its_leaves() -> None:
    tree, index = imagenet_tree(), NounIndex.load()
    above_leaf = {leaf: _ancestors(leaf, index) for leaf in tree.leaf_ids}
    branches = [
        frozenset(tree.leaf_ids[tree.leaf_start[n] : tree.leaf_end[n]]) for n in range(len(tree))
    ]
    collapsed = 0
    for leaf in tree.leaf_ids[::25]:
        for above in index.get(leaf).hypernyms:
            if above in tree.ids:
                continue
            below = {leaf for leaf in tree.leaf_ids if above in above_leaf[leaf]}
            assert {tree.leaf_ids[j] for j in leaves_below(above, tree, index)} == below
            try:
                node = int(truth_nodes([above], tree)[0])
            except DataError:
                assert below not in branches
                continue
            collapsed += 1
            assert branches[node] == below
    assert collapsed > 5


def test_a_sense_whose_leaves_are_several_branches_is_refused() -> None:
    # domestic animals are dogs and house cats, without wolves and lions
    with pytest.raises(DataError, match=r"leaves below 'domestic_animal\.n\.01' are not those"):
        truth_nodes(["domestic_animal.n.01"], imagenet_tree())
    with pytest.raises(DataError, match=r"no leaf lies below 'abstraction\.n\.06'"):
        truth_nodes(["abstraction.n.06"], TREE)


def _ancestors(wnid: str, index: NounIndex) -> set[str]:
    found, pending = set(), [wnid]
    while pending:
        here = pending.pop()
        if here not in found:
            found.add(here)
            synset = index.get(here)
            pending += [*synset.hypernyms, *synset.instance_hypernyms]
    return found
