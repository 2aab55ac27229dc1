from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest

from benchmarks.heldout_photos.cache import HeldoutError
from benchmarks.heldout_photos.photos import LABELS, Photo, read_labels
from benchmarks.heldout_table import (
    OUTPUT,
    Result,
    classify,
    judge,
    render,
    score,
    summarise,
    wilson_interval,
)
from robustzs.answer import Answer
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.classifier import Classifier

# animal > dog > {poodle, husky}, animal > cat, and a rock that no label is about.
UP = {
    "animal": {"animal"},
    "dog": {"dog", "animal"},
    "poodle": {"poodle", "dog", "animal"},
    "husky": {"husky", "dog", "animal"},
    "cat": {"cat", "animal"},
    "rock": {"rock"},
}
LEAVES = ("poodle", "husky", "cat")
DEPTH = {"animal": 2, "dog": 5, "poodle": 6, "husky": 6, "cat": 5, "rock": 9}
BELOW = {"animal": 3, "dog": 2, "poodle": 1, "husky": 1, "cat": 1}


def node(name: str, probability: float) -> dict[str, object]:
    return {
        "id": name,
        "name": name,
        "synset": f"{name}.n.01",
        "depth": DEPTH[name],
        "probability": probability,
    }


def answer(flat: str, stopped_at: str) -> Answer:
    size = BELOW[stopped_at]
    digest = "0" * 64
    return Answer.model_validate(
        {
            "image": "x",
            "model": {"name": "m", "digest": digest},
            "hierarchy": {"name": "wordnet", "digest": digest, "n_leaves": 3, "n_nodes": 5},
            "stop": {"theta": 0.5, "source": "bundle", "rule": "greedy", "reason": "theta"},
            "prediction": {
                **node(stopped_at, 0.75),
                "is_leaf": size == 1,
                "n_leaf_descendants": size,
                "specificity": 1 - math.log(size) / math.log(3),
            },
            "path": [],
            "flat_top1": node(flat, 0.5),
            "top_k": [node(flat, 0.5)],
            "similarity": 0.3,
        }
    )


def photo(truth: str) -> Photo:
    return Photo(f"s/{truth}|1.png", "s", b"", truth, f"{truth}.n.01", truth)


def right_of(truth: str) -> set[str]:
    return {leaf for leaf in LEAVES if truth in UP[leaf]}


def judged() -> list[Result]:
    photos = [photo("dog"), photo("dog"), photo("cat"), photo("rock")]
    answers = [
        answer("poodle", "poodle"),
        answer("cat", "animal"),
        answer("husky", "dog"),
        answer("cat", "animal"),
    ]
    return score(photos, answers, right_of, UP.__getitem__)


@pytest.mark.parametrize(
    ("answered", "truth", "verdict"),
    [
        ("dog", "dog", "right"),
        ("poodle", "dog", "right"),
        ("animal", "dog", "coarse"),
        ("cat", "dog", "wrong"),
        ("husky", "poodle", "wrong"),
    ],
)
def test_judge(answered: str, truth: str, verdict: str) -> None:
    assert judge(answered, truth, UP.__getitem__) == verdict


def test_score_keeps_every_picture() -> None:
    results = judged()
    assert [r.flat_is_right for r in results] == [True, False, False, None]
    assert [r.verdict for r in results] == ["right", "coarse", "wrong", "wrong"]
    with pytest.raises(ValueError, match="zip"):
        score([photo("dog")], [], right_of, UP.__getitem__)


def test_summary_counts_shares() -> None:
    summary = summarise(judged())
    assert summary.n == 4
    assert summary.flat_top1 == pytest.approx(1 / 3)  # of the three that can be right
    assert summary.hierarchical_accuracy == pytest.approx(2 / 4)
    assert summary.right == pytest.approx(1 / 4)
    assert summary.shallow == pytest.approx(2 / 4)
    specificity = (1 + 0 + (1 - math.log(2) / math.log(3)) + 0) / 4
    assert summary.specificity == pytest.approx(specificity)
    assert summarise(judged()[3:]).flat_top1 is None


def test_wilson_interval_has_the_textbook_values() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson_interval(0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="0 of 0"):
        wilson_interval(0, 0)


def test_page_lists_right_and_wrong_and_how_it_was_made() -> None:
    page = render(judged(), "python -m benchmarks.heldout_table --model m", "211 photographs")
    rows = [line for line in page.splitlines() if line.startswith("| s: ")]
    assert len(rows) == 4
    assert "| s: dog\\|1.png | dog.n.01 | poodle | 0.50 | yes | poodle | 6 | 0.75 | right |" in rows
    assert sum(row.endswith("| wrong |") for row in rows) == 2
    assert "| that a label can get right | 3 | 33.3% (6.1% to 79.2%) |" in page
    assert "`python -m benchmarks.heldout_table --model m`" in page
    assert "theta was set on: 211 photographs." in page
    assert "onnxruntime" in page
    assert str(Path.home()) not in page


def test_the_page_of_the_docs_is_about_what_ships() -> None:
    page = OUTPUT.read_text(encoding="utf-8")
    shipped = Bundle.load(resolve_model("robustzs-lite"), verify=False)
    assert f"bundle digest `{shipped.digest}`" in page, "the bundle changed: run `make heldout`"
    labels = hashlib.sha256(LABELS.read_bytes()).hexdigest()
    assert f"sha256 `{labels}`" in page, "the labels changed: run `make heldout`"
    for label in read_labels():
        named = label.kind == "photo" and label.synset is not None
        assert page.count(f"| {label.source}: {label.path} |") == named, label.id


def test_a_picture_that_fails_stops_the_table(tiny_bundle: Path) -> None:
    with (
        Classifier.load(tiny_bundle, labels="cat,dog", hierarchy="flat") as classifier,
        pytest.raises(HeldoutError, match=r"s/dog.*empty"),
    ):
        classify(classifier, [photo("dog")])
