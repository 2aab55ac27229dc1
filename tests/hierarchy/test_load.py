from __future__ import annotations

from pathlib import Path

import pytest

from robustzs.errors import (
    AmbiguousLabelError,
    HierarchyFormatError,
    LabelMismatchError,
    UnknownLabelError,
    UnknownNodeError,
    UsageError,
)
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.grow import imagenet_tree
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet

ANIMALS = LabelSet.from_names(["tench", "wolf.n.01", "domestic_cat.n.01"])


def one(spec: str | Path, *args: object, **options: object) -> Hierarchy:
    tree = load_hierarchy(spec, *args, **options).hierarchy  # type: ignore[arg-type]
    assert isinstance(tree, Hierarchy)
    return tree


@pytest.fixture
def tree_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("thing:\n  animal: [tench, wolf, domestic cat]\n", encoding="utf-8")
    return path


def test_wordnet_without_labels_is_imagenet() -> None:
    loaded = load_hierarchy("wordnet")
    assert loaded.hierarchy is imagenet_tree()
    assert loaded.trees == (imagenet_tree(),)
    assert len(loaded.labels) == 1000
    assert (loaded.resolutions, loaded.warnings) == ((), ())


def test_wordnet_over_imagenets_own_labels_is_the_same_tree() -> None:
    assert one("wordnet", LabelSet.imagenet1k()) is imagenet_tree()


def test_wordnet_over_labels() -> None:
    loaded = load_hierarchy("wordnet", ANIMALS)
    assert sorted(loaded.labels.ids) == sorted(ANIMALS.ids)
    assert [r.label.id for r in loaded.resolutions] == list(ANIMALS.ids)
    assert loaded.trees[0].name == "wordnet"


def test_ambiguity_is_the_callers_to_settle() -> None:
    cranes = LabelSet.from_names(["crane", "tench"])
    with pytest.raises(AmbiguousLabelError):
        load_hierarchy("wordnet", cranes)
    loaded = load_hierarchy("wordnet", cranes, on_ambiguous="first")
    assert "'crane' is taken as" in loaded.warnings[0]
    asked = load_hierarchy("wordnet", cranes, on_ambiguous="ask", choose=lambda _, found: found[1])
    assert asked.resolutions[0].how == "asked"
    assert asked.warnings == ()


def test_unknown_labels_are_the_callers_to_settle() -> None:
    phones = LabelSet.from_names(["smartphone", "tench"])
    with pytest.raises(UnknownLabelError):
        load_hierarchy("wordnet", phones)
    loaded = load_hierarchy("wordnet", phones, on_unknown="attach")
    assert "'smartphone'" in loaded.warnings[0]
    tree = loaded.trees[0]
    assert tree.parent[tree.index("smartphone")] == 0


def test_labels_of_one_sense_are_told() -> None:
    cars = LabelSet(tuple(Label(n, n, n, synset="car.n.01") for n in ("car", "automobile")))
    loaded = load_hierarchy("wordnet", cars)
    assert loaded.warnings == ("'car' and 'automobile' have the same sense car.n.01",)


def test_flat() -> None:
    tree = one("flat", ANIMALS)
    assert (tree.n_nodes, tree.leaf_ids) == (4, ANIMALS.ids)
    assert one("flat").n_leaves == 1000


def test_wordnet_nouns() -> None:
    tree = one("wordnet-nouns")
    assert tree.n_leaves > 25_000
    assert one("wordnet-nouns") is tree
    with pytest.raises(UsageError, match="wordnet-nouns"):
        load_hierarchy("wordnet-nouns", ANIMALS)


def test_a_file_alone_brings_its_labels(tree_file: Path) -> None:
    tree = one(tree_file)
    assert tree.labels.names == ("tench", "wolf", "domestic cat")
    assert one(str(tree_file)) == tree


def test_a_file_takes_names_and_prompts_from_the_labels(tree_file: Path) -> None:
    ids = one(tree_file).leaf_ids
    labels = LabelSet(tuple(Label(i, f"name {i}", f"prompt {i}", ("x",)) for i in ids))
    tree = one(tree_file, labels)
    node = tree.index("wolf")
    assert (tree.names[node], tree.prompts[node], tree.aliases[node]) == (
        "name wolf",
        "prompt wolf",
        ("x",),
    )
    assert tree.names[0] == "thing"


def test_a_files_leaves_must_be_the_labels(tree_file: Path) -> None:
    with pytest.raises(LabelMismatchError) as caught:
        load_hierarchy(tree_file, LabelSet.from_names(["tench", "wolf", "oak"]))
    assert "'oak'" in caught.value.message
    assert "domestic" in caught.value.message


def test_several_specs_make_a_forest(tree_file: Path) -> None:
    loaded = load_hierarchy(["wordnet", "flat"], ANIMALS)
    assert isinstance(loaded.hierarchy, Forest)
    assert [tree.name for tree in loaded.trees] == ["wordnet", "flat"]
    assert len(loaded.resolutions) == 3
    assert load_hierarchy("wordnet, flat", ANIMALS).hierarchy == loaded.hierarchy


def test_a_forest_without_labels_takes_those_of_the_file(tree_file: Path) -> None:
    loaded = load_hierarchy(["wordnet", tree_file], on_ambiguous="first")
    assert [tree.name for tree in loaded.trees] == ["wordnet", "mine"]
    assert sorted(loaded.labels.ids) == sorted(one(tree_file).leaf_ids)
    wordnet = loaded.trees[0]
    assert wordnet.synsets[wordnet.index("wolf")] == "wolf.n.01"


def test_a_comma_in_a_file_name_is_not_a_list(tree_file: Path) -> None:
    path = tree_file.rename(tree_file.with_name("a,b.yaml"))
    assert one(str(path)).n_leaves == 3


@pytest.mark.parametrize("spec", ["wordnot", "nowhere.yaml", Path("nowhere.csv")])
def test_unknown_hierarchies_are_named(spec: str | Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_hierarchy(spec)
    assert str(spec) in caught.value.message
    assert "wordnet-nouns" in caught.value.hint


@pytest.mark.parametrize("spec", [[], ","])
def test_no_hierarchy_is_refused(spec: str | list[str]) -> None:
    with pytest.raises(UsageError, match="no hierarchy"):
        load_hierarchy(spec)


def test_problems_of_a_file_come_through(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("a: [b\n", encoding="utf-8")
    with pytest.raises(HierarchyFormatError, match=r"bad\.yaml"):
        load_hierarchy(path)


def test_root_keeps_a_branch() -> None:
    tree = one("wordnet", root="dog")
    assert (tree.names[0], tree.n_leaves) == ("dog", 118)
    with pytest.raises(UnknownNodeError, match="nonesuch"):
        load_hierarchy("wordnet", root="nonesuch")


def test_cut_top() -> None:
    assert one("wordnet", ANIMALS, cut_top=True).names[0] == "vertebrate"


def test_max_depth() -> None:
    assert one("wordnet", max_depth=3).depth.max() == 3
    assert one("wordnet", ANIMALS, max_depth=1).n_nodes == 4


def test_an_empty_name_is_no_hierarchy() -> None:
    with pytest.raises(UsageError, match="there is no hierarchy or file ''"):
        load_hierarchy([""])
