"""Classes: from what stands at the examples, and from lists of names, to one label set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustzs.errors import DataError
from robustzs.labels import LabelSet, rules
from robustzs_training.data.base import Finding
from robustzs_training.data.resolve import labels_of_names, labels_of_wnids

CLASS_FILES = ("classes.txt", "classes.json", "classnames.txt")
_IMAGENET_SHARE = 0.9


def class_labels(names: Sequence[str], origin: str) -> LabelSet:
    """Labels from a dataset's own class names, in its order.

    The 1000 classes of ImageNet in their usual order are recognised, since lists of them hold two
    cranes: they get their wnids. Other names as in :func:`labels_of_names`.

    Args:
        names: The names.
        origin: Where they come from, for messages.

    Raises:
        DataError: Names that cannot be labels, or that mean the same one.
    """
    if is_imagenet(names):
        return LabelSet.imagenet1k()
    return labels_of_names(names, origin)


def is_imagenet(names: Sequence[str]) -> bool:
    """Whether these are the 1000 classes of ImageNet in their usual order."""
    labels = LabelSet.imagenet1k()
    if len(names) != len(labels):
        return False
    agree = 0
    for name, label in zip(names, labels, strict=True):
        known = {label.id, label.name, label.prompt, *label.aliases}
        theirs = {rules.same_text_key(piece.replace("_", " ")) for piece in name.split(",")}
        agree += not theirs.isdisjoint(map(rules.same_text_key, known))
    return agree >= _IMAGENET_SHARE * len(labels)


def is_number(text: str) -> bool:
    """Whether a label is a class number."""
    return text.isascii() and text.isdecimal() and len(text) < 10


@dataclass(frozen=True)
class Resolved:
    """Classes, and where the values at the examples belong.

    Attributes:
        labels: The classes.
        places: For each value its place in ``labels``; -1 for one that is none of them.
        finding: Wnids that WordNet lacks, where there were wnids.
    """

    labels: LabelSet
    places: list[int]
    finding: Finding | None = None


def resolve_values(values: Sequence[str], classes: LabelSet | None, origin: str) -> Resolved:
    """Find the class of every distinct label of a set of shards.

    Args:
        values: Distinct, as they stand in the shards: numbers, names, wnids or senses.
        classes: What the file beside the shards lists; needed for numbers.
        origin: Where they come from, for messages.

    Raises:
        DataError: Numbers without a class file, or names that cannot be labels.
    """
    if classes is None:
        numbers = [value for value in values if is_number(value)]
        if numbers:
            raise DataError(
                f"{origin} labels its examples with numbers ({numbers[0][:20]}, ...), and no file "
                "says which classes these are",
                hint=f"put {CLASS_FILES[0]} beside the shards: one name or wnid per line, in order",
            )
        ordered = sorted(values)
        place = {value: index for index, value in enumerate(ordered)}
        finding = None
        if all(map(rules.is_wnid, values)):
            labels, finding = labels_of_wnids(ordered)
        else:
            labels = labels_of_names(ordered, origin)
        return Resolved(labels, [place[value] for value in values], finding)
    known = _by_every_name(classes)
    places = [
        int(value) if is_number(value) else known.get(rules.same_text_key(value), -1)
        for value in values
    ]
    return Resolved(classes, [place if place < len(classes) else -1 for place in places])


def _by_every_name(classes: LabelSet) -> dict[str, int]:
    """Ids and synsets first, then names; where a name fits two, neither."""
    known: dict[str, int] = {}
    for index, label in enumerate(classes):
        for text in filter(None, (label.id, label.synset)):
            known[rules.same_text_key(text)] = index
    names: dict[str, int] = {}
    for index, label in enumerate(classes):
        key = rules.same_text_key(label.name)
        names[key] = -1 if key in names else index
    return {**names, **known}
