"""Trees as objects, files and names mean the same; a forest says which tree lacks what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustzs import Forest, LabelSet
from robustzs.classifier import Classifier, Embedder
from robustzs.errors import LabelMismatchError, UnknownNodeError
from robustzs.hierarchy.formats import read_hierarchy
from robustzs.labels.label import Label
from tests.factories import LEAVES, picture

# The prompts of the two cats are swapped, so that whoever ignores them names the wrong one.
SWAPPED = LabelSet(
    tuple(
        Label(
            id=name,
            name=name.upper(),
            prompt={"tabby": "siamese", "siamese": "tabby"}.get(name, name),
            synset="jeep.n.01" if name == "jeep" else None,
            aliases=("puss",) if name == "tabby" else (),
        )
        for name in LEAVES
    )
)


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.load(tiny_bundle)


def make(embedder: Embedder, **arguments: Any) -> Classifier:
    return Classifier(embedder, templates="{}", **arguments)


@pytest.mark.parametrize("kind", ["tree", "forest", "list"])
def test_labels_rule_trees_that_are_there_as_they_rule_files(
    embedder: Embedder, tree_file: Path, kind: str
) -> None:
    tree = read_hierarchy(tree_file)
    given = {"tree": tree, "forest": Forest((tree,)), "list": [tree]}[kind]
    from_file = make(embedder, labels=SWAPPED, hierarchy=tree_file)
    from_object = make(embedder, labels=SWAPPED, hierarchy=given)
    answer = from_object.classify(picture("siamese"), name="x")
    assert answer.flat_top1.name == "TABBY"
    assert answer == from_file.classify(picture("siamese"), name="x")
    assert from_object.labels == from_file.labels == SWAPPED
    assert make(embedder, hierarchy=given).labels == tree.labels


def test_every_tree_of_a_forest_has_the_labels_fields(embedder: Embedder, tree_file: Path) -> None:
    tree = read_hierarchy(tree_file)
    other = read_hierarchy(tree_file, name="other")
    for given in (Forest((tree, other)), [tree, other], [tree_file, other]):
        forest = make(embedder, labels=SWAPPED, hierarchy=given).forest
        assert [one.name for one in forest] == ["tree", "other"]
        assert all(one.labels == SWAPPED for one in forest)


def test_named_trees_stand_beside_objects(embedder: Embedder, tree_file: Path) -> None:
    tree = read_hierarchy(tree_file)
    mixed = make(embedder, hierarchy=["flat", tree]).classify(picture("jeep"), name="x")
    assert mixed == make(embedder, hierarchy=["flat", tree_file]).classify(
        picture("jeep"), name="x"
    )


def test_labels_that_are_not_the_leaves_are_named(embedder: Embedder, tree_file: Path) -> None:
    tree = read_hierarchy(tree_file)
    with pytest.raises(LabelMismatchError, match=r"'tree'.*jeep \(1 in all\)"):
        make(embedder, labels=LEAVES[:-1], hierarchy=tree)


def test_a_forest_names_the_tree_that_lacks_a_root_or_a_rank(
    tiny_bundle: Path, tree_file: Path
) -> None:
    forest = [tree_file, "flat"]
    with pytest.raises(UnknownNodeError, match=r"'flat' has no node 'animal'; every tree"):
        Classifier.load(tiny_bundle, hierarchy=forest, root="animal")
    with pytest.raises(UnknownNodeError, match=r"'tree' has no rank 'genus'; every tree"):
        Classifier.load(tiny_bundle, hierarchy=forest, level="genus")
    with pytest.raises(UnknownNodeError) as alone:
        Classifier.load(tiny_bundle, hierarchy=tree_file, root="nonesuch")
    assert "forest" not in str(alone.value)
