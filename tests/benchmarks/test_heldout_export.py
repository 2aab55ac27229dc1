"""The table of held-out pictures that `robustzs evaluate --data` reads."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.heldout_photos.cache import HeldoutError
from benchmarks.heldout_photos.export import export
from benchmarks.heldout_photos.photos import Photo, read_labels
from robustzs.labels import LabelSet
from robustzs.metrics.right import RightLabels


def photo(path: str, synset: str, wnid: str, source: str = "gcompris-qt-data") -> Photo:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (len(path), 20, 30)).save(out, "PNG")
    return Photo(f"{source}/{path}", source, out.getvalue(), "x", synset, wnid)


def test_pictures_and_table_are_what_an_evaluation_reads(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from robustzs_training.evaluation.sets import open_set

    from robustzs.images.config import PreprocessConfig

    photos = [
        photo("lang.rcc/words/dog.png", "dog.n.01", "n02084071"),
        photo("a, b.png", "cathedral.n.01", "n02984061", "scikit-image"),
        photo("q.png", "quark.n.01", "n09401834"),
    ]
    table = export(tmp_path / "out", photos)
    images = open_set(table, preprocess=PreprocessConfig(image_size=(8, 8)), cache=tmp_path)
    assert images.keys == ("gcompris-qt-data/lang/words/dog.png", "scikit-image/a, b.png")
    assert images.truth == ("n02084071", "n03028079")
    assert (tmp_path / "out" / images.keys[0]).read_bytes() == photos[0].data


def test_evaluations_rule_is_the_tables_scorable() -> None:
    right = RightLabels(LabelSet.imagenet1k())
    labels = [label for label in read_labels() if label.synset is not None]
    answers = right.find(label.synset or "" for label in labels).answers
    for label in labels:
        found = answers[label.synset or ""]
        assert bool(len(found.columns)) == label.scorable, label.id


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HeldoutError, match="cannot be written"):
        export(tmp_path / "file", [])
