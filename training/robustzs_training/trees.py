"""The trees that a recipe names, over the classes of its data: one, or a forest.

Cuts that a small tree does not have are left out and told: a recipe for a thousand classes then
works with twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robustzs.errors import UsageError
from robustzs.hierarchy.cuts import cut_at_counts, cut_at_depths, with_other_parents
from robustzs.hierarchy.load import LoadedHierarchy, load_hierarchy
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs_training.recipe import TreePart


def load_trees(parts: Sequence[TreePart], labels: LabelSet) -> LoadedHierarchy:
    """Load, grow and cut a recipe's trees.

    Class names with several senses take the first, and such as WordNet lacks hang below the root:
    both are among ``warnings``; how many they are is the data's to limit.

    Args:
        parts: At least one.
        labels: The data's classes.

    Raises:
        UsageError: No tree is left.
        RobustZSError: Whatever :func:`load_hierarchy` raises.
    """
    specs: list[str | Hierarchy] = []
    found: list[LoadedHierarchy] = []
    warnings: list[str] = []
    for part in parts:
        if not part.is_cut:
            specs.append(part.tree)
            continue
        loaded = _load([part.tree], labels)
        found.append(loaded)
        for tree in loaded.trees:
            try:
                specs.append(_cut(tree, part, warnings))
            except UsageError as error:
                warnings.append(f"a tree of the recipe was left out: {error.message}")
    if not specs:
        raise UsageError(
            f"no tree is left over {len(labels)} classes: {'; '.join(warnings)}",
            hint="set data.hierarchy=wordnet, or name a file",
        )
    whole = _load(specs, labels)
    resolutions = next((each.resolutions for each in [whole, *found] if each.resolutions), ())
    told = [text for each in [whole, *found] for text in each.warnings] + warnings
    return replace(whole, resolutions=resolutions, warnings=tuple(dict.fromkeys(told)))


def _load(specs: Sequence[str | Hierarchy], labels: LabelSet) -> LoadedHierarchy:
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
