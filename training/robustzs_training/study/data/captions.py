"""Captions that say what is in a picture, and nothing that was not measured or written down.

A caption has parts: what it is, how large, in which colours (measured on the cut-out), of which
kind (WordNet), where (measured on the composite), on which ground; what such a thing is like
(WordNet's gloss); its author's further words; what sort of picture it is. Parts that name
something that is held out are left out of captions that are trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels.articles import with_article
from robustzs.labels.entries import imagenet_table
from robustzs_training.lite.nouns import VISIBLE_LEXNAMES

_PARENTHESES = re.compile(r"\([^()]*\)")
_MANY = re.compile(r"^(?:any of (?:various|several|numerous|many|a number of|the)|any) ")
_WORD = re.compile(r"[a-z]+(?:[ '\-][a-z]+)*")
_MAX_GLOSS_WORDS = 16
_MAX_KEYWORDS = 4
_TOO_GENERAL = frozenset(
    {
        "article",
        "artifact",
        "commodity",
        "covering",
        "creation",
        "device",
        "entity",
        "equipment",
        "implement",
        "instrumentality",
        "living thing",
        "material",
        "matter",
        "natural object",
        "object",
        "organism",
        "part",
        "physical object",
        "region",
        "structure",
        "substance",
        "thing",
        "unit",
        "ware",
        "whole",
    }
)
_UNTOLD = frozenset(
    {
        "animal",
        "default",
        "festive",
        "fly",
        "hardware",
        "hash",
        "icon",
        "menu",
        "outdoor",
        "people",
        "scpts",
        "sports",
        "symbol",
        "tool",
        "work",
    }
)
"""Keywords that tell of a collection, not of a picture."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a picture.

    Attributes:
        wnid: What it shows.
        term: The word that its author used, if it is one of WordNet's for this sense.
        colors: Of the thing.
        size: ``small``, ``large`` or nothing.
        where: ``at the top left``; nothing for a photograph.
        ground: What is behind it; of a photograph, what it shows.
        style: ``clip art``, ``an emoji``, ``a rendered view``, ``a photograph``.
        keywords: The author's further words.
    """

    wnid: str
    term: str
    colors: Sequence[str]
    size: str
    where: str
    ground: str
    style: str
    keywords: Sequence[str] = ()


class Forbidden:
    """Words that a caption must not have: the names of what is held out.

    Args:
        wnids: Held-out concepts.
    """

    def __init__(self, wnids: Iterable[str]) -> None:
        index = NounIndex.load()
        words = {lemma.lower() for wnid in wnids for lemma in index.get(wnid).lemmas}
        self.words = frozenset(words)
        ordered = sorted(words, key=lambda word: (-len(word), word))
        pattern = "|".join(re.escape(word) for word in ordered)
        self._pattern = re.compile(rf"\b(?:{pattern})(?:s|es)?\b") if words else None

    def found_in(self, text: str) -> str | None:
        """The first such word in a text, or ``None``."""
        found = self._pattern.search(text.lower()) if self._pattern else None
        return found[0] if found else None


def write_caption(facts: Facts, forbidden: Forbidden) -> str:
    """Put the parts together; those with forbidden words are left out."""

    def allowed(text: str) -> str:
        return "" if forbidden.found_in(text) else text

    name = name_of(facts.wnid, facts.term)
    kind = kind_of(facts.wnid, avoid=lambda word: bool(forbidden.found_in(word)))
    gloss = allowed(gloss_of(facts.wnid))
    words = [w for w in keywords_of(facts) if allowed(w)][:_MAX_KEYWORDS]
    if facts.style == "a photograph":
        first = f"A photograph of {allowed(facts.ground) or with_article(name)}"
        first += f": {with_article(name)}" if name not in facts.ground else ""
        first += f", {with_article(kind)}" if kind else ""
    else:
        what = _described(facts.size, facts.colors, name)
        ground = allowed(facts.ground)
        first = what[0].upper() + what[1:]
        first += f", {with_article(kind)}," if kind else ""
        first += (
            f" {facts.where} of the picture"
            if facts.where != "in the middle"
            else (" in the middle of the picture")
        )
        first += f", in front of {ground}" if ground else ""
    parts = [first]
    if gloss:
        parts.append(gloss[0].upper() + gloss[1:])
    if words:
        parts.append("Other words: " + ", ".join(words))
    if facts.style != "a photograph":
        parts.append(facts.style[0].upper() + facts.style[1:])
    return ". ".join(parts) + "."


def _described(size: str, colors: Sequence[str], name: str) -> str:
    """``a small red and white bus``; the article is that of the name and of the first word."""
    first = " ".join(part for part in (size, *colors[:1]) if part)
    what = with_article(f"{first} {name}".strip())
    if len(colors) < 2:
        return what
    return what.replace(f"{colors[0]} ", f"{' and '.join(colors)} ", 1)


def name_of(wnid: str, term: str) -> str:
    """What to call a concept: the author's word if it is one of its names, else the usual one."""
    synset = NounIndex.load().get(wnid)
    if term.lower() in {lemma.lower() for lemma in synset.lemmas}:
        return term.lower()
    label = imagenet_table().get(wnid)
    return label.name if label is not None else synset.lemmas[0]


def kind_of(wnid: str, avoid: Callable[[str], bool] = lambda word: False) -> str:
    """The name of what it is a kind of; nothing where that says too little."""
    index = NounIndex.load()
    for parent in index.get(wnid).hypernyms:
        lemma = index.get(parent).lemmas[0]
        if lemma not in _TOO_GENERAL and not avoid(lemma):
            return lemma
    return ""


@cache
def gloss_of(wnid: str) -> str:
    """The first part of the gloss that is short enough, without remarks; else nothing."""
    gloss = _PARENTHESES.sub("", NounIndex.load().get(wnid).gloss)
    first = " ".join(gloss.split(";")[0].split())
    first = _MANY.sub("", first)
    return first if 2 <= len(first.split()) <= _MAX_GLOSS_WORDS else ""


def keywords_of(facts: Facts) -> list[str]:
    """The author's words that name something that can be seen, other than the thing's own name."""
    index = NounIndex.load()
    own = {lemma.lower() for lemma in index.get(facts.wnid).lemmas} | {facts.term}
    own |= {f"{word}{end}" for word in own for end in ("s", "es")}
    return [
        word
        for word in dict.fromkeys(facts.keywords)
        if word not in own
        and word not in _TOO_GENERAL
        and _WORD.fullmatch(word)
        and any(s.lexname in VISIBLE_LEXNAMES and not s.is_instance for s in index.synsets(word))
        and word not in _UNTOLD
    ]
