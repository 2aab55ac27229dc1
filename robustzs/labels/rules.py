"""What a label may look like, and how an id is made from a name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MAX_LABELS = 100_000
MAX_TEXT_LENGTH = 512
"""Characters in a name, a prompt, an alias or an id."""
MAX_ALIASES = 64
MAX_FILE_BYTES = 32 * 1024 * 1024

_WNID = re.compile(r"n\d{8}", re.ASCII)
_SENSE = re.compile(r"(?P<lemma>[^\s|;,]+)\.n\.\d{2,3}", re.ASCII)
_SENSE_OF_OTHER_POS = re.compile(r"[^\s|;,]+\.[vasr]\.\d{2,3}", re.ASCII)
# C0, DEL, C1, line and paragraph separators, surrogates: none of them can stand in one line of
# text, and each has been used to break a log, a table or a JSON reader.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ID = re.compile(r"[^\s,;]+")


def is_wnid(text: str) -> bool:
    """Whether ``text`` is a WordNet 3.0 noun offset such as ``n02084071``."""
    return _WNID.fullmatch(text) is not None


def is_sense(text: str) -> bool:
    """Whether ``text`` names a noun sense such as ``dog.n.01``."""
    return _SENSE.fullmatch(text) is not None


def lemma_of_sense(sense: str) -> str:
    """``ice_cream.n.01`` -> ``ice cream``."""
    match = _SENSE.fullmatch(sense)
    return match["lemma"].replace("_", " ") if match else sense


def tidy(text: str) -> str:
    """NFC, without white space at the ends; everything inside survives."""
    return unicodedata.normalize("NFC", text).strip()


def text_problem(text: str, what: str, limit: int = MAX_TEXT_LENGTH) -> str | None:
    """Say what is wrong with one piece of text, or ``None``."""
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        kind = "lone surrogate" if "\ud800" <= forbidden[0] <= "\udfff" else "control character"
        place = f"at character {forbidden.start() + 1}"
        return f"{what} contains the {kind} U+{ord(forbidden[0]):04X} {place}"
    if len(text) > limit:
        return f"{what} has {len(text)} characters, the limit is {limit}: {text[:40]!r}..."
    return None


def id_problem(text: str) -> str | None:
    """Say what is wrong with an id, or ``None``."""
    if not _ID.fullmatch(text):
        return f"id {text!r} contains white space, a comma or a semicolon"
    return None


def synset_problem(text: str) -> str | None:
    """Say what is wrong with a synset, or ``None``."""
    if is_wnid(text) or is_sense(text):
        return None
    if _SENSE_OF_OTHER_POS.fullmatch(text):
        return f"synset {text!r} is not a noun: only senses such as 'crane.n.05' name things"
    return f"synset {text!r} is neither a wnid such as 'n02084071' nor a sense such as 'dog.n.01'"


def same_text_key(text: str) -> str:
    """Equal for texts that differ only in case, white space or Unicode composition."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def slug(name: str) -> str:
    """Lower-case words of letters, marks and digits, joined by hyphens; may be empty.

    Apostrophes vanish (``potter's wheel`` -> ``potters-wheel``), everything else separates words.
    Letters of every script stay.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    kept = [
        char if char.isalnum() or unicodedata.category(char)[0] == "M" else " "
        for char in folded
        if char not in "'\u2019"
    ]
    return "-".join("".join(kept).split())


def short_digest(text: str) -> str:
    """First 8 hexadecimal digits of the sha256 of ``text``."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]


def unique_slugs(names: Sequence[tuple[str, str]], taken: set[str]) -> list[str]:
    """One id per ``(name, synset)``, none of them in ``taken``; equal only for equal pairs.

    Names that would share a slug (``C++`` and ``C#``; ``hot dog`` and ``hot-dog``) all get a digest
    as a suffix, so that an id never depends on the order of the labels.
    """
    slugs = [slug(name) for name, _ in names]
    count = Counter(slugs)
    return [
        each
        if each and count[each] == 1 and each not in taken and not is_wnid(each)
        else f"{each or 'label'}-{short_digest(name + chr(0) + synset)}"
        for each, (name, synset) in zip(slugs, names, strict=True)
    ]
