from __future__ import annotations

import json
from dataclasses import replace

import pytest
from robustzs_training.recipe_files import load_recipe
from robustzs_training.trees import load_trees

from robustzs.errors import UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from tests.training.recipes.small_worlds import labels


def trees(change, found=None):
    recipe = load_recipe("hierarchical-vit-b-32", [f"data.hierarchy={change}"])
    return load_trees(recipe.data.hierarchy, found or labels())


def test_the_forest_recipe_has_five_different_trees_over_imagenet():
    recipe = load_recipe("hierarchical-forest-vit-b-32")
    loaded = load_trees(recipe.data.hierarchy, LabelSet.imagenet1k())
    assert isinstance(loaded.hierarchy, Forest)
    assert len({tree.digest for tree in loaded.trees}) == 5
    assert loaded.warnings == ()
    shapes = {len(tree) for tree in loaded.trees}
    assert len(shapes) == 5


def test_one_name_is_one_tree():
    loaded = trees("wordnet")
    assert isinstance(loaded.hierarchy, Hierarchy)
    assert set(loaded.labels.ids) == set(labels().ids)


def test_several_names_are_a_forest_in_a_list_or_with_commas():
    assert [tree.name for tree in trees("[wordnet, flat]").trees] == [
        tree.name for tree in trees("'wordnet,flat'").trees
    ]
    assert len(trees("[wordnet, flat]").trees) == 2


def test_what_a_small_tree_has_not_is_left_out_and_told():
    loaded = trees("[wordnet, {tree: wordnet, classes: [2, 100]}, {depths: [40]}]")
    assert len(loaded.trees) == 2
    told = " ".join(loaded.warnings)
    assert "4 leaves: of its levels of 2, 100 classes 1 were kept" in told
    assert "left out" in told
    names = ", ".join(tree.name for tree in loaded.trees)
    assert loaded.warnings[-1].startswith("2 of the recipe's 3 trees stand over 4 classes")
    assert loaded.warnings[-1].endswith(names)
    with pytest.raises(UsageError, match="no tree is left over 4 classes"):
        trees("[{depths: [40]}]")


def test_a_tree_is_taken_once(tmp_path):
    loaded = trees("[wordnet, flat, wordnet]")
    assert len(loaded.trees) == 2
    told = " ".join(loaded.warnings)
    assert "'wordnet' is the same as 'wordnet'" in told
    assert "2 of the recipe's 3 trees" in told

    # The same groups by other words are another tree: the words are what images are aligned to.
    whole = trees("wordnet").hierarchy
    prompts = (f"some {whole.prompts[0]}", *whole.prompts[1:])
    other = tmp_path / "other.json"
    other.write_text(replace(whole, name="other", prompts=prompts).to_json(), encoding="utf-8")
    again = tmp_path / "again.json"
    again.write_text(replace(whole, name="again").to_json(), encoding="utf-8")
    loaded = trees(json.dumps(["wordnet", str(other), str(again)]))
    assert [tree.name for tree in loaded.trees] == ["wordnet", "other"]


def test_a_forest_of_one_tree_is_refused():
    with pytest.raises(UsageError, match="one of the recipe's 2 trees is left over 4 classes"):
        trees("[wordnet, {depths: [40]}]")
    with pytest.raises(UsageError, match="is the same as"):
        trees("[wordnet, wordnet]")
    assert len(trees("[wordnet]").trees) == 1


def test_a_cut_of_a_file(tmp_path):
    path = tmp_path / "tree.json"
    whole = trees("wordnet").hierarchy
    path.write_text(whole.to_json(), encoding="utf-8")
    spec = json.dumps([{"tree": str(path), "classes": [2]}])
    assert len(trees(spec).hierarchy) < len(whole)


def test_resolutions_are_kept_when_every_tree_is_cut():
    names = LabelSet.from_names(["tabby cat", "golden retriever", "goldfish", "zzyzx thing"])
    loaded = trees("[{tree: wordnet, classes: [2]}]", names)
    assert [one.synset is None for one in loaded.resolutions] == [False, False, False, True]
