"""WordNet's nouns, read from the compact file that ships with robustzs; nltk is not needed.

The index holds every noun synset of WordNet 3.0 (82,115): lemmas, hypernyms, instance hypernyms and
glosses, and every lemma's senses in WordNet's own order. Its arrays are read-only and nothing is
decoded before it is asked for, so that one index serves any number of threads.

Look-up follows WordNet (``getindex`` and ``morphy`` in its C library): case is ignored, spaces and
underscores are the same, hyphens may be spaces or be left out, and a plural finds its singular. In
contrast to nltk a plural is only reduced when it is not a noun itself: ``glasses`` are spectacles.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from robustzs.errors import UnknownLabelError
from robustzs.hierarchy.noun_file import NounFile

NOUN_INDEX_PATH = Path(__file__).parent / "data" / "wordnet30_nouns.bin"
GLOSSES_PER_BLOCK = 64
"""Glosses are deflated in blocks of so many synsets: one look-up inflates one block."""

WNID_PATTERN = re.compile(r"n\d{8}")
SYNSET_NAME_PATTERN = re.compile(r"(?P<lemma>.+)\.n\.(?P<sense>\d{1,3})")
_PLURALS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)

_ScalarT = TypeVar("_ScalarT", bound=np.generic)
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Synset:
    """One noun sense.

    Attributes:
        row: Its row in the index; rows are in the order of WordNet's offsets.
        wnid: ``"n"`` and the offset in WordNet 3.0, eight digits, such as ``"n02084071"``.
        name: nltk's name, such as ``"dog.n.01"``.
        lemmas: Words for it, most common first, in their own spelling (``"Canis familiaris"``).
        gloss: The definition, without the examples of use.
        hypernyms: wnids of the kinds that it is one of.
        instance_hypernyms: wnids of the kinds that it is an individual of (``Ganges`` of river).
        lexname: WordNet's lexicographer file, such as ``"noun.animal"``.
    """

    row: int
    wnid: str
    name: str
    lemmas: tuple[str, ...]
    gloss: str
    hypernyms: tuple[str, ...]
    instance_hypernyms: tuple[str, ...]
    lexname: str

    @property
    def is_instance(self) -> bool:
        """Whether it is an individual (a person, a river, a star) rather than a kind."""
        return bool(self.instance_hypernyms)


class NounIndex:
    """All noun senses, by word and by id. Use :meth:`load`.

    Args:
        file: A verified noun file.
    """

    def __init__(self, file: NounFile) -> None:
        self._file = file
        self.info = file.info
        self._offsets = _frozen(np.cumsum(file.array("offset_steps"), dtype=np.int32))
        self._words = bytes(file.bytes_of("words"))
        self._word_ends = _ends(file.array("word_sizes"))
        self._sense_ends = _ends(file.array("n_senses"))
        self._sense_rows = file.array("sense_rows")
        self._lemma_ends = _ends(file.array("n_lemmas"))
        self._lemma_words = file.array("lemma_words")
        self._parent_ends = _ends(file.array("n_parents"))
        self._parent_rows = file.array("parent_rows")
        self._parent_is_instance = _frozen(file.array("parent_is_instance").astype(bool))
        self._gloss_ends = file.array("gloss_ends")
        self._lexfiles = file.array("lexfiles")
        self._lexnames: list[str] = file.info["lexnames"]

    @classmethod
    def load(cls, path: Path | None = None) -> NounIndex:
        """The index that ships, read once per process, or another one.

        Args:
            path: A file made by ``robustzs hierarchy compile-nouns``.

        Raises:
            WordNetDataMissingError: If the file is missing or damaged.
        """
        return _load_cached() if path is None else cls(NounFile.read(path))

    def __len__(self) -> int:
        """How many synsets there are."""
        return len(self._offsets)

    def __contains__(self, synset_id: object) -> bool:
        """Whether :meth:`get` would find it."""
        return isinstance(synset_id, str) and self._find_row(synset_id) is not None

    def get(self, synset_id: str) -> Synset:
        """The synset of a wnid (``n02084071``) or name (``dog.n.01``; any lemma, ignoring case).

        Raises:
            UnknownLabelError: If WordNet 3.0 has no such noun sense.
        """
        return self.at(self.row(synset_id))

    def row(self, synset_id: str) -> int:
        """As :meth:`get`, but the row only."""
        row = self._find_row(synset_id)
        if row is None:
            raise UnknownLabelError(
                f"WordNet 3.0 has no noun sense {synset_id!r}",
                hint="ids look like 'n02084071' or 'dog.n.01'; "
                "`robustzs hierarchy resolve WORD` lists the senses of a word",
            )
        return row

    def at(self, row: int) -> Synset:
        """The synset of a row in ``[0, len(self))``."""
        start, stop = self._parent_ends[row], self._parent_ends[row + 1]
        parents = self._parent_rows[start:stop]
        instance = self._parent_is_instance[start:stop]
        return Synset(
            row=int(row),
            wnid=self.wnid(row),
            name=self.name(row),
            lemmas=self.lemmas(row),
            gloss=self.gloss(row),
            hypernyms=tuple(self.wnid(p) for p in parents[~instance]),
            instance_hypernyms=tuple(self.wnid(p) for p in parents[instance]),
            lexname=self._lexnames[self._lexfiles[row]],
        )

    def synsets(self, text: str) -> tuple[Synset, ...]:
        """All noun senses of a word or collocation, in WordNet's order; empty if it has none."""
        return tuple(self.at(row) for row in self.sense_rows(text))

    def sense_rows(self, text: str) -> tuple[int, ...]:
        """As :meth:`synsets`, but rows only."""
        for key in _spellings(text):
            if rows := self._senses_of(key):
                return rows
        return self.singular_rows(text)

    def singular_rows(self, text: str) -> tuple[int, ...]:
        """Rows of the nouns that ``text`` may be a plural of: also for ``men``, a noun itself."""
        for key in _spellings(text):
            rows = [row for form in self._base_forms(key) for row in self._senses_of(form)]
            if rows:
                return tuple(dict.fromkeys(rows))
        return ()

    def wnid(self, row: int) -> str:
        """The wnid of a row."""
        return f"n{self._offsets[row]:08d}"

    def name(self, row: int) -> str:
        """The name of a row as nltk has it: first lemma, ``n``, number of the sense."""
        first = self._word(self._lemma_words[self._lemma_ends[row]]).decode("ascii")
        return f"{first.lower()}.n.{self._sense_numbers[row]:02d}"

    def lemmas(self, row: int) -> tuple[str, ...]:
        """The words for a row, most common first, with spaces."""
        words = self._lemma_words[self._lemma_ends[row] : self._lemma_ends[row + 1]]
        return tuple(self._word(w).decode("ascii").replace("_", " ") for w in words.tolist())

    def gloss(self, row: int) -> str:
        """The definition of a row."""
        return _gloss_block(self, row // GLOSSES_PER_BLOCK)[row % GLOSSES_PER_BLOCK]

    def inflate_glosses(self, block: int) -> list[str]:
        """The glosses of rows ``[block * GLOSSES_PER_BLOCK, ...)``; :meth:`gloss` caches them."""
        start = int(self._gloss_ends[block - 1]) if block else 0
        deflated = self._file.bytes_of("glosses")[start : int(self._gloss_ends[block])]
        return zlib.decompress(deflated).decode("utf-8").split("\n")

    def hyponyms(self, synset_id: str, *, instances: bool = False) -> tuple[Synset, ...]:
        """The direct hyponyms of a synset, by offset; with ``instances`` its individuals, too."""
        child, parent, is_instance = self.edges
        chosen = parent == self.row(synset_id)
        if not instances:
            chosen &= ~is_instance
        return tuple(self.at(row) for row in child[chosen])

    @cached_property
    def edges(self) -> tuple[Int32Array, Int32Array, BoolArray]:
        """The graph: child rows, parent rows, whether the child is an instance; by child, parent.

        Three read-only arrays ``[n_edges]``.
        """
        counts = np.diff(self._parent_ends)
        child = np.repeat(np.arange(len(self), dtype=np.int32), counts)
        return _frozen(child), self._parent_rows, self._parent_is_instance

    def below(self, synset_id: str, *, instances: bool) -> BoolArray:
        """Mask ``[len(self)]`` of a synset and everything below it.

        Args:
            synset_id: Where to start.
            instances: Whether instance edges count, too.
        """
        return _below_cached(self, self.row(synset_id), instances)

    def in_lexfile(self, lexname: str) -> BoolArray:
        """Mask ``[len(self)]`` of the synsets of a lexicographer file, such as ``noun.animal``."""
        return _frozen(self._lexfiles == self._lexnames.index(lexname))

    def rows(self, synset_ids: Iterable[str]) -> Int32Array:
        """Rows of many ids, in their order.

        Raises:
            UnknownLabelError: Naming the first id that is not there.
        """
        return np.array([self.row(synset_id) for synset_id in synset_ids], dtype=np.int32)

    def _find_row(self, synset_id: str) -> int | None:
        if WNID_PATTERN.fullmatch(synset_id):
            offset = int(synset_id[1:])
            row = int(np.searchsorted(self._offsets, offset))
            return row if row < len(self) and self._offsets[row] == offset else None
        if match := SYNSET_NAME_PATTERN.fullmatch(synset_id):
            senses = self._senses_of(match["lemma"].lower().replace(" ", "_"))
            number = int(match["sense"])
            return senses[number - 1] if 1 <= number <= len(senses) else None
        return None

    def _word(self, position: int) -> bytes:
        return self._words[self._word_ends[position] : self._word_ends[position + 1]]

    @cached_property
    def _sense_numbers(self) -> Int32Array:
        """Which sense of its first lemma each row is, from 1; int32 ``[len(self)]``."""
        n_senses = np.diff(self._sense_ends)
        words = np.arange(len(n_senses), dtype=np.int32)
        leader = np.maximum.accumulate(np.where(n_senses > 0, words, 0))  # over spellings of a word
        word_of_sense = np.repeat(words, n_senses)
        first_word = leader[self._lemma_words[self._lemma_ends[:-1]]]
        is_first = first_word[self._sense_rows] == word_of_sense
        numbers = np.zeros(len(self), dtype=np.int32)
        place = np.arange(len(word_of_sense)) - self._sense_ends[word_of_sense] + 1
        numbers[self._sense_rows[is_first]] = place[is_first]
        return _frozen(numbers)

    def _senses_of(self, key: str) -> tuple[int, ...]:
        # Words are sorted by lower case, then by themselves; the first of equals has the senses.
        try:
            wanted = key.encode("ascii")
        except UnicodeEncodeError:
            return ()
        low, high = 0, len(self._word_ends) - 1
        while low < high:
            middle = (low + high) // 2
            if self._word(middle).lower() < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self._word_ends) - 1 or self._word(low).lower() != wanted:
            return ()
        rows = self._sense_rows[self._sense_ends[low] : self._sense_ends[low + 1]]
        return tuple(int(row) for row in rows)

    def _base_forms(self, key: str) -> list[str]:
        if irregular := self._exceptions.get(key):
            return list(irregular)
        if key.endswith("ss") or len(key) <= 2:
            return []
        return [key[: -len(suffix)] + ending for suffix, ending in _PLURALS if key.endswith(suffix)]

    @cached_property
    def _exceptions(self) -> dict[str, tuple[str, ...]]:
        lines = bytes(self._file.bytes_of("exceptions")).decode("ascii").splitlines()
        fields = [line.split() for line in lines]
        return {words[0]: tuple(words[1:]) for words in fields if words}


@lru_cache(maxsize=1)
def _load_cached() -> NounIndex:
    return NounIndex(NounFile.read(NOUN_INDEX_PATH))


@lru_cache(maxsize=256)
def _gloss_block(index: NounIndex, block: int) -> list[str]:
    return index.inflate_glosses(block)


@lru_cache(maxsize=32)
def _below_cached(index: NounIndex, row: int, instances: bool) -> BoolArray:
    child, parent, is_instance = index.edges
    if not instances:
        child, parent = child[~is_instance], parent[~is_instance]
    mask = np.zeros(len(index), dtype=bool)
    mask[row] = True
    size = 0
    while size != (size := int(mask.sum())):
        mask[child[mask[parent]]] = True
    return _frozen(mask)


def _spellings(text: str) -> list[str]:
    """Keys to look for: as written, hyphens and spaces exchanged, both gone, periods gone."""
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    key = "_".join(plain.lower().replace("_", " ").split())
    candidates = (
        key,
        key.replace("-", "_"),
        key.replace("_", "-"),
        key.replace("-", "").replace("_", ""),
        key.replace(".", ""),
    )
    return [c for c in dict.fromkeys(candidates) if c]


def _ends(sizes: npt.NDArray[np.uint8]) -> Int32Array:
    return _frozen(np.concatenate([[0], np.cumsum(sizes, dtype=np.int32)]).astype(np.int32))


def _frozen(array: npt.NDArray[_ScalarT]) -> npt.NDArray[_ScalarT]:
    array.flags.writeable = False
    return array
