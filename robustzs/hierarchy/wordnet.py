"""Compiling WordNet 3.0 into the noun index, with nltk: the one module that imports it.

Maintainers run this (``robustzs hierarchy compile-nouns``); nothing else in robustzs needs nltk or
WordNet's files. Three properties of nltk 3.10 are dealt with here: relations come out of sets, in
the order of hashes, so everything is sorted; its reader shares one file handle between threads, so
one thread reads; and it opens nothing outside its data folders, so the files are copied into a
private one. Debian ships WordNet without ``lexnames``, a file of 45 lines that nltk insists on.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robustzs.errors import MissingExtraError, WordNetDataMissingError
from robustzs.hierarchy.noun_file import write_noun_file
from robustzs.hierarchy.noun_index import GLOSSES_PER_BLOCK

N_NOUN_SYNSETS = 82_115
_ANCHORS = {1740: "entity", 2084071: "dog", 1440764: "tench", 15300051: "9/11"}
_COPIED = tuple(
    f"{kind}.{pos}" for kind in ("data", "index") for pos in ("noun", "verb", "adj", "adv")
)
_COPIED += ("noun.exc", "verb.exc", "adj.exc", "adv.exc", "index.sense")

# Name and part of speech (1 noun, 2 verb, 3 adjective, 4 adverb), as in WordNet's lexnames(5).
_LEXNAMES_TEXT = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute "
    "noun.body noun.cognition noun.communication noun.event noun.feeling noun.food noun.group "
    "noun.location noun.motive noun.object noun.person noun.phenomenon noun.plant "
    "noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication "
    "verb.competition verb.consumption verb.contact verb.creation verb.emotion verb.motion "
    "verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl"
)
LEXNAMES = tuple(_LEXNAMES_TEXT.split())
_POS_NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def compile_nouns(wordnet_dir: Path, output: Path) -> str:
    """Compile the noun index from WordNet 3.0's database files.

    Args:
        wordnet_dir: Folder with ``data.noun``, ``index.noun``, ``index.sense`` and the like, such
            as ``/usr/share/wordnet`` (Debian: ``wordnet-base`` and ``wordnet-sense-index``).
        output: The file to write.

    Returns:
        The sha256 of the file; the same for the same WordNet, whatever the hash seed.

    Raises:
        MissingExtraError: If nltk is not installed.
        WordNetDataMissingError: If files are missing or are not WordNet 3.0.
    """
    with nltk_wordnet(wordnet_dir) as reader:
        synsets = sorted(reader.all_synsets("n"), key=lambda synset: synset.offset())
        offsets = [synset.offset() for synset in synsets]
        _check_is_3_0(wordnet_dir, synsets)
        row_of = {offset: row for row, offset in enumerate(offsets)}
        sections = {
            "offset_steps": np.diff(np.array(offsets), prepend=0).astype(np.int32),
            "lexfiles": np.array([LEXNAMES.index(s.lexname()) for s in synsets], dtype=np.uint8),
            "exceptions": np.frombuffer((wordnet_dir / "noun.exc").read_bytes(), dtype=np.uint8),
            **_word_sections(reader, synsets, row_of),
            **_parent_sections(synsets, row_of),
            **_gloss_sections([synset.definition() for synset in synsets]),
        }
    info = {
        "wordnet_version": "3.0",
        "n_synsets": len(synsets),
        "lexnames": list(LEXNAMES),
        "sources": {
            name: hashlib.sha256((wordnet_dir / name).read_bytes()).hexdigest()
            for name in ("data.noun", "index.noun", "noun.exc")
        },
        "licence": "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. "
        "The full notice is in WORDNET_LICENSE.txt and must stay with every copy.",
    }
    return write_noun_file(output, info, sections)


@contextmanager
def nltk_wordnet(wordnet_dir: Path) -> Iterator[Any]:
    """An ``nltk.corpus.reader.WordNetCorpusReader`` over copies of the files in ``wordnet_dir``.

    For one thread.

    Raises:
        MissingExtraError: If nltk is not installed.
        WordNetDataMissingError: If files are missing.
    """
    missing = [name for name in _COPIED if not (wordnet_dir / name).is_file()]
    if missing:
        raise WordNetDataMissingError(
            f"{str(wordnet_dir)!r} lacks {', '.join(missing)}",
            hint="apt-get install wordnet-base wordnet-sense-index, then give /usr/share/wordnet",
        )
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise MissingExtraError("nltk", "wordnet") from error

    with tempfile.TemporaryDirectory(prefix="robustzs-wordnet-") as data_root:
        corpus = Path(data_root) / "corpora" / "wordnet"
        corpus.mkdir(parents=True, mode=0o700)
        for name in _COPIED:
            shutil.copyfile(wordnet_dir / name, corpus / name)
        lines = (
            f"{number:02d}\t{name}\t{_POS_NUMBERS[name.split('.')[0]]}\n"
            for number, name in enumerate(LEXNAMES)
        )
        (corpus / "lexnames").write_text("".join(lines), encoding="ascii")
        nltk.data.path.insert(0, data_root)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The multilingual functions")
                reader = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
            try:
                yield reader
            finally:
                for stream in reader._data_file_map.values():  # nltk offers no way to close them
                    stream.close()
        finally:
            nltk.data.path.remove(data_root)


def _check_is_3_0(wordnet_dir: Path, synsets: list[Any]) -> None:
    with (wordnet_dir / "data.noun").open(encoding="ascii") as lines:
        head = "".join(next(lines) for _ in range(29))
    version = re.search(r"WordNet (\S+) Copyright", head)
    found = {synset.offset(): synset.lemma_names()[0] for synset in synsets}
    wrong = {o: found.get(o) for o, lemma in _ANCHORS.items() if found.get(o) != lemma}
    if version is None or version[1] != "3.0" or len(synsets) != N_NOUN_SYNSETS or wrong:
        raise WordNetDataMissingError(
            f"{str(wordnet_dir)!r} is not WordNet 3.0: it calls itself "
            f"{version[1] if version else 'nothing'} and has {len(synsets)} noun synsets",
            hint="ImageNet's ids are offsets in WordNet 3.0; 3.1 and other wordnets differ",
        )


def _word_sections(
    reader: Any, synsets: list[Any], row_of: dict[int, int]
) -> dict[str, np.ndarray[Any, Any] | bytes]:
    lemmas = [synset.lemma_names() for synset in synsets]
    words = sorted({word for names in lemmas for word in names}, key=lambda w: (w.lower(), w))
    position = {word: i for i, word in enumerate(words)}
    rows_by_word: list[list[int]] = []
    for i, word in enumerate(words):
        key = word.lower()
        if i and words[i - 1].lower() == key:
            rows_by_word.append([])  # another spelling; the first one has the senses
            continue
        # nltk appends the senses of base forms; those of the word itself keep WordNet's order.
        own = (s for s in reader.synsets(key, "n") if key in map(str.lower, s.lemma_names()))
        rows_by_word.append(list(dict.fromkeys(row_of[s.offset()] for s in own)))
    return {
        "words": np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8),
        "word_sizes": np.array([len(word) for word in words], dtype=np.uint8),
        "n_senses": np.array([len(rows) for rows in rows_by_word], dtype=np.uint8),
        "sense_rows": np.array([r for rows in rows_by_word for r in rows], dtype=np.int32),
        "n_lemmas": np.array([len(names) for names in lemmas], dtype=np.uint8),
        "lemma_words": np.array([position[w] for names in lemmas for w in names], dtype=np.int32),
    }


def _parent_sections(
    synsets: list[Any], row_of: dict[int, int]
) -> dict[str, np.ndarray[Any, Any] | bytes]:
    parents = [
        sorted(
            [(row_of[h.offset()], 0) for h in synset.hypernyms()]
            + [(row_of[h.offset()], 1) for h in synset.instance_hypernyms()]
        )
        for synset in synsets
    ]
    flat = [edge for edges in parents for edge in edges]
    return {
        "n_parents": np.array([len(edges) for edges in parents], dtype=np.uint8),
        "parent_rows": np.array([row for row, _ in flat], dtype=np.int32),
        "parent_is_instance": np.array([flag for _, flag in flat], dtype=np.uint8),
    }


def _gloss_sections(glosses: list[str]) -> dict[str, np.ndarray[Any, Any] | bytes]:
    blocks = [
        zlib.compress("\n".join(glosses[i : i + GLOSSES_PER_BLOCK]).encode(), 9)
        for i in range(0, len(glosses), GLOSSES_PER_BLOCK)
    ]
    return {
        "glosses": b"".join(blocks),
        "gloss_ends": np.cumsum([len(block) for block in blocks]).astype(np.int32),
    }
