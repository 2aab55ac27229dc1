"""Which concepts are trained on, and which are held out.

Concepts (synsets) that could tell of each other stand on the same side:

* those that share a word (all senses of *mouse*), or whose name holds the other's (*coffee table*
  and *table*), or that are shown by near-duplicate drawings;
* those of one title's drawings, since the author meant one thing;
* one that is a kind of the other, when the general one has few kinds here (*poodle* and *dog*, but
  not *owl* and *bird*).

Sides are drawn for such groups, by the digest of a name, so that they stay when pictures are added.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from robustzs.hierarchy.noun_index import NounIndex
from robustzs_training.lite.nouns import ancestors_or_self

_HELD_OUT_SHARE = 0.22
_MAX_KINDS = 8
_MAX_GROUP = 12


class Groups:
    """Disjoint sets of names, joined one pair at a time."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def root(self, name: str) -> str:
        """The name that stands for the group."""
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Make one group of two; the smaller name stands for it."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low

    def members(self) -> dict[str, list[str]]:
        """All groups, sorted."""
        found = defaultdict(list)
        for name in sorted(self._parent):
            found[self.root(name)].append(name)
        return dict(found)


def group_concepts(wnids: Iterable[str], alike: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Group concepts that must not be parted.

    Args:
        wnids: All of them.
        alike: Concepts whose drawings are near-duplicates or have one title.
    """
    names = sorted(set(wnids))
    groups = Groups(names)
    index = NounIndex.load()
    by_word: dict[str, str] = {}
    for wnid in names:
        for lemma in index.get(wnid).lemmas:
            groups.join(by_word.setdefault(lemma.lower(), wnid), wnid)
    for word, wnid in by_word.items():
        for part in _parts(word):
            if part in by_word:
                groups.join(by_word[part], wnid)
    for some in alike:
        for other in some[1:]:
            groups.join(some[0], other)
    for general, kinds in _kinds(names).items():
        if len(kinds) <= _MAX_KINDS:
            for kind in kinds:
                groups.join(general, kind)
    return groups.members()


def _parts(word: str) -> list[str]:
    """``coffee table`` -> ``coffee``, ``table``: runs of words, shorter than all."""
    words = re.split(r"[ \-]", word)
    runs = range(1, len(words))
    return [" ".join(words[i : i + n]) for n in runs for i in range(len(words) - n + 1)]


def _kinds(names: Sequence[str]) -> dict[str, list[str]]:
    """For each concept the others that are kinds of it."""
    known = set(names)
    found: dict[str, list[str]] = {}
    for wnid in names:
        for above in ancestors_or_self(wnid) & known - {wnid}:
            found.setdefault(above, []).append(wnid)
    return found


def hold_out(groups: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Draw the concepts that are held out: about a fifth; large groups are trained on."""
    held: set[str] = set()
    for root, members in groups.items():
        draw = int(hashlib.sha256(f"study {root}".encode()).hexdigest()[:8], 16) / 2**32
        if draw < _HELD_OUT_SHARE and len(members) <= _MAX_GROUP:
            held.update(members)
    return frozenset(held)
