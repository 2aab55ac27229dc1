"""One way in: from what a person writes after ``--hierarchy`` to a tree or a forest.

| spec | without labels | with labels |
|---|---|---|
| `wordnet` | the shipped tree of ImageNet-1k's classes | WordNet's tree over the labels |
| `wordnet-nouns` | all concrete nouns | refused: it brings its own labels |
| `flat` | ImageNet-1k's classes under one root | the labels under one root |
| a file or folder | its leaves are the labels | its leaves must be the labels, by id |
| a `Hierarchy` | likewise | likewise |
| several | a forest over the same labels, those of the first file if there are none | a forest |

Where a tree's leaves must be the labels, their names, prompts, aliases and synsets are the labels'.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.files import is_closed
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.grow import flat_tree, grow_noun_tree, grow_wordnet_tree, imagenet_tree
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.resolve import (
    Choose,
    OnAmbiguous,
    OnUnknown,
    Resolution,
    resolve_labels,
)
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet

BUILT_IN = ("wordnet", "wordnet-nouns", "flat")
Spec = str | Path | Hierarchy


@dataclass(frozen=True)
class LoadedHierarchy:
    """A hierarchy and how it came about.

    Attributes:
        hierarchy: A tree, or a forest when several were asked for.
        resolutions: The sense of each label, in the order of the labels; empty when no sense was
            looked for.
        warnings: What a person should be told.
    """

    hierarchy: Hierarchy | Forest
    resolutions: tuple[Resolution, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def trees(self) -> tuple[Hierarchy, ...]:
        """The tree, or the trees of the forest."""
        return self.hierarchy.trees if isinstance(self.hierarchy, Forest) else (self.hierarchy,)

    @property
    def labels(self) -> LabelSet:
        """The leaves, in the order of columns of logits."""
        return self.hierarchy.labels


def load_hierarchy(
    spec: Spec | Sequence[Spec],
    labels: LabelSet | None = None,
    *,
    root: str | None = None,
    cut_top: bool = False,
    max_depth: int | None = None,
    on_ambiguous: OnAmbiguous = "error",
    on_unknown: OnUnknown = "error",
    choose: Choose | None = None,
    limits: HierarchyLimits = DEFAULT_LIMITS,
) -> LoadedHierarchy:
    """Load or grow a hierarchy.

    Args:
        spec: See the table above; several as a sequence, or in one text separated by commas.
            Trees that are there already stand beside names and files.
        labels: What to choose from.
        root: Keep only the branch of this node (id, synset or name).
        cut_top: Start at the deepest node that has all labels below it.
        max_depth: Deepest leaf of the trees that are grown from WordNet.
        on_ambiguous: ``"error"``, ``"first"`` or ``"ask"``, for labels with several senses.
        on_unknown: ``"error"`` or ``"attach"``, for labels that WordNet lacks.
        choose: Who is asked; see :func:`robustzs.hierarchy.resolve.resolve_labels`.
        limits: Caps.

    Raises:
        UsageError: If there is no such hierarchy, or options contradict each other.
        AmbiguousLabelError: If labels have several senses and ``on_ambiguous`` is ``"error"``.
        UnknownLabelError: If WordNet lacks labels and ``on_unknown`` is ``"error"``.
        LabelMismatchError: If the leaves of a tree, or of trees of a forest, are not the labels.
        UnknownNodeError: If a tree has no node ``root``.
        HierarchyError: If a file is wrong; every problem is listed.
    """
    specs = split_specs(spec)
    loader = _Loader(on_ambiguous, on_unknown, choose, max_depth, limits)
    given: dict[Spec, Hierarchy] = {}
    if len(specs) > 1 and labels is None:
        first = next((one for one in specs if one not in BUILT_IN), None)
        if first is not None:
            given[first] = loader.load(first, None)
            labels = given[first].labels
    trees = [given[one] if one in given else loader.load(one, labels) for one in specs]
    if root is not None:
        trees = [tree.subtree(tree.find(root)) for tree in trees]
    if cut_top:
        trees = [tree.cut_top() for tree in trees]
    return LoadedHierarchy(
        hierarchy=trees[0] if len(trees) == 1 else Forest(tuple(trees)),
        resolutions=loader.resolutions,
        warnings=tuple(dict.fromkeys(loader.warnings)),
    )


def split_specs(spec: Spec | Sequence[Spec]) -> list[Spec]:
    """Single specs, from one or several that may hold more between commas.

    Raises:
        UsageError: There is none.
    """
    given = [spec] if isinstance(spec, (str, Path, Hierarchy)) else list(spec)
    specs: list[Spec] = []
    for one in given:
        if isinstance(one, str) and "," in one and not os.path.exists(one):
            specs += [part.strip() for part in one.split(",") if part.strip()]
        else:
            specs.append(one)
    if not specs:
        raise UsageError("no hierarchy is named", hint=f"one of {', '.join(BUILT_IN)}, or a file")
    return specs


@dataclass
class _Loader:
    on_ambiguous: OnAmbiguous
    on_unknown: OnUnknown
    choose: Choose | None
    max_depth: int | None
    limits: HierarchyLimits
    resolutions: tuple[Resolution, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def load(self, spec: Spec, labels: LabelSet | None) -> Hierarchy:
        if isinstance(spec, Hierarchy):
            return spec if labels is None else with_fields_of(spec, labels)
        if spec == "wordnet":
            return self._wordnet(labels)
        if spec == "wordnet-nouns":
            if labels is not None:
                raise UsageError(
                    "'wordnet-nouns' brings its own labels", hint="use 'wordnet' for your labels"
                )
            return _noun_tree()
        if spec == "flat":
            return flat_tree(labels or LabelSet.imagenet1k(), limits=self.limits)
        return self._file(spec, labels)

    def _wordnet(self, labels: LabelSet | None) -> Hierarchy:
        classes = LabelSet.imagenet1k()
        if self.max_depth is None and (labels is None or labels.digest == classes.digest):
            return imagenet_tree()
        labels = labels or classes
        index = NounIndex.load()
        if not self.resolutions:
            self.resolutions = resolve_labels(
                labels,
                index,
                on_ambiguous=self.on_ambiguous,
                on_unknown=self.on_unknown,
                choose=self.choose,
            )
            self.warnings += [text for r in self.resolutions for text in r.warnings]
            self.warnings += _same_sense_warnings(self.resolutions)
        senses = [None if r.synset is None else r.synset.wnid for r in self.resolutions]
        return grow_wordnet_tree(
            labels, index, senses=senses, max_depth=self.max_depth, limits=self.limits
        )

    def _file(self, spec: str | Path, labels: LabelSet | None) -> Hierarchy:
        path = Path(spec)
        if not spec or not (os.path.exists(path) or is_closed(path)):
            raise UsageError(
                f"there is no hierarchy or file {str(spec)!r}",
                hint=f"one of {', '.join(BUILT_IN)}, or the path of a file",
            )
        # Here, so that the built-in trees do not wait for the readers of YAML and tables.
        from robustzs.hierarchy.formats import read_hierarchy

        if labels is None:
            return read_hierarchy(path, limits=self.limits)
        tree = read_hierarchy(path, labels=labels.ids, limits=self.limits)
        return with_fields_of(tree, labels)


def with_fields_of(tree: Hierarchy, labels: LabelSet) -> Hierarchy:
    """The tree with its leaves as the labels have them: name, prompt, aliases, synset.

    Aliases and synset stay where the label has none.

    Raises:
        LabelMismatchError: the leaves are not the labels, by id.
    """
    different = sorted(set(labels.ids) ^ set(tree.leaf_ids))
    if different:
        raise LabelMismatchError(
            f"the leaves of the tree {tree.name!r} are not the labels: "
            f"{', '.join(different[:8])} ({len(different)} in all) are in one of the two only",
            hint="give the tree alone, or its own labels",
        )
    names, prompts = list(tree.names), list(tree.prompts)
    aliases, synsets = list(tree.aliases), list(tree.synsets)
    for label in labels:
        node = tree.index(label.id)
        names[node], prompts[node] = label.name, label.prompt
        aliases[node] = label.aliases or aliases[node]
        synsets[node] = label.synset or synsets[node]
    return replace(
        tree,
        names=tuple(names),
        prompts=tuple(prompts),
        aliases=tuple(aliases),
        synsets=tuple(synsets),
    )


def _same_sense_warnings(resolutions: Sequence[Resolution]) -> list[str]:
    by_sense: dict[str, list[str]] = defaultdict(list)
    for resolution in resolutions:
        if resolution.synset is not None:
            by_sense[resolution.synset.name].append(resolution.label.name)
    return [
        f"{' and '.join(map(repr, names))} have the same sense {sense}"
        for sense, names in by_sense.items()
        if len(names) > 1
    ]


@lru_cache(maxsize=1)
def _noun_tree() -> Hierarchy:
    return grow_noun_tree(NounIndex.load())
