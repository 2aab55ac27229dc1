"""`robustzs compare` on cards with outcomes that can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robustzs.bundle.store import Bundle
from robustzs.cards.reading import make_result, measured_digest
from robustzs.cards.schema import Attack, Card, Dataset, MeasuredModel
from robustzs.metrics.intervals import tango
from tests.cli.conftest import Run
from tests.factories import make_bundle, write_manifest

ATTACK = Attack(
    name="apgd-ce",
    eps="1/255",
    eps_value=1 / 255,
    implementation="pyautoattack 0.2.0",
    saw_defence=True,
)


def card(name: str, n_clean: int, n_robust: int, *, digest: str = "a" * 64) -> Card:
    places = np.arange(40)
    return Card(
        model=MeasuredModel(name=name, digest=digest, engine="torch"),
        robustness=f"{n_robust} of 40",
        datasets=(Dataset(name="pictures", digest="b" * 64, n=40, n_labels=6),),
        attacks=(ATTACK,),
        results=(
            make_result(places < n_clean, places < n_robust, dataset="pictures", attack=ATTACK),
        ),
        complete=True,
    )


@pytest.fixture
def cards(tmp_path: Path) -> list[Path]:
    made = [("clean", 30, 2), ("hard", 28, 20), ("harder", 26, 22)]
    paths = []
    for name, n_clean, n_robust in made:
        path = tmp_path / f"{name}.json"
        path.write_text(card(name, n_clean, n_robust).to_json(), encoding="utf-8")
        paths.append(path)
    return paths


def test_table_has_paired_intervals(run: Run, cards: list[Path]) -> None:
    result = run(["compare", *cards])
    assert result.code == 0
    assert result.out.splitlines()[0] == "clean -> hard"
    assert "clean -> harder" in result.out
    low, high = (100 * end for end in tango(18, 0, 40))
    line = f"0.050 -> 0.500   +45.0 points [{low:+.1f}, {high:+.1f}]   18 gained, 0 lost of 40"
    assert line in result.out
    assert "0.750 -> 0.700   -5.0 points" in result.out


def test_json_has_the_numbers(run: Run, cards: list[Path]) -> None:
    found = json.loads(run(["compare", *cards, "-f", "json", "--confidence", "0.9"]).out)
    assert found["first"]["name"] == "clean"
    assert [entry["model"]["name"] for entry in found["comparisons"]] == ["hard", "harder"]
    result = found["comparisons"][1]["results"][0]
    assert result["robust_accuracy"] == [0.05, 0.55]
    assert result["robust_difference"]["gained"] == 20
    assert (result["robust_difference"]["low"], result["robust_difference"]["high"]) == tango(
        20, 0, 40, 0.9
    )


def test_bundles_are_compared_by_their_cards(run: Run, tmp_path: Path, cards: list[Path]) -> None:
    folder = make_bundle(tmp_path / "bundle")
    digest = measured_digest(Bundle.load(folder).manifest)
    (folder / "card.json").write_text(card("tiny", 30, 30, digest=digest).to_json())
    write_manifest(folder)
    result = run(["compare", cards[0], folder])
    assert result.code == 0, result.err
    assert "clean -> tiny" in result.out


def test_what_cannot_be_compared_is_refused(run: Run, cards: list[Path]) -> None:
    assert run(["compare", cards[0]]).code == 2
    free = run(["compare", cards[0], "robustzs-lite-clean"])
    assert free.code == 1
    assert "free form" in free.err
    nowhere = run(["compare", cards[0], "nowhere"])
    assert nowhere.code == 1
