from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustzs.cards.reading import make_result
from robustzs.cards.schema import Attack, Card, Dataset, MeasuredModel
from tests.cli.conftest import Run
from tests.factories import write_manifest


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "mine"))


def test_list_has_the_default_model_and_its_alias(run: Run) -> None:
    found = {entry["name"]: entry for entry in json.loads(run(["models", "list", "--json"]).out)}
    assert "robustzs-lite" in {*found, *found["robustzs-lite-clean"]["aliases"]}
    assert found["robustzs-lite-clean"]["error"] is None


def test_list_shows_a_broken_bundle_beside_good_ones(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTZS_MODELS", str(tmp_path))
    shutil.copytree(tiny_bundle, tmp_path / "good")
    broken = Path(shutil.copytree(tiny_bundle, tmp_path / "broken"))
    (broken / "bundle.json").write_text("{")
    result = run(["models", "list"])
    assert result.code == 0
    assert "broken   broken: " in result.out
    assert "[bundle-manifest]" in result.out
    assert "good   version" in result.out
    assert all(line.strip() for line in result.out.splitlines()), "the tiny model is not described"


def test_show_tells_what_the_record_says(run: Run, bundle: Path) -> None:
    result = run(["models", "show", bundle])
    assert result.code == 0
    assert "sha256:" in result.out
    assert "robustness" in result.out
    record = json.loads(run(["models", "show", bundle, "--json"]).out)
    assert record["digest"] in result.out


def test_verify_accepts_a_whole_bundle_and_its_digest(run: Run, bundle: Path) -> None:
    result = run(["models", "verify", bundle])
    assert result.code == 0
    digest = result.out.rsplit("sha256:", 1)[1].strip()
    assert run(["models", "verify", bundle, "--expect-digest", digest]).code == 0
    other = run(["models", "verify", bundle, "--expect-digest", "1" * 64])
    assert other.code == 1


@pytest.mark.parametrize("name", ["image_encoder.onnx", "text_encoder.onnx", "tokenizer.json"])
def test_verify_names_the_file_that_was_changed(run: Run, bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    result = run(["models", "verify", bundle])
    assert result.code == 1
    assert name in result.err


def test_unknown_model_offers_similar_names(run: Run) -> None:
    result = run(["models", "show", "robustzs-light"])
    assert result.code == 1
    assert "robustzs-lite" in result.err


def test_show_tells_what_a_card_says(run: Run, bundle: Path) -> None:
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
        robustness="50.0% of 10 pictures stay right",
        datasets=(Dataset(name="pictures", digest="b" * 64, n=20, n_labels=6),),
        attacks=(attack,),
        results=(make_result(right, right, dataset="pictures", attack=attack),),
        complete=False,
        incomplete_reason="interrupted",
    )
    (bundle / "card.json").write_text(card.to_json(), encoding="utf-8")
    write_manifest(bundle)
    shown = run(["models", "show", bundle]).out
    assert "50.0% of 10 pictures stay right" in shown
    assert "measured in part" in shown
    assert "robust top-1, pictures, apgd-ce, Linf eps 1/255: 0.5 [0.237, 0.763], n 10" in shown
    assert json.loads(run(["models", "show", bundle, "--json"]).out)["card"]["complete"] is False
