"""Which labels to choose from and which trees they hang in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from robustzs.errors import UnknownNodeError, UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet

if TYPE_CHECKING:
    from robustzs.hierarchy.resolve import OnAmbiguous, OnUnknown, Resolution

Labels: TypeAlias = LabelSet | str | Path | Iterable[str]
"""A label set, names, a path, or what stands after ``--labels``."""

Trees: TypeAlias = Hierarchy | Forest | str | Path | Sequence[Hierarchy | str | Path]
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
    if isinstance(hierarchy, Forest):
        if labels is None:
            return LoadedTrees(hierarchy)
        hierarchy = hierarchy.trees
    if isinstance(hierarchy, (str, Path, Hierarchy)):
        hierarchy = [hierarchy]
    for spec in hierarchy:
        if not isinstance(spec, (str, Path, Hierarchy)):
            raise UsageError(
                f"a hierarchy is named, a path or a tree, not {type(spec).__name__}",
                hint="Hierarchy.from_json and robustzs.hierarchy.formats.read_hierarchy make trees",
            )
    from robustzs.hierarchy.load import load_hierarchy

    loaded = load_hierarchy(hierarchy, labels, on_ambiguous=on_ambiguous, on_unknown=on_unknown)
    return LoadedTrees(Forest(loaded.trees), loaded.resolutions, loaded.warnings)


def find_roots(forest: Forest, root: str | None, level: int | str | None) -> tuple[int, ...]:
    """The node ``root`` of each tree, 0 where it is ``None``; each tree must have ``level``, too.

    Raises:
        UnknownNodeError: a tree has no such node, or no such rank.
    """
    roots = []
    for tree in forest:
        try:
            roots.append(0 if root is None else tree.find(root))
            if level is not None:
                tree.cut(level)
        except UnknownNodeError as error:
            if len(forest) == 1:
                raise
            raise UnknownNodeError(
                f"{error.message}; every tree of a forest must have it", hint=error.hint
            ) from error
    return tuple(roots)
