"""What the classes of a data set are: from folder names to labels, and to WordNet's senses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from robustzs.errors import DataError, LabelError
from robustzs.hierarchy.noun_index import WNID_PATTERN, NounIndex
from robustzs.hierarchy.resolve import Resolution, resolve_labels
from robustzs.labels.entries import imagenet_table
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet
from robustzs_training.data.base import Finding

_SHOWN = 20
# `001.Black_footed_Albatross`, as in Caltech's collections.
_NUMBERED = re.compile(r"\d{3}\.(?=\D)")


@dataclass(frozen=True)
class ResolvedClasses:
    """Classes with their senses.

    Attributes:
        labels: The labels, in their order, with ``synset`` where a sense was found.
        resolutions: How each was found.
        finding: How many WordNet lacks, for :meth:`Trouble.found`.
        warnings: What a person should be told: senses that were chosen among several.
    """

    labels: LabelSet
    resolutions: tuple[Resolution, ...]
    finding: Finding
    warnings: tuple[str, ...]


def resolve_classes(labels: LabelSet, index: NounIndex | None = None) -> ResolvedClasses:
    """Find the senses of classes, each with the others as context; none is an error here.

    Of several senses the likeliest is taken, with a warning. A class that WordNet lacks keeps no
    synset and is counted: ``trouble.found(resolve_classes(labels).finding)`` stops the run when
    there are too many.

    Args:
        labels: The classes.
        index: The nouns; ``None`` for those that ship.
    """
    nouns = NounIndex.load() if index is None else index
    # A pinned sense that does not exist is a name that does not resolve, like any other.
    known = [
        label if label.synset is None or label.synset in nouns else replace(label, synset=None)
        for label in labels
    ]
    resolutions = resolve_labels(known, nouns, on_ambiguous="first", on_unknown="attach")
    return ResolvedClasses(
        labels=LabelSet(
            tuple(
                label if one.synset is None else replace(label, synset=one.synset.wnid)
                for label, one in zip(known, resolutions, strict=True)
            )
        ),
        resolutions=resolutions,
        finding=unresolved_names(resolutions),
        warnings=tuple(text for one in resolutions for text in one.warnings),
    )


def unresolved_names(resolutions: Sequence[Resolution]) -> Finding:
    """How many classes WordNet lacks, for :meth:`Trouble.found`."""
    lost = [one.label.name for one in resolutions if one.synset is None]
    return Finding(
        kind="unresolved-name",
        count=len(lost),
        total=len(resolutions),
        first=tuple(lost[:_SHOWN]),
    )


def labels_of_names(names: Sequence[str], origin: str) -> LabelSet:
    """Labels of class names as data sets write them: ``golden_retriever``, ``001.ak47``, a wnid.

    Args:
        names: Distinct names; the labels have their order.
        origin: Where they come from, for messages.

    Raises:
        DataError: Names that cannot be labels, or that mean the same one.
    """
    spoken = [_NUMBERED.sub("", name).replace("_", " ").strip() or name for name in names]
    try:
        return LabelSet.from_names(spoken)
    except LabelError as error:
        raise DataError(
            f"the classes of {origin} cannot be used: {error.message}",
            hint="rename the folders or labels, so that each is a class name of its own",
        ) from error


def labels_of_wnids(wnids: Sequence[str]) -> tuple[LabelSet, Finding]:
    """Labels of ImageNet-style folders, in their order.

    One of the 1000 classes is named by ImageNet's table, every other one by WordNet's first lemma;
    what shares a name with another class gets a prompt that tells them apart. A name that is no
    wnid, or a wnid that WordNet 3.0 lacks, stays as it is and is counted.

    Raises:
        DataError: No name is a wnid.
    """
    index = NounIndex.load()
    table = imagenet_table()
    labels = []
    lost = []
    for wnid in wnids:
        if wnid in table:
            labels.append(table[wnid])
        elif WNID_PATTERN.fullmatch(wnid) and wnid in index:
            lemmas = index.lemmas(index.row(wnid))
            labels.append(Label(wnid, lemmas[0], lemmas[0], lemmas[1:], wnid))
        else:
            lost.append(wnid)
            labels.append(Label(wnid, wnid, wnid))
    if len(lost) == len(labels):
        raise DataError(
            f"none of the folders {', '.join(lost[:5])} is named by a wnid such as n01440764",
            hint="use data.source=folder for folders with class names",
        )
    finding = Finding(
        kind="unresolved-name", count=len(lost), total=len(labels), first=tuple(lost[:_SHOWN])
    )
    return LabelSet(tuple(_with_distinct_prompts(labels, index))), finding


def _with_distinct_prompts(labels: Sequence[Label], index: NounIndex) -> list[Label]:
    """Prompts that tell classes of one name apart: by the kind, else by the definition."""
    return _retold(_retold(labels, index, by_kind=True), index, by_kind=False)


def _retold(labels: Sequence[Label], index: NounIndex, *, by_kind: bool) -> list[Label]:
    count = Counter(label.prompt.casefold() for label in labels)
    told = []
    for label in labels:
        if count[label.prompt.casefold()] > 1 and label.synset and label.id not in imagenet_table():
            synset = index.get(label.synset)
            kinds = synset.hypernyms or synset.instance_hypernyms
            more = index.lemmas(index.row(kinds[0]))[0] if by_kind and kinds else synset.gloss
            label = replace(label, prompt=f"{label.name}, {more}")
        told.append(label)
    return told
