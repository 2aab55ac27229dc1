from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from robustzs_training.data import openmoji
from robustzs_training.data.build import build_source
from robustzs_training.data.concepts import ASKED, read_concepts, split_concepts
from robustzs_training.data.openmoji import make_pictures, open_held_out, open_openmoji
from robustzs_training.lite.nouns import ancestors_or_self
from robustzs_training.recipe import DataPart

from robustzs.errors import DataError, RecipeError
from robustzs.hierarchy.noun_index import NounIndex

PART = DataPart(source="openmoji")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thumbnails, one of each drawing: the same code in seconds."""
    monkeypatch.setattr(openmoji, "TRAIN_SIZE", 24)
    monkeypatch.setattr(openmoji, "HELD_OUT_SIZE", 32)
    monkeypatch.setattr(openmoji, "N_GROUNDS", 1)


# ---- the table -----------------------------------------------------------------------------------


def test_every_drawing_is_there_and_stands_once() -> None:
    concepts = read_concepts()
    drawings = Counter(code for concept in concepts for code in concept.drawings)
    assert max(drawings.values()) == 1
    folder = openmoji._folder()
    assert [code for code in drawings if not (folder / f"{code}.svg").is_file()] == []
    assert max(Counter(concept.name for concept in concepts).values()) == 1


def test_synsets_exist_and_stand_once() -> None:
    index = NounIndex.load()
    synsets = [concept.synset for concept in read_concepts() if concept.synset is not None]
    assert [wnid for wnid in synsets if wnid not in index] == []
    assert len(set(synsets)) == len(synsets)
    assert [wnid for _, wnid in ASKED.values() if wnid not in index] == []


def test_what_is_asked_of_an_animal_is_true_in_wordnet() -> None:
    animals = {"mammal", "bird", "reptile", "fish"}
    concepts = [c for c in read_concepts() if c.kind in animals and c.synset is not None]
    assert len(concepts) > 70
    for concept in concepts:
        assert concept.synset is not None
        assert ASKED[concept.kind][1] in ancestors_or_self(concept.synset), concept


# ---- the split -----------------------------------------------------------------------------------


def test_no_concept_and_no_variant_of_a_drawing_is_on_both_sides() -> None:
    trained, held = split_concepts()
    assert not {c.name for c in trained} & {c.name for c in held}
    assert not {c.synset for c in trained} & {c.synset for c in held}
    # The first code point is the thing; what follows is colour, skin or gender.
    first, second = (
        {d.split("-")[0] for c in side for d in c.drawings} for side in (trained, held)
    )
    assert not first & second


def test_the_split_is_large_enough_and_of_every_class() -> None:
    trained, held = split_concepts()
    assert len(held) >= 200
    assert {c.kind for c in held} == set(ASKED)
    assert {c.kind for c in trained} >= set(ASKED)
    assert all(c.synset is not None for c in trained)


# ---- pictures ------------------------------------------------------------------------------------


def test_pictures_are_the_same_wherever_they_are_made(tmp_path: Path) -> None:
    source = open_held_out(cache=tmp_path / "a")
    plans, folder = source.plans[::40], openmoji._folder()
    again = np.load(make_pictures(plans, 32, tmp_path / "b.npy", folder))
    assert np.array_equal(again, np.load(source.path)[::40])
    assert len({picture.tobytes() for picture in again}) == len(plans)
    assert again.std(axis=(1, 2, 3)).min() > 5.0


def test_held_out_pictures_are_one_of_each_concept_with_its_class(tmp_path: Path) -> None:
    source = open_held_out(cache=tmp_path)
    _, held = split_concepts()
    assert len(source) == len(held) == len({plan.key.split("/")[0] for plan in source.plans})
    for row, concept in enumerate(held):
        assert source.labels[int(source.places[row])].name == ASKED[concept.kind][0]
    sample = source.read(7)
    assert sample.image.size == (32, 32)
    assert sample.label == int(source.label_of[7])


def test_training_pictures_have_labels_and_captions_of_their_concept(tmp_path: Path) -> None:
    source = build_source(PART, cache=tmp_path)
    trained, held = split_concepts()
    assert source.labels is not None
    assert source.labels.names == tuple(c.name for c in trained)
    assert len(source) == sum(len(c.drawings) for c in trained)
    names = {c.name for c in held}
    for row in range(0, len(source), 29):
        sample = source.read(row)
        assert sample.label is not None
        concept = trained[sample.label]
        assert sample.key.startswith(f"{concept.name}/")
        assert sample.caption == source.caption_of(row)
        assert sample.caption is not None
        assert f"{concept.name}, " in sample.caption
        assert concept.kind in sample.caption
        assert concept.name not in names


def test_kinds_are_classes_where_a_recipe_wants_them(tmp_path: Path) -> None:
    concepts = build_source(PART, cache=tmp_path)
    kinds = build_source(PART.model_copy(update={"name": "kinds"}), cache=tmp_path)
    trained, _ = split_concepts()
    assert concepts.labels is not None
    assert kinds.labels is not None
    assert len(kinds) == len(concepts)
    assert set(kinds.labels.ids) >= {wnid for _, wnid in ASKED.values()}
    assert {"vertebrate", "invertebrate", "fruit"} <= set(kinds.labels.names)
    assert not {"mammal", "bird"} & set(kinds.labels.names)
    index = NounIndex.load()
    assert [wnid for wnid in kinds.labels.ids if wnid not in index] == []
    for row in range(0, len(kinds), 29):
        sample, concept = kinds.read(row), trained[int(concepts.label_of[row])]
        assert sample.label is not None
        assert kinds.labels[sample.label].name == ASKED.get(concept.kind, (concept.kind,))[0]
        assert sample.image.tobytes() == concepts.read(row).image.tobytes()
    assert kinds.digest != concepts.digest


def test_drawings_cannot_be_sorted_by_anything_else(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'colours' is not what") as caught:
        build_source(PART.model_copy(update={"name": "colours"}), cache=tmp_path)
    assert "data.name=kinds" in str(caught.value.hint)


def test_a_lemon_is_yellow(tmp_path: Path) -> None:
    source = open_openmoji(PART, cache=tmp_path)
    trained, _ = split_concepts()
    assert {"banana", "pea"} <= {c.name for c in trained}
    assert any(c.startswith("a yellow banana, a fruit, in front of ") for c in source.captions)
    assert any(c.startswith("a green pea, a vegetable, in front of ") for c in source.captions)


def test_a_copy_in_another_process_reads_the_same(tmp_path: Path) -> None:
    source = open_held_out(cache=tmp_path)
    first = source.read(3)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(3).image.tobytes() == first.image.tobytes()
    assert copy.digest == source.digest


def test_pictures_are_made_once_and_a_damaged_cache_is_told(tmp_path: Path) -> None:
    source = open_held_out(cache=tmp_path)
    made = source.path.stat().st_mtime_ns
    assert open_held_out(cache=tmp_path).path.stat().st_mtime_ns == made
    source.path.write_bytes(source.path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read") as caught:
        open_held_out(cache=tmp_path).read(0)
    assert "made again" in str(caught.value.hint)
    np.save(source.path, np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match="holds uint8"):
        open_held_out(cache=tmp_path).read(0)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        open_held_out(cache=tmp_path / "file" / "cache")
