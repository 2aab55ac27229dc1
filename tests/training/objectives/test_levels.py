from __future__ import annotations

import itertools

import pytest
import torch
from robustzs_training.objectives.levels import build_levels
from robustzs_training.objectives.tree_contrast import TreeContrast

from robustzs.errors import UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.load import load_hierarchy
from robustzs.labels import LabelSet
from tests.training.objectives import derived
from tests.training.tiny_models import ANIMALS, SIZES, make_tree

TREE = make_tree(ANIMALS)


@pytest.mark.parametrize("n_levels", [1, 2, 3, 5])
def test_relative_levels_are_the_rounded_places_on_each_path(n_levels: int) -> None:
    levels = build_levels(TREE, n_levels=n_levels).trees[0].levels
    assert len(levels) == n_levels + 1
    for label, leaf in enumerate(TREE.leaf_ids):
        wanted = derived.chain(ANIMALS, leaf, n_levels)
        found = [TREE.ids[level.nodes[int(level.class_of_label[label])]] for level in levels]
        assert found == wanted


@pytest.mark.parametrize("cut", ["relative", "counts"])
@pytest.mark.parametrize("negatives", ["both", "finer", "coarser", "none"])
def test_nothing_above_or_below_a_class_is_its_negative(cut: str, negatives: str) -> None:
    table = build_levels(TREE, n_levels=3, cut=cut, negatives=negatives)  # type: ignore[arg-type]
    rows = {text: row for row, text in enumerate(table.prompts)}
    classes = [[TREE.ids[node] for node in level.nodes] for level in table.trees[0].levels]
    for number, level in enumerate(table.trees[0].levels):
        beside = set(classes[number])
        if negatives in ("both", "finer") and number > 0:
            beside |= set(classes[number - 1])
        if negatives in ("both", "coarser") and number < 3:
            beside |= set(classes[number + 1])
        assert level.columns.tolist()[: len(classes[number])] == [rows[c] for c in classes[number]]
        assert {table.prompts[column] for column in level.columns} == beside
        for place, own in enumerate(classes[number]):
            kept = {table.prompts[c] for c in level.columns[~level.excluded[place]]}
            assert kept == {own} | {n for n in beside if not derived.related(ANIMALS, n, own)}


def test_levels_by_counts_nest() -> None:
    levels = build_levels(TREE, n_levels=4, cut="counts").trees[0].levels
    sizes = [len(level.nodes) for level in levels]
    assert sizes == sorted(sizes, reverse=True)
    for finer, coarser in itertools.pairwise(levels):
        above: dict[int, int] = {}
        for low, high in zip(
            finer.class_of_label.tolist(), coarser.class_of_label.tolist(), strict=True
        ):
            assert above.setdefault(low, high) == high


def test_the_paper_s_five_levels_of_imagenet_shrink_evenly() -> None:
    loaded = load_hierarchy("wordnet", LabelSet.imagenet1k())
    levels = build_levels(loaded.hierarchy).trees[0].levels  # type: ignore[arg-type]
    sizes = [len(level.nodes) for level in levels]
    assert sizes[0] == 1000
    assert sizes[-1] == 1
    assert all(2 < above / below < 8 for above, below in itertools.pairwise(sizes))


def test_single_children_are_passed_over() -> None:
    parents = {"root": None, "only": "root", "a": "only", "b": "only", "leafy": "a", "c": "b"}
    tree = make_tree({**parents, "d": "b"})
    table = build_levels(tree, n_levels=2)
    assert set(table.prompts) == {"leafy", "c", "d", "b", "only"}


def test_trees_of_a_forest_share_labels_and_prompts() -> None:
    forest = Forest((TREE, make_tree(SIZES, "sizes")))
    table = build_levels(forest, n_levels=2)
    assert table.prompts[: len(TREE.leaf_ids)] == TREE.leaf_ids
    assert len(set(table.prompts)) == len(table.prompts)
    second = table.trees[1]
    for label, leaf in enumerate(TREE.leaf_ids):
        level = second.levels[0]
        column = level.columns[level.class_of_label[label]]
        assert table.prompts[column] == leaf


def test_edges_are_weighted_by_the_leaves_below_them() -> None:
    table = build_levels(TREE, n_levels=3)
    tree = table.trees[0]
    wanted: dict[tuple[str, str], int] = {}
    for leaf in TREE.leaf_ids:
        nodes = derived.chain(ANIMALS, leaf, 3)
        for child, parent in itertools.pairwise(nodes):
            if child != parent:
                wanted[child, parent] = wanted.get((child, parent), 0) + 1
    found = {
        (table.prompts[child], table.prompts[parent]): round(weight * 7)
        for (child, parent), weight in zip(
            tree.edges.tolist(), tree.edge_weights.tolist(), strict=True
        )
    }
    assert found == wanted


def test_groups_of_a_batch() -> None:
    tree = TreeContrast(build_levels(TREE, n_levels=3).trees[0])
    groups = tree.groups(torch.tensor([0, 1, 1, 2, 6]))  # labrador, poodle x 2, tabby, lamp
    assert [len(level.classes) for level in groups] == [5, 3, 2, 1]
    assert groups[1].share.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert sorted(groups[1].children.tolist()) == [[0, 0], [1, 0], [2, 0], [3, 1], [4, 2]]
    assert sorted(groups[2].children.tolist()) == [[0, 1], [1, 1], [2, 0]]


def test_misuse_is_named() -> None:
    with pytest.raises(UsageError, match="0 levels"):
        build_levels(TREE, n_levels=0)
    with pytest.raises(UsageError, match="sideways"):
        build_levels(TREE, cut="sideways")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="most"):
        build_levels(TREE, negatives="most")  # type: ignore[arg-type]
