from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustzs_training.export.model_card import model_card
from robustzs_training.lite.build import PROTOCOL

LITE = Path(__file__).parents[2] / "robustzs" / "models" / "robustzs-lite-clean"


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((LITE / name).read_text(encoding="utf-8"))
    return document


def test_what_was_measured_stands_in_the_card_with_its_protocol() -> None:
    card = {**_read("card.json"), "protocol": list(PROTOCOL)}
    text = model_card(_read("bundle.json"), card)
    for row in card["results"]:
        assert f"| {row['measure']} | {row['value']:.3f} |" in text
    assert f"Robustness: {card['robustness']}." in text
    for sentence in PROTOCOL:
        assert f"- {sentence}" in text


def test_only_float32_graphs_are_said_to_equal_torch() -> None:
    fields = _read("bundle.json")
    text = model_card(fields)
    assert "The text graph of precision int8 was made from the float32 one" in text
    assert "the float32 text graph itself is not shipped" in text
    both = model_card({**fields, "text_encoders": {"fp32": "a", "int8": "b"}})
    assert "is not shipped" not in both
    plain = model_card({**fields, "text_encoders": {"fp32": "a"}})
    assert "was made from" not in plain


def test_a_model_without_a_card_says_that_nothing_was_measured() -> None:
    assert "it was not measured" in model_card(_read("bundle.json"))
