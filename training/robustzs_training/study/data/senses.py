"""From an author's words to a WordNet sense, or to the reason why there is none.

A picture gets a label only when its sense is sure: it was decided by hand (``senses.txt``), or its
title as a whole has one sense that a picture can show, or its keywords and folder name exactly one
of several (``bat`` beside ``sport``). Everything else is ``ambiguous``, ``unsure`` (only the end of
a title has a sense, and no keyword supports it) or ``unknown``, and is not used: a wrong label is
worse than a missing picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from robustzs.hierarchy.noun_index import NounIndex, Synset
from robustzs_training.lite.nouns import VISIBLE_LEXNAMES, ancestors_or_self

How = Literal["by-hand", "one-sense", "keywords", "dropped", "ambiguous", "unsure", "unknown"]
_WORDS = re.compile(r"[a-z][a-z'\-]*")
_CUT = re.compile(
    r"\s(?:with|on|in|of|at|by|for|from|and|over|under|holding|without|to)\s.*|[,(/:].*"
)


@dataclass(frozen=True, kw_only=True)
class Sense:
    """What a title means.

    Attributes:
        wnid: The sense; ``None`` where none is sure.
        how: How it was found, or why not.
        term: The part of the title that names the thing.
    """

    wnid: str | None
    how: How
    term: str


@cache
def hand_senses() -> Mapping[str, str | None]:
    """The decisions of ``senses.txt``: title or ``title @ folder`` -> wnid; ``None``: not used."""
    text = (resources.files("robustzs_training.study.data") / "senses.txt").read_text("utf-8")
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        head, _, _comment = line.partition("#")
        if "=" in head:
            key, _, wnid = head.rpartition("=")
            found[key.strip()] = None if wnid.strip() == "-" else wnid.strip()
    return found


def find_sense(title: str, context: Sequence[str], *, folder: str = "") -> Sense:
    """Find what a title means.

    Args:
        title: Lower case.
        context: Keywords and names of folders, lower case; they only choose among senses.
        folder: Where the picture lies, for decisions that hold there alone.
    """
    table = hand_senses()
    for key in (f"{title} @ {folder}", title):
        if key in table:
            return Sense(wnid=table[key], how="by-hand" if table[key] else "dropped", term=title)
    for term in terms_of(title):
        if term in table:
            return Sense(wnid=table[term], how="by-hand" if table[term] else "dropped", term=term)
        senses = _visible(term)
        if senses:
            found = _choose(term, senses, context)
            if found.how == "one-sense" and term != title and folder != "furniture":
                return Sense(wnid=None, how="unsure", term=term)
            return found
    return Sense(wnid=None, how="unknown", term=title)


def terms_of(title: str) -> tuple[str, ...]:
    """The parts of a title that may name the thing: all of it, then shorter and shorter ends."""
    cut = _CUT.sub("", title).strip()
    words = _WORDS.findall(cut)
    ends = [" ".join(words[start:]) for start in range(len(words))]
    return tuple(dict.fromkeys(t for t in (title, cut, *ends) if len(t) > 2))


@cache
def _visible(term: str) -> tuple[Synset, ...]:
    return tuple(
        s
        for s in NounIndex.load().synsets(term)
        if s.lexname in VISIBLE_LEXNAMES and not s.is_instance
    )


def _choose(term: str, senses: Sequence[Synset], context: Sequence[str]) -> Sense:
    words = {word for text in context for word in (text, *_WORDS.findall(text))} - {term}
    words |= {word[:-1] for word in words if word.endswith("s")}
    scores = [len(words & (_words_above(s.wnid) - {term})) for s in senses]
    best = max(scores)
    if best and scores.count(best) == 1:
        return Sense(wnid=senses[scores.index(best)].wnid, how="keywords", term=term)
    if len(senses) == 1:
        return Sense(wnid=senses[0].wnid, how="one-sense", term=term)
    return Sense(wnid=None, how="ambiguous", term=term)


@cache
def _words_above(wnid: str) -> frozenset[str]:
    """Every word for a sense and for what it is a kind of, the most general ones left out."""
    index = NounIndex.load()
    kinds = (index.get(one) for one in ancestors_or_self(wnid))
    words = (lemma.lower() for kind in kinds for lemma in kind.lemmas)
    return frozenset(words) - {"object", "unit", "whole", "thing", "entity", "matter", "part"}
