"""One label: three fields for three readers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """One thing to choose from.

    Args:
        id: For code: a wnid where one is known, else a slug of the name. Stable, unique in its set.
        name: For people.
        prompt: For the text tower; fills the ``{}`` of the templates.
        aliases: Other names; they help to find the WordNet sense and are never shown to the model.
        synset: The WordNet 3.0 noun sense, ``n02084071`` or ``dog.n.01``, where it is known.
    """

    id: str
    name: str
    prompt: str
    aliases: tuple[str, ...] = ()
    synset: str | None = None
