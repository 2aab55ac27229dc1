from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from robustzs_training.export.model_card import model_card, with_measured
from robustzs_training.lite.build import PROTOCOL

from robustzs.cards.reading import make_result
from robustzs.cards.schema import Attack, Card, Dataset, MeasuredModel

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


def test_a_card_with_a_schema_shows_its_intervals() -> None:
    attack = Attack(
        name="apgd-ce",
        eps="1/255",
        eps_value=1 / 255,
        implementation="pyautoattack 0.2.0",
        saw_defence=True,
    )
    right = np.array([True] * 5 + [False] * 5)
    card = Card(
        model=MeasuredModel(name="tiny", digest="a" * 64, engine="torch"),
        robustness="5 of 10 pictures stay right",
        protocol=("The pictures were not trained on.",),
        datasets=(Dataset(name="pictures", digest="b" * 64, n=10, n_labels=6),),
        attacks=(attack,),
        results=(make_result(right, right, dataset="pictures", attack=attack),),
        complete=True,
    )
    text = model_card(_read("bundle.json"), json.loads(card.to_json()))
    assert "Robustness: 5 of 10 pictures stay right." in text
    row = "| robust top-1, pictures, apgd-ce, Linf eps 1/255 | 0.500 (0.237 to 0.763) |  | 10 |"
    assert row in text
    assert "- The pictures were not trained on." in text


def test_only_the_section_on_numbers_is_rewritten() -> None:
    fields, card = _read("bundle.json"), _read("card.json")
    for given in ("## What was measured\n\nOld numbers.\n\n", "## What was measured\n"):
        text = with_measured(f"# mine\n\nBy hand.\n\n{given}## Thanks\n\nAll.\n", fields, card)
        assert text.startswith("# mine\n\nBy hand.\n\n## What was measured\n\nRobustness: ")
        assert text.endswith("\n\n## Thanks\n\nAll.\n")
        assert "Old numbers" not in text
    appended = with_measured("# mine\n", fields, card)
    assert appended.startswith("# mine\n\n## What was measured\n\n")
    assert with_measured(appended, fields, card) == appended
    assert with_measured(model_card(fields), fields, card) == model_card(fields, card)


def test_a_sentence_of_a_card_cannot_begin_a_section() -> None:
    card = {**_read("card.json"), "protocol": ["of a\n## Licences\nfolder"], "robustness": "a\n# b"}
    text = model_card(_read("bundle.json"), card)
    assert "- of a ## Licences folder" in text
    assert text.count("\n## Licences") == 1
    assert "Robustness: a # b." in text
