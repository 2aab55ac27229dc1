from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustzs.errors import UnknownLabelError, WordNetDataMissingError
from robustzs.hierarchy.noun_file import MAGIC, NounFile, write_noun_file
from robustzs.hierarchy.noun_index import NOUN_INDEX_PATH, NounIndex

SAMPLE = json.loads((Path(__file__).parent / "wordnet_sample.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def index() -> NounIndex:
    return NounIndex.load()


def test_holds_all_nouns_of_wordnet_3_0(index: NounIndex) -> None:
    assert len(index) == 82_115
    assert index.info["wordnet_version"] == "3.0"
    child, parent, is_instance = index.edges
    assert len(child) == len(parent) == 84_427
    assert is_instance.sum() == 8_577


def test_synsets_are_nltks(index: NounIndex) -> None:
    for expected in SAMPLE["synsets"]:
        synset = index.get(expected["wnid"])
        found = {
            "wnid": synset.wnid,
            "name": synset.name,
            "lemmas": [lemma.replace(" ", "_") for lemma in synset.lemmas],
            "gloss": synset.gloss,
            "hypernyms": list(synset.hypernyms),
            "instance_hypernyms": list(synset.instance_hypernyms),
            "lexname": synset.lexname,
        }
        assert found == expected
        assert index.get(synset.name) == synset
        assert index.at(synset.row) == synset


def test_senses_are_in_wordnets_order(index: NounIndex) -> None:
    found = {word: [synset.name for synset in index.synsets(word)] for word in SAMPLE["senses"]}
    assert found == SAMPLE["senses"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ice Cream", ["ice_cream.n.01"]),
        ("  ice   cream ", ["ice_cream.n.01"]),
        ("ice-cream", ["ice_cream.n.01"]),
        ("T-square", ["t-square.n.01"]),
        ("t square", ["t-square.n.01"]),
        ("crème brûlée", ["creme_brulee.n.01"]),
        ("lady’s slipper", ["lady's_slipper.n.01"]),
        ("traffic lights", ["traffic_light.n.01"]),
        ("glasses", ["spectacles.n.01"]),  # a noun itself: not reduced to glass
        ("churches", ["church.n.01", "church.n.02", "church_service.n.01", "church.n.04"]),
        ("attorneys general", []),
        ("corpora", ["principal.n.04", "corpus.n.02", "corpus.n.03"]),  # irregular
        ("smartphone", []),
        ("", []),
        (" _ ", []),
        ("日本", []),
    ],
)
def test_lookup(index: NounIndex, text: str, names: list[str]) -> None:
    assert [synset.name for synset in index.synsets(text)] == names


def test_plurals_find_what_the_singular_means(index: NounIndex) -> None:
    assert index.name(index.singular_rows("men")[0]) == "man.n.01"
    for plural, singular in [
        ("dogs", "dog"),
        ("knives", "knife"),
        ("foxes", "fox"),
        ("mice", "mouse"),
    ]:
        assert index.synsets(plural) == index.synsets(singular) != ()


@pytest.mark.parametrize("text", ["n02084071", "dog.n.01", "Dog.n.1", "domestic_dog.n.01"])
def test_one_synset_by_any_of_its_ids(index: NounIndex, text: str) -> None:
    assert index.get(text).wnid == "n02084071"
    assert text in index


@pytest.mark.parametrize(
    "text",
    [
        "n02084072",
        "n00000000",
        "n99999999",
        "dog.n.99",
        "dog.n.00",
        "dog.v.01",
        "dog",
        "",
        "é.n.01",
    ],
)
def test_unknown_ids_are_named(index: NounIndex, text: str) -> None:
    assert text not in index
    with pytest.raises(UnknownLabelError) as caught:
        index.get(text)
    assert repr(text) in caught.value.message
    assert "dog.n.01" in caught.value.hint


def test_instances_are_told_from_kinds(index: NounIndex) -> None:
    ganges = index.synsets("Ganges")[0]
    assert ganges.is_instance
    assert ganges.hypernyms == ()
    assert index.get(ganges.instance_hypernyms[0]).name == "river.n.01"
    assert not index.get("river.n.01").is_instance
    assert ganges in index.hyponyms("river.n.01", instances=True)
    assert ganges not in index.hyponyms("river.n.01")


def test_below_counts_what_the_design_counts(index: NounIndex) -> None:
    concrete = index.below("physical_entity.n.01", instances=False)
    concrete = concrete & ~index.below("person.n.01", instances=False)
    _, parent, is_instance = index.edges
    has_hyponym = np.zeros(len(index), dtype=bool)
    has_hyponym[parent[~is_instance]] = True
    assert concrete.sum() == 32_577
    assert (concrete & ~has_hyponym).sum() == 25_091


def test_arrays_cannot_be_written(index: NounIndex) -> None:
    for array in (*index.edges, index.below("dog.n.01", instances=True)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_many_threads_read_one_index() -> None:
    fresh = NounIndex.load(NOUN_INDEX_PATH)
    wnids = [synset["wnid"] for synset in SAMPLE["synsets"]]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: [fresh.get(wnid) for wnid in wnids], range(32)))
    assert all(result == results[0] for result in results)
    assert [synset.name for synset in results[0]] == [s["name"] for s in SAMPLE["synsets"]]


def test_loading_imports_neither_nltk_nor_anything_heavy() -> None:
    code = (
        "import sys; from robustzs.hierarchy.noun_index import NounIndex; "
        "NounIndex.load().synsets('dog'); "
        "print([m for m in ('nltk', 'torch', 'onnxruntime', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shipped_index_is_small() -> None:
    assert NOUN_INDEX_PATH.stat().st_size < 5_000_000


def test_the_notice_of_wordnet_ships() -> None:
    text = (NOUN_INDEX_PATH.parent / "WORDNET_LICENSE.txt").read_text(encoding="ascii")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert "the same appear on ALL copies of the software, database and" in text


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "magic"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    data = bytearray(NOUN_INDEX_PATH.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    broken = {"cut": data[:-1], "empty": b"", "magic": b"PK\x03\x04" + data[4:]}.get(damage, data)
    path = tmp_path / "nouns.bin"
    path.write_bytes(bytes(broken))
    with pytest.raises(WordNetDataMissingError, match="damaged"):
        NounIndex.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WordNetDataMissingError, match=r"nowhere\.bin"):
        NounIndex.load(tmp_path / "nowhere.bin")


@settings(deadline=None, max_examples=30)
@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.binary(max_size=40),
            st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20).map(
                lambda x: np.array(x, dtype=np.int32)
            ),
        ),
        max_size=4,
    )
)
def test_noun_files_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, bytes | np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("noun") / "file.bin"
    digest = write_noun_file(path, {"n": 1}, arrays)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    file = NounFile.read(path)
    assert file.info == {"n": 1}
    for name, value in arrays.items():
        if isinstance(value, bytes):
            assert bytes(file.bytes_of(name)) == value
        else:
            assert np.array_equal(file.array(name), value)


def test_noun_files_take_only_plain_arrays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype \|O"):
        write_noun_file(tmp_path / "x", {}, {"a": np.array([object()])})


def test_a_header_that_lies_about_its_size_is_damage() -> None:
    body = struct.pack("<I", 10**6) + b"{}"
    data = MAGIC + hashlib.sha256(body).digest() + body
    with pytest.raises(WordNetDataMissingError, match="damaged"):
        NounFile(data, "test")
