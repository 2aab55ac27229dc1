"""The article that an English noun phrase wants: ``an otter``, ``a unicorn``, ``hay``.

Heuristics, not a dictionary: the first word's sound chooses between ``a`` and ``an``, the head noun
decides whether there is an article at all (plural and mass nouns go without).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

RULES_VERSION = 1
"""Raised whenever a rule or a word list changes what comes out."""

# What follows these words describes the head noun, which stands right before them.
_AFTER_HEAD = re.compile(
    r"\s*(?:[(,/;:]|\b(?:of|with|without|in|on|at|for|from|or|and|to|by|that|which)\b).*$",
    re.IGNORECASE | re.DOTALL,
)
_SILENT_H = re.compile(r"hour|heir|honest|honou?r", re.IGNORECASE)
# "you", "w" and "wun" at the beginning: a vowel letter, but a consonant to the ear.
_CONSONANT_SOUND = re.compile(
    r"""eu | ew | once\b | one(?:sie)?s?\b | ouija | oaxaca
    | u(?:akari|biq|fo|ganda|ighur|sb|vula)
    | uke\b | ukr | ukul | unanim
    | uni(?! ll | m(?!og) | n | d(?!ir) | ron)
    | ur[aeiou] | us[aeu] | ut(?:ah|e|i|o)""",
    re.IGNORECASE | re.VERBOSE,
)
_VOWEL_LETTER_NAMES = frozenset("AEFHILMNORSX")


def with_article(phrase: str) -> str:
    """Put ``a`` or ``an`` before a noun phrase, or nothing where it wants none.

    Examples:
        ``otter`` -> ``an otter``; ``unicorn`` -> ``a unicorn``; ``hourglass`` -> ``an hourglass``;
        ``sunglasses``, ``hay``, ``my cat`` and ``the Eiffel Tower`` stay as they are.
    """
    words = phrase.split()
    if not words or words[0].lower() in _word_list("determiners") or _takes_no_article(phrase):
        return phrase
    return f"{'an' if begins_with_vowel_sound(words[0]) else 'a'} {phrase}"


def begins_with_vowel_sound(word: str) -> bool:
    """Whether English says ``an`` before ``word`` (numbers and abbreviations are spelt out)."""
    match = re.search(r"\w+", word)
    if match is None:
        return False
    first = match[0]
    rest = word[match.start() :]
    if first[0].isdigit():
        digits = re.match(r"\d+", first)
        number = digits[0] if digits else first
        return number.startswith("8") or (number[:2] in ("11", "18") and len(number) % 3 == 2)
    spelt_out = (
        first.isupper() and len(first) <= 4 and first not in _word_list("spoken_abbreviations")
    )
    if len(first) == 1 or spelt_out:
        return first[0].upper() in _VOWEL_LETTER_NAMES
    if first[0] in "hH":
        return _SILENT_H.match(rest) is not None
    if first[0] in "yY":  # ytterbium, ylang-ylang
        return first[1].lower() not in "aeiou"
    return first[0].lower() in "aeiouàáâäåæèéêëìíîïòóôöøùúûü" and not _CONSONANT_SOUND.match(rest)


def _takes_no_article(phrase: str) -> bool:
    """Whether the head noun is plural or a mass noun."""
    head_phrase = _AFTER_HEAD.sub("", phrase).lower().split()
    if not head_phrase:
        return False
    mass, singular = _word_list("mass_nouns"), _word_list("singular_s")
    head = head_phrase[-1].split("-")[-1]
    if " ".join(head_phrase[-2:]) in mass or head in mass:
        return True
    if head in _word_list("irregular_plurals"):
        return True
    if not head.endswith("s") or head.endswith(("ss", "us", "is", "'s")) or len(head) < 4:
        return False
    return head not in singular


@cache
def _word_list(name: str) -> frozenset[str]:
    text = (files("robustzs.labels") / "data" / f"{name}.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
