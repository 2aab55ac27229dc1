"""Captions without a model: what a label is called, what kind of thing it is, how it looks.

WordNet's glosses say what things of a kind look like (*having a long straight silky white coat*),
and properties beside names are what QT-AFT found to matter. Such a caption is true of the class,
not of the picture. It needs no torch.

A gloss becomes a phrase in these steps: remarks in parentheses and quotation marks go; its parts
(between ``;``) are told apart; *any of various terriers* becomes *one of various terriers*; a
singular head gets its article. Parts are added whole, as long as the caption keeps within its
words.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from robustzs.hierarchy.noun_index import NounIndex, Synset
from robustzs.labels.articles import with_article
from robustzs.labels.label import Label

MAX_WORDS = 50
"""As many as the paper's prompt asks a model for."""

OPENINGS = ("a photo of {}", "a picture of {}", "an image of {}", "this is a photo of {}")
"""The first one, unless a seed chooses."""

_PARENTHESES = re.compile(r"\([^()]*\)")
_EXAMPLE = re.compile(r'"[^"]*"?')
_SPACE_BEFORE_MARK = re.compile(r"\s+([,;:.])")
_ANY = re.compile(r"any(?P<of> of)?\b", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:a|an|the|one|some|several|two|either|each|every|something)\b", re.I)
# Where the head of a noun phrase is over; what follows describes it.
_AFTER_HEAD = re.compile(
    r"[,:;]|\b(?:and|at|by|for|from|in|of|on|or|than|that|to|used|usually|with|without|when|where|"
    r"which|who|whose|having|consisting|containing|made|worn|noted|living|resembling|found)\b",
    re.IGNORECASE,
)
# Parts that speak of words or of history, not of what is seen.
_NOT_SEEN = re.compile(
    r"(?:trade\s?mark|type genus|used in the phrase|sometimes (?:also )?called|also called|"
    r"a regional term|formerly|in some classifications|considered )",
    re.IGNORECASE,
)
_LEFT_OVER = re.compile(
    r"(?:an?|and|are|as|at|by|for|from|in|is|its|of|on|or|that|the|their|to|which|with)[,;]?",
    re.IGNORECASE,
)


def gloss_caption(
    label: Label,
    index: NounIndex,
    *,
    properties: bool = True,
    seed: str | None = None,
    max_words: int = MAX_WORDS,
) -> str:
    """A caption for pictures of a label.

    Examples:
        ``tabby cat`` -> *a photo of a tabby cat, a kind of domestic cat with a grey or
        tawny coat mottled with black*; without properties *a photo of a tabby cat*.

    Args:
        label: What is seen. Its ``prompt`` names it and its ``synset`` describes it; without a
            synset the caption is the name alone (:func:`robustzs.hierarchy.resolve.resolve_labels`
            finds synsets).
        index: The nouns.
        properties: Whether kind and looks follow the name.
        seed: Chooses among the openings, always the same one for a seed; ``None`` takes the first.
        max_words: Most words, by white space. The name is given whole even if it has more.

    Raises:
        UnknownLabelError: WordNet has no such synset.
    """
    named = _opening(seed).format(with_article(label.prompt))
    if not properties or label.synset is None:
        return named
    return describe(named, index.get(label.synset), index, max_words=max_words)


def describe(named: str, synset: Synset, index: NounIndex, *, max_words: int = MAX_WORDS) -> str:
    """Put the kind and the looks of a synset after its name."""
    kinds = [
        index.lemmas(index.row(wnid)) for wnid in synset.hypernyms or synset.instance_hypernyms
    ]
    parts = list(gloss_parts(synset.gloss))
    caption = named
    if kinds and not (parts and _mentions(parts[0], kinds)):
        kind = kinds[0][0]
        caption = f"{named}, {'one' if synset.is_instance else 'a kind'} of {kind}"
        if parts and (rest := _after_genus(parts[0], kind)):
            caption, parts = f"{caption} {rest}", parts[1:]
        if _n_words(caption) > max_words:
            return _cut(caption, max_words)
    for number, part in enumerate(parts):
        separator = ", " if number == 0 else "; "
        longer = f"{caption}{separator}{with_own_article(part) if number == 0 else part}"
        if _n_words(longer) <= max_words:
            caption = longer
        elif number == 0:
            return _cut(longer, max_words)
    return caption


def gloss_parts(gloss: str) -> tuple[str, ...]:
    """What a gloss says, without remarks, examples and quotation marks; in its order."""
    text = _EXAMPLE.sub(" ", gloss.replace("``", '"').replace("''", '"'))
    while (shorter := _PARENTHESES.sub(" ", text)) != text:
        text = shorter
    text = re.sub(r"[()`]|(?<=\w)'(?=[\s,;]|$)(?<!s')", " ", text)
    parts = []
    for piece in text.split(";"):
        part = _SPACE_BEFORE_MARK.sub(r"\1", " ".join(piece.split())).strip(" ,:.-")
        if part and not _NOT_SEEN.match(part):
            parts.append(
                _ANY.sub(lambda m: "one of" if m["of"] else "a", part, count=1)
                if _ANY.match(part)
                else part
            )
    return tuple(parts)


def with_own_article(phrase: str) -> str:
    """The phrase with ``a`` or ``an`` before it if its head is one countable thing."""
    if _ARTICLE.match(phrase):
        return phrase
    over = _AFTER_HEAD.search(phrase)
    head = phrase[: over.start()] if over else phrase
    if any(_looks_plural(word) for word in head.split()):
        return phrase
    return with_article(phrase)


def _opening(seed: str | None) -> str:
    if seed is None:
        return OPENINGS[0]
    return OPENINGS[
        hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[0] % len(OPENINGS)
    ]


def _looks_plural(word: str) -> bool:
    low = word.lower()
    return len(low) > 3 and low.endswith("s") and not low.endswith(("ss", "us", "is", "'s"))


def _mentions(part: str, kinds: Sequence[Sequence[str]]) -> bool:
    low = part.lower()
    return any(
        re.search(rf"\b{re.escape(name.lower())}(?:s|es)?\b", low)
        for names in kinds
        for name in names
    )


def _after_genus(part: str, kind: str) -> str:
    """*with a grey coat* of *a cat with a grey coat* and the kind *domestic cat*; or empty."""
    genus = re.escape(kind.split()[-1])
    rest = r"(?=(?:with|having|that|which|of|in|for|used)\b)"
    found = re.match(rf"(?:an? )?{genus} {rest}", part, re.IGNORECASE)
    return part[found.end() :] if found else ""


def _n_words(text: str) -> int:
    return len(text.split())


def _cut(text: str, max_words: int) -> str:
    """The first words, without a preposition or article left dangling at the end."""
    words = text.split()[:max_words]
    while len(words) > 1 and _LEFT_OVER.fullmatch(words[-1]):
        words.pop()
    return " ".join(words).rstrip(" ,;:")
