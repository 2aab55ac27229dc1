"""`--image-precision`: the variant that was asked for runs, and nothing else is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.factories import make_bundle, make_two_precisions, picture


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "labrador.png"
    picture("labrador").save(path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "other", seed=1)


@pytest.fixture
def two(tmp_path: Path, other: Path) -> Path:
    return make_two_precisions(tmp_path / "two", other)


def _features(run: Run, photo: Path, *options: object) -> list[float]:
    result = run(["embed", photo, "--raw", *options])
    assert result.code == 0, result.err
    features: list[float] = json.loads(result.out)["features"]
    return features


def test_embed_runs_the_one_that_was_asked_for(
    run: Run, photo: Path, two: Path, other: Path, tiny_bundle: Path
) -> None:
    usual = _features(run, photo, "--model", two)
    assert usual == _features(run, photo, "--model", tiny_bundle)
    assert usual == _features(run, photo, "--model", two, "--image-precision", "fp32")
    asked = _features(run, photo, "--model", two, "--image-precision", "int8")
    assert asked == _features(run, photo, "--model", other)
    assert asked != usual


def test_classify_runs_the_one_that_was_asked_for(
    run: Run, photo: Path, two: Path, tree_file: Path
) -> None:
    command = ["classify", photo, "-m", two, "-H", tree_file, "--templates", "name", "-f", "json"]
    usual, asked = (
        json.loads(run([*command, "--image-precision", precision]).out)
        for precision in ("fp32", "int8")
    )
    assert usual["flat_top1"]["name"] == "labrador"
    assert asked["flat_top1"]["probability"] != usual["flat_top1"]["probability"]


def test_calibrations_are_of_one_precision(
    run: Run, tmp_path: Path, two: Path, tree_file: Path, photo: Path
) -> None:
    for word in ("labrador", "tabby", "jeep"):
        (tmp_path / "data" / word).mkdir(parents=True)
        for number in range(10):
            picture(word).save(tmp_path / "data" / word / f"{number}.png")
    file = tmp_path / "calibration.json"
    options = ["-m", two, "-H", tree_file, "--templates", "name"]
    data = ["--data", tmp_path / "data", "-o", file]
    made = run(["calibrate", *data, *options, "--keep-temperature", "--image-precision", "int8"])
    assert made.code == 0, made.err
    assert json.loads(file.read_text())["binding"]["image_precision"] == "int8"
    asked = ["classify", photo, *options, "--calibration", file, "--target-accuracy", "0.9"]
    assert run([*asked, "--image-precision", "int8"]).code == 0
    refused = run(asked)
    assert refused.code == 1
    assert "precision" in refused.err


def test_what_the_model_lacks_is_told(run: Run, photo: Path, two: Path) -> None:
    refused = run(["classify", photo, "-m", two, "--image-precision", "bf16"])
    assert refused.code != 0
    assert "no image encoder of precision 'bf16'" in refused.err
    assert "fp32, int8" in refused.err
    assert run(["classify", photo, "--image-precision", "int4"]).code == 2


def test_a_service_has_its_own(run: Run, photo: Path) -> None:
    command = ["classify", photo, "--server", "http://127.0.0.1:9", "--image-precision", "int8"]
    refused = run(command)
    assert refused.code != 0
    assert "--image-precision int8 does not go with the service" in refused.err
