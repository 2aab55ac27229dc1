"""What is shown of scores, on answers as the classifier gives them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.edge import apply_scores
from robustzs_serving.settings import ScorePolicy

from robustzs.classifier import Classifier
from tests.factories import picture_bytes


@pytest.fixture(scope="module")
def answer(tiny_bundle: Path) -> dict[str, Any]:
    labels = ["labrador", "poodle", "tabby", "siamese", "jeep"]
    with Classifier.load(tiny_bundle, labels=labels, hierarchy=["flat", "wordnet"],
                         on_ambiguous="first", on_unknown="attach") as classifier:  # fmt: skip
        found = classifier.classify(picture_bytes("tabby"), name="a")
    return found.model_dump(mode="json")


def numbers(value: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in numbers(item, key)]
    if isinstance(value, list):
        return [pair for item in value for pair in numbers(item, name)]
    return [(name, value)] if isinstance(value, float) else []


SCORES = {"probability", "conditional_probability", "similarity"}


def test_full_is_as_it_was(answer: dict[str, Any]) -> None:
    assert apply_scores(ScorePolicy("full"), answer) == answer


@pytest.mark.parametrize("decimals", [0, 1, 2, 6])
def test_rounded_has_so_many_decimals(answer: dict[str, Any], decimals: int) -> None:
    before = copy.deepcopy(answer)
    shown = apply_scores(ScorePolicy("rounded", decimals), answer)
    assert answer == before, "the argument is not changed"
    for name, number in numbers(shown):
        if name in SCORES:
            assert round(number, decimals) == number
    pairs = zip(numbers(answer), numbers(shown), strict=True)
    assert all(abs(a[1] - b[1]) <= 0.5 * 10.0**-decimals + 1e-9 for a, b in pairs)
    assert [node["id"] for node in shown["top_k"]] == [node["id"] for node in answer["top_k"]]


def test_withheld_shows_the_decision_alone(answer: dict[str, Any]) -> None:
    shown = apply_scores(ScorePolicy("withheld"), answer)
    assert not [pair for pair in numbers(shown) if pair[0] in SCORES]
    assert shown["prediction"]["id"] == answer["prediction"]["id"]
    assert shown["prediction"]["probability"] is None
    assert [node["id"] for node in shown["path"]] == [node["id"] for node in answer["path"]]
    assert [node["id"] for node in shown["top_k"]] == [answer["top_k"][0]["id"]]
    assert shown["alternatives"] == []
    assert all(tree["alternatives"] == [] for tree in shown["forest"])
    assert len(shown["forest"]) == len(answer["forest"]) == 1


def test_a_row_that_failed_is_as_it_was() -> None:
    row = {"index": 0, "status": "error", "error": {"code": "image", "message": "no"}}
    for text in ("full", "rounded:2", "withheld"):
        assert apply_scores(ScorePolicy.parse(text), row) == row


@given(st.floats(0, 1), st.integers(0, 6))
def test_rounding_stays_a_probability(probability: float, decimals: int) -> None:
    policy = ScorePolicy("rounded", decimals)
    shown = apply_scores(policy, {"probability": probability})["probability"]
    assert 0.0 <= shown <= 1.0
    assert len(json.dumps(shown)) <= decimals + 6
