"""Compiling. The comparison of the whole index with nltk needs WordNet's files: ``-m wordnet``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustzs.errors import MissingExtraError, WordNetDataMissingError
from robustzs.hierarchy.noun_file import NounFile
from robustzs.hierarchy.noun_index import NOUN_INDEX_PATH, NounIndex
from robustzs.hierarchy.wordnet import LEXNAMES, compile_nouns, nltk_wordnet

FILES = [f"{kind}.{pos}" for kind in ("data", "index") for pos in ("noun", "verb", "adj", "adv")]
FILES += ["noun.exc", "verb.exc", "adj.exc", "adv.exc", "index.sense"]


def make_small_wordnet(folder: Path, version: str) -> Path:
    head = "".join(f"  {n} {text}\n" for n, text in enumerate(["x"] * 28))
    head += (
        f"  29 WordNet {version} Copyright 2006 by Princeton University.  All rights reserved.\n"
    )
    offset = len(head)
    for name in FILES:
        (folder / name).write_text("", encoding="ascii")
    for pos in ("verb", "adj", "adv"):
        (folder / f"data.{pos}").write_text(head, encoding="ascii")
    line = f"{offset:08d} 03 n 01 entity 0 000 | that which is\n"
    (folder / "data.noun").write_text(head + line, encoding="ascii")
    (folder / "index.noun").write_text(f"entity n 1 0 1 0 {offset:08d}\n", encoding="ascii")
    (folder / "index.sense").write_text(f"entity%1:03:00:: {offset:08d} 1 0\n", encoding="ascii")
    return folder


def test_lexnames_are_wordnets() -> None:
    assert len(LEXNAMES) == len(set(LEXNAMES)) == 45
    assert (LEXNAMES[3], LEXNAMES[5], LEXNAMES[44]) == ("noun.Tops", "noun.animal", "adj.ppl")


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_bytes(b"")
    with pytest.raises(WordNetDataMissingError) as caught:
        compile_nouns(tmp_path, tmp_path / "out.bin")
    assert "index.noun" in caught.value.message
    assert "data.noun" not in caught.value.message
    assert "wordnet-base" in caught.value.hint


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_another_wordnet_is_refused(tmp_path: Path, version: str) -> None:
    folder = make_small_wordnet(tmp_path, version)
    with pytest.raises(
        WordNetDataMissingError, match=f"not WordNet 3.0.* {version} and has 1 noun"
    ):
        compile_nouns(folder, tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def test_nltks_data_path_is_left_as_it_was(tmp_path: Path) -> None:
    import nltk

    before = list(nltk.data.path)
    with nltk_wordnet(make_small_wordnet(tmp_path, "3.0")) as reader:
        assert [synset.name() for synset in reader.all_synsets("n")] == ["entity.n.01"]
    assert nltk.data.path == before


def test_without_nltk_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingExtraError, match=r"robustzs\[wordnet\]"):
        compile_nouns(make_small_wordnet(tmp_path, "3.0"), tmp_path / "out.bin")


@pytest.fixture(scope="session")
def wordnet_dir() -> Path:
    folder = Path(os.environ.get("ROBUSTZS_WORDNET_DIR", "/usr/share/wordnet"))
    if not (folder / "index.sense").is_file():
        pytest.fail(
            f"WordNet 3.0 is not in {folder}: apt-get install wordnet-base wordnet-sense-index, "
            "or set ROBUSTZS_WORDNET_DIR"
        )
    return folder


@pytest.mark.wordnet
def test_every_noun_is_as_nltk_has_it(wordnet_dir: Path) -> None:
    index = NounIndex.load()
    n_synsets = 0
    with nltk_wordnet(wordnet_dir) as reader:
        for theirs in reader.all_synsets("n"):
            ours = index.get(f"n{theirs.offset():08d}")
            assert ours.name == theirs.name()
            assert index.row(theirs.name()) == ours.row
            assert [w.replace(" ", "_") for w in ours.lemmas] == theirs.lemma_names()
            assert ours.gloss == theirs.definition()
            assert ours.lexname == theirs.lexname()
            assert set(ours.hypernyms) == {f"n{h.offset():08d}" for h in theirs.hypernyms()}
            up = {f"n{h.offset():08d}" for h in theirs.instance_hypernyms()}
            assert set(ours.instance_hypernyms) == up
            n_synsets += 1
        n_lemmas = 0
        for lemma in reader.all_lemma_names("n"):
            theirs = [s for s in reader.synsets(lemma, "n") if lemma in _lower(s.lemma_names())]
            names = list(dict.fromkeys(s.name() for s in theirs))
            assert [index.name(row) for row in index.sense_rows(lemma)] == names
            n_lemmas += 1
    assert (n_synsets, n_lemmas) == (82_115, 117_798)


def _lower(names: list[str]) -> list[str]:
    return [name.lower() for name in names]


@pytest.mark.wordnet
@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_shipped_index_is_what_compiling_gives(
    wordnet_dir: Path, tmp_path: Path, seed: str
) -> None:
    output = tmp_path / "nouns.bin"
    code = (
        "import sys; from pathlib import Path\n"
        "from robustzs.hierarchy.wordnet import compile_nouns\n"
        "compile_nouns(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(wordnet_dir), str(output)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
    )
    # Content, not bytes: another zlib may deflate differently.
    new, shipped = NounFile.read(output), NounFile.read(NOUN_INDEX_PATH)
    assert new.info == shipped.info
    assert new.names == shipped.names
    for name in set(new.names) - {"glosses", "gloss_ends"}:
        assert np.array_equal(new.array(name), shipped.array(name)), name
    ours, theirs = NounIndex.load(output), NounIndex.load()
    assert all(ours.gloss(row) == theirs.gloss(row) for row in range(len(theirs)))
