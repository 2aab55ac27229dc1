"""What OpenMoji's drawings show, and which of it is trained on.

``openmoji_concepts.txt`` lists the concepts by kind. Of the kinds that are asked for
(:data:`ASKED`), three quarters of the concepts are held out, with every drawing of theirs; the
other quarter and all other kinds are trained on, as far as WordNet has the concept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

ASKED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "mammal": ("vertebrate", "n01471682"),
        "bird": ("vertebrate", "n01471682"),
        "reptile": ("vertebrate", "n01471682"),
        "fish": ("vertebrate", "n01471682"),
        "food": ("food", "n00021265"),
        "vehicle": ("vehicle", "n04524313"),
        "building": ("building", "n02913152"),
        "clothing": ("clothing", "n03051540"),
        "musical instrument": ("musical instrument", "n03800933"),
        "tool": ("tool", "n04451818"),
        "electronic device": ("electronic device", "n03277771"),
    }
)
"""Kind in the table -> name and WordNet id of the class that held-out pictures are asked for."""

_SHARE_HELD_OUT = 0.75


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One line of the table.

    Attributes:
        name: What the drawings show.
        kind: What it is one of.
        kind_synset: WordNet 3.0 id of the kind.
        synset: WordNet 3.0 id; ``None`` where WordNet has no such sense.
        drawings: Code points, as OpenMoji names its files.
    """

    name: str
    kind: str
    kind_synset: str
    synset: str | None
    drawings: tuple[str, ...]

    @property
    def asked(self) -> tuple[str, str]:
        """Name and WordNet id of its class where kinds are told apart."""
        return ASKED.get(self.kind, (self.kind, self.kind_synset))


def read_concepts() -> tuple[Concept, ...]:
    """The table that ships, in its order."""
    text = (resources.files("robustzs_training.data") / "openmoji_concepts.txt").read_text("utf-8")
    concepts: list[Concept] = []
    kind = kind_synset = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            kind, _, kind_synset = line[1:-1].partition(", ")
        elif line and not line.startswith("#"):
            head, drawings = line.split(": ")
            name, _, synset = head.partition(" = ")
            concepts.append(
                Concept(
                    name=name,
                    kind=kind,
                    kind_synset=kind_synset,
                    synset=synset or None,
                    drawings=tuple(drawings.split()),
                )
            )
    return tuple(concepts)


def split_concepts() -> tuple[tuple[Concept, ...], tuple[Concept, ...]]:
    """Concepts to train on, and held-out ones; by their names' digests, so that it stays."""
    concepts = read_concepts()
    held: set[str] = set()
    for kind in ASKED:
        names = sorted((c.name for c in concepts if c.kind == kind), key=name_digest)
        held.update(names[: round(_SHARE_HELD_OUT * len(names))])
    return (
        tuple(c for c in concepts if c.name not in held and c.synset is not None),
        tuple(c for c in concepts if c.name in held),
    )


def name_digest(name: str) -> str:
    """Sha256 in hex."""
    return hashlib.sha256(name.encode()).hexdigest()
