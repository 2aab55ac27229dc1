"""The sentences that the text tower learns, and where each of them belongs.

Two pools: the names of ImageNet's classes (prompt, name and aliases), which must come out exactly,
and the lemmas of the other visible nouns, which carry the map to words that ImageNet lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels.templates import get_templates
from robustzs_training.lite.joint_space import Array, unit
from robustzs_training.lite.nouns import ImageNetClass

_SENSE_WEIGHTS = (1.0, 0.3, 0.1)
_COMMON = frozenset({"noun.animal", "noun.artifact", "noun.body", "noun.food", "noun.object"})
_GLOSS_EVERY = 6
_TEMPLATE_EVERY = 2
_UNCOMMON_EVERY = 2
_MAX_LEMMAS = 2


@dataclass(kw_only=True)
class Sentences:
    """Sentences in groups; a training step takes one sentence of a group.

    Attributes:
        texts: All sentences.
        target: For each sentence its row in ``targets``.
        groups: Per group the numbers of its sentences.
        weights: Per group the probabilities of its sentences; they sum to 1.
        targets: Unit text vectors ``[768]``.
    """

    texts: list[str] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    groups: list[npt.NDArray[np.int64]] = field(default_factory=list)
    weights: list[Array] = field(default_factory=list)
    targets: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add_group(self, members: Sequence[tuple[str, int, float]]) -> None:
        """Add a group of (sentence, row in ``targets``, weight)."""
        start = len(self.texts)
        self.texts += [text for text, _, _ in members]
        self.target += [row for _, row, _ in members]
        self.groups.append(np.arange(start, len(self.texts)))
        weights = np.array([weight for _, _, weight in members])
        self.weights.append(weights / weights.sum())

    def add_target(self, vector: Array) -> int:
        """Add a unit text vector; returns its row."""
        self.targets.append(vector.astype(np.float32))
        return len(self.targets) - 1


def class_sentences(
    classes: Sequence[ImageNetClass], indices: npt.NDArray[np.int64], targets: Array
) -> Sentences:
    """All that a class may be called, in the templates that people use.

    Half of the weight is on the prompt, bare and as "a photo of a {}."; a sixth each on other
    words for the class, on the article-aware templates and on seven of OpenAI's.

    Args:
        classes: The 1000 classes.
        indices: The classes to include.
        targets: ``[1000, 768]``, in class order.
    """
    single, articles, openai = (get_templates(n) for n in ("single", "articles", "openai-7"))
    out = Sentences()
    for index in indices:
        row = out.add_target(targets[index])
        names = classes[index]
        others = [w for w in _own_words(names) if w != names.prompt]
        members = [(names.prompt, row, 3.0), (single.fill(names.prompt)[0], row, 3.0)]
        for word in others:
            members.append((word, row, 1.0 / len(others)))
            members.append((single.fill(word)[0], row, 1.0 / len(others)))
        for templates in (articles, openai):
            filled = templates.fill(names.prompt)
            members += [(sentence, row, 2.0 / len(filled)) for sentence in filled]
        out.add_group(members)
    return out


def noun_sentences(wnids: Sequence[str], targets: Array, taken: frozenset[str]) -> Sentences:
    """The lemmas of the visible nouns, bare; of common kinds also in a template and with gloss.

    Every second noun of the uncommon kinds (plants, persons, substances), every second template
    and every sixth gloss is enough: what is learned is the map, not the words. An ambiguous lemma
    belongs to the weighted mean of its visible senses, most usual first.

    Args:
        wnids: The nouns of ``targets``.
        targets: ``[n, 768]``.
        taken: Lower-case words that the classes already fix.
    """
    index = NounIndex.load()
    row_of = {wnid: row for row, wnid in enumerate(wnids)}
    single = get_templates("single")
    out = Sentences()
    for number, wnid in enumerate(wnids):
        synset = index.get(wnid)
        common = synset.lexname in _COMMON
        if not common and number % _UNCOMMON_EVERY:
            continue
        words = [word for word in synset.lemmas if word.lower() not in taken]
        members: list[tuple[str, int, float]] = []
        for at, word in enumerate(words[: _MAX_LEMMAS if common else 1]):
            senses = [row_of[s.wnid] for s in index.synsets(word) if s.wnid in row_of]
            senses = senses[: len(_SENSE_WEIGHTS)] or [number]
            mixed = np.array(_SENSE_WEIGHTS[: len(senses)]) @ targets[senses]
            row = out.add_target(unit(mixed[None])[0])
            members.append((word, row, 1.0))
            if common and at == 0 and number % _TEMPLATE_EVERY == 0:
                members.append((single.fill(word)[0], row, 1.0))
        if members and common and number % _GLOSS_EVERY == 0:
            members.append((f"{words[0]}: {synset.gloss}", out.add_target(targets[number]), 0.5))
        if members:
            out.add_group(members)
    return out


def taken_words(classes: Sequence[ImageNetClass]) -> frozenset[str]:
    """Lower-case words that name a class."""
    return frozenset(word.lower() for row in classes for word in _own_words(row))


def _own_words(row: ImageNetClass) -> list[str]:
    """What a class alone is called: its prompt, and words whose most usual sense it is.

    ``mouse`` is an animal first, ``ear`` a part of the body: such words stay with the nouns.
    """
    index = NounIndex.load()
    words = [row.prompt]
    for word in dict.fromkeys((row.name, *row.aliases)):
        senses = index.synsets(word)
        if word != row.prompt and (not senses or senses[0].wnid == row.wnid):
            words.append(word)
    return words
