"""A card goes into its bundle: whole at every step, and into no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from robustzs_training.evaluation.insertion import put_into_bundle
from robustzs_training.evaluation.request import EvaluateRequest

from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.cards.reading import measured_digest, read_card
from robustzs.cards.rows import measured_rows
from robustzs.errors import CardError, UsageError


def test_a_card_goes_into_its_bundle_and_replaces_an_older_one(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    card = measured[0]
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    before = Bundle.load(folder)
    after = put_into_bundle(card, before)
    assert read_card(folder) == card
    assert after.digest != before.digest
    assert measured_digest(after.manifest) == measured_digest(before.manifest)
    renamed = card.model_copy(update={"robustness": "another line"})
    put_into_bundle(renamed, after)
    assert read_card(folder).robustness == "another line"
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_at_every_step_of_the_writing_there_is_a_whole_bundle(
    measured: tuple[Any, Path, list[str]],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from robustzs_training.evaluation import insertion

    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    put_into_bundle(measured[0], Bundle.load(folder))
    write, steps = insertion.write_text, []

    def watched(path: Path, text: str) -> None:
        write(path, text)
        steps.append(path.name)
        Bundle.load(folder)

    monkeypatch.setattr(insertion, "write_text", watched)
    put_into_bundle(measured[0], Bundle.load(folder))
    assert steps == ["bundle.json", "card.json", "README.md", "bundle.json"]


def test_the_model_card_tells_the_numbers_of_the_card(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    card = measured[0]
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    readme = folder / "README.md"
    assert "it was not measured" in readme.read_text(encoding="utf-8")
    put_into_bundle(card, Bundle.load(folder))
    text = readme.read_text(encoding="utf-8")
    assert "it was not measured" not in text
    assert f"Robustness: {card.robustness}." in text
    for row in measured_rows(card.model_dump(mode="json")):
        assert f"| {row.measure} | {row.value:.3f} ({row.low:.3f} to {row.high:.3f}) |" in text
    # Written again it is the same, with another card it has that one's numbers and no other's.
    put_into_bundle(card, Bundle.load(folder))
    assert readme.read_text(encoding="utf-8") == text
    put_into_bundle(card.model_copy(update={"robustness": "new numbers"}), Bundle.load(folder))
    assert "Robustness: new numbers." in readme.read_text(encoding="utf-8")
    assert card.robustness not in readme.read_text(encoding="utf-8")


def test_a_model_card_that_is_no_part_of_the_bundle_is_left_alone(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    del manifest["files"]["README.md"]
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "README.md").write_text("my own\n", encoding="utf-8")
    put_into_bundle(measured[0], Bundle.load(folder))
    assert (folder / "README.md").read_text(encoding="utf-8") == "my own\n"
    (folder / "README.md").unlink()
    assert "README.md" in put_into_bundle(measured[0], Bundle.load(folder)).manifest.files


def test_the_embedded_models_card_is_not_replaced(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest
) -> None:
    embedded = Bundle.load(resolve_model("robustzs-lite"), verify=False)
    with pytest.raises(UsageError, match="embedded"):
        put_into_bundle(measured[0], embedded)


def test_a_card_of_another_model_stays_out(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    model = measured[0].model.model_copy(update={"digest": "0" * 64})
    with pytest.raises(CardError, match="the card is of the model"):
        put_into_bundle(measured[0].model_copy(update={"model": model}), Bundle.load(folder))
