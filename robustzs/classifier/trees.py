"""Which labels to choose from and which trees they hang in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet

if TYPE_CHECKING:
    from robustzs.hierarchy.resolve import OnAmbiguous, OnUnknown, Resolution

Labels: TypeAlias = LabelSet | str | Path | Iterable[str]
"""A label set, names, a path, or what stands after ``--labels``."""

Trees: TypeAlias = Hierarchy | Forest | str | Path | Sequence[str | Path]
"""A tree, a forest, or what stands after ``--hierarchy``, once or several times."""


@dataclass(frozen=True)
class LoadedTrees:
    """The trees in use.

    Attributes:
        forest: one tree or more; columns of logits are the first one's leaves.
        resolutions: the sense chosen for each label, where senses were looked for.
        warnings: what a person should be told.
    """

    forest: Forest
    resolutions: tuple[Resolution, ...] = ()
    warnings: tuple[str, ...] = ()


def load_labels(labels: Labels | None) -> LabelSet | None:
    """A label set from whatever names one.

    Raises:
        LabelError: it cannot be read, or is wrong.
    """
    if labels is None or isinstance(labels, LabelSet):
        return labels
    if isinstance(labels, str):
        return LabelSet.parse(labels)
    if isinstance(labels, Path):
        return LabelSet.from_file(labels)
    return LabelSet.from_names(labels)


def load_trees(
    hierarchy: Trees | None,
    labels: LabelSet | None,
    *,
    on_ambiguous: OnAmbiguous,
    on_unknown: OnUnknown,
) -> LoadedTrees:
    """The trees over the labels.

    Without a hierarchy it is WordNet's tree of ImageNet-1k's classes, or a flat tree over the
    labels that were given.

    Raises:
        HierarchyError: no such tree, a wrong file, or labels that WordNet cannot place.
        UsageError: options contradict each other.
    """
    if hierarchy is None:
        hierarchy = "wordnet" if labels is None else "flat"
    if isinstance(hierarchy, Hierarchy):
        hierarchy = Forest((hierarchy,))
    if isinstance(hierarchy, Forest):
        _check_same(hierarchy, labels)
        return LoadedTrees(hierarchy)
    if not isinstance(hierarchy, (str, Path)) and any(
        not isinstance(spec, (str, Path)) for spec in hierarchy
    ):
        raise UsageError("name trees, or make a Forest of them", hint="Forest((tree, other_tree))")
    from robustzs.hierarchy.load import load_hierarchy

    loaded = load_hierarchy(hierarchy, labels, on_ambiguous=on_ambiguous, on_unknown=on_unknown)
    return LoadedTrees(Forest(loaded.trees), loaded.resolutions, loaded.warnings)


def _check_same(forest: Forest, labels: LabelSet | None) -> None:
    if labels is not None and set(labels.ids) != set(forest.labels.ids):
        different = sorted(set(labels.ids) ^ set(forest.labels.ids))
        raise LabelMismatchError(
            f"the leaves of the tree are not the labels: {', '.join(different[:8])} "
            f"({len(different)} in all) are in one of the two only",
            hint="give the tree alone, or its own labels",
        )
