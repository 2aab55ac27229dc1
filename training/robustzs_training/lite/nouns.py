"""WordNet's nouns as training text, and the classes of ImageNet, from what the core ships."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from robustzs.hierarchy.noun_index import NounIndex

VISIBLE_LEXNAMES = frozenset(
    f"noun.{name}"
    for name in (
        "animal",
        "artifact",
        "body",
        "food",
        "object",
        "person",
        "phenomenon",
        "plant",
        "substance",
    )
)
"""Lexicographer files of things that a picture can show."""
_TAXON_WORDS = ("genus ", "family ", "order ", "class ", "suborder ")


@dataclass(frozen=True, kw_only=True)
class ImageNetClass:
    """One row of the shipped table ``imagenet1k_labels.csv``; the row number is the class index.

    Attributes:
        wnid: WordNet 3.0 id.
        name: Short name for people.
        prompt: What the text tower reads; unique.
        aliases: Other words for it that no other class uses.
    """

    wnid: str
    name: str
    prompt: str
    aliases: tuple[str, ...]


def load_imagenet_classes() -> list[ImageNetClass]:
    """Read the shipped class table: 1000 rows in ILSVRC order."""
    source = resources.files("robustzs") / "hierarchy" / "data" / "imagenet1k_labels.csv"
    return [
        ImageNetClass(
            wnid=row["wnid"],
            name=row["name"],
            prompt=row["prompt"],
            aliases=tuple(a for a in row["aliases"].split(";") if a),
        )
        for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    ]


@cache
def ancestors_or_self(wnid: str) -> frozenset[str]:
    """Collect a synset and everything above it, by all hypernym paths."""
    synset = NounIndex.load().get(wnid)
    parents = (*synset.hypernyms, *synset.instance_hypernyms)
    return frozenset({wnid}).union(*(ancestors_or_self(parent) for parent in parents))


def visible_nouns(always: Iterable[str]) -> list[str]:
    """List the wnids of the kinds of visible things, and those in ``always``, sorted.

    Individuals (a person, a city) and the Latin names of taxa are left out.
    """
    index = NounIndex.load()
    wanted = set(always)
    for row in range(len(index)):
        synset = index.at(row)
        if synset.lexname not in VISIBLE_LEXNAMES or synset.is_instance:
            continue
        if not synset.lemmas[0].startswith(_TAXON_WORDS):
            wanted.add(synset.wnid)
    return sorted(wanted)


def training_nouns(classes: Iterable[ImageNetClass]) -> list[str]:
    """List the nouns that the text tower learns: visible ones, the classes and all above them."""
    return visible_nouns(frozenset().union(*(ancestors_or_self(c.wnid) for c in classes)))
