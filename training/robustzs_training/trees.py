"""The trees that a recipe names, over the classes of its data: one, or a forest.

Cuts that a small tree does not have, and trees that come out the same as one before them, are left
out and told: a recipe for a thousand classes then works with twenty. A forest of which no two
trees are left is refused, since it would be another experiment than its name says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustzs.errors import UsageError
from robustzs.hierarchy.cuts import cut_at_counts, cut_at_depths, with_other_parents
from robustzs.hierarchy.load import LoadedHierarchy, Spec, load_hierarchy, split_specs
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs_training.recipe import TreePart


def load_trees(parts: Sequence[TreePart], labels: LabelSet) -> LoadedHierarchy:
    """Load, grow and cut a recipe's trees.

    Class names with several senses take the first, and such as WordNet lacks hang below the root:
    both are among ``warnings``, as are trees that were left out; how many names are lost is the
    data's to limit.

    Args:
        parts: At least one.
        labels: The data's classes.

    Raises:
        UsageError: No tree is left, or a single one where several were asked for.
        RobustZSError: Whatever :func:`load_hierarchy` raises.
    """
    found: list[LoadedHierarchy] = []
    trees: list[Hierarchy] = []
    warnings: list[str] = []
    n_asked = 0
    for part in parts:
        loaded = _load(split_specs(part.tree), labels)
        found.append(loaded)
        n_asked += len(loaded.trees)
        for tree in loaded.trees:
            try:
                _add(trees, _cut(tree, part, warnings))
            except UsageError as error:
                warnings.append(f"a tree of the recipe was left out: {error.message}")
    if not trees or (n_asked > 1 and len(trees) == 1):
        raise _too_few(n_asked, trees, labels, warnings)
    if len(trees) < n_asked:
        names = ", ".join(tree.name for tree in trees)
        warnings.append(
            f"{len(trees)} of the recipe's {n_asked} trees stand over {len(labels)} classes, and "
            f"the run trains on these alone: {names}"
        )
    whole = _load(trees, labels)
    resolutions = next((each.resolutions for each in [whole, *found] if each.resolutions), ())
    told = [text for each in [whole, *found] for text in each.warnings] + warnings
    return replace(whole, resolutions=resolutions, warnings=tuple(dict.fromkeys(told)))


def _add(trees: list[Hierarchy], tree: Hierarchy) -> None:
    """Add a tree to those before it.

    Raises:
        UsageError: One of them groups the classes the same way.
    """
    for other in trees:
        if _groups(other) == _groups(tree):
            raise UsageError(f"over these classes {tree.name!r} is the same as {other.name!r}")
    trees.append(tree)


def _groups(tree: Hierarchy) -> set[tuple[str, str, str]]:
    """All that tells two trees over the same classes apart, but for their names."""
    return {
        (tree.ids[node], tree.prompts[node], "" if above < 0 else tree.ids[above])
        for node, above in enumerate(tree.parent.tolist())
    }


def _too_few(
    n_asked: int, trees: Sequence[Hierarchy], labels: LabelSet, warnings: Sequence[str]
) -> UsageError:
    if not trees:
        return UsageError(
            f"no tree is left over {len(labels)} classes: {'; '.join(warnings)}",
            hint="set data.hierarchy=wordnet, or name a file",
        )
    return UsageError(
        f"one of the recipe's {n_asked} trees is left over {len(labels)} classes, which is no "
        f"forest: {'; '.join(warnings)}",
        hint="train on more classes, name other trees or files in data.hierarchy, or take one "
        "tree alone by data.hierarchy=wordnet",
    )


def _load(specs: Sequence[Spec], labels: LabelSet) -> LoadedHierarchy:
    return load_hierarchy(list(specs), labels, on_ambiguous="first", on_unknown="attach")


def _cut(tree: Hierarchy, part: TreePart, warnings: list[str]) -> Hierarchy:
    """Another tree over the same leaves.

    Raises:
        UsageError: Nothing of the cut can be made.
    """
    if part.other_parents:
        tree = with_other_parents(tree, NounIndex.load())
    if part.depths is not None:
        return cut_at_depths(tree, part.depths)
    if part.classes is not None:
        possible = [count for count in part.classes if count < tree.n_leaves]
        if len(possible) < len(part.classes):
            warnings.append(
                f"{tree.name!r} has {tree.n_leaves} leaves: of its levels of "
                f"{', '.join(map(str, part.classes))} classes {len(possible)} were kept"
            )
        return cut_at_counts(tree, possible)
    return tree
