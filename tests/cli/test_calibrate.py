"""`robustzs calibrate` and what its file is good for, on the tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import robustzs
from robustzs import Classifier
from robustzs.calibration.document import SYNTHETIC, read_calibration
from robustzs.classifier.labelled import read_labelled
from robustzs.errors import (
    CalibrationError,
    CalibrationMismatchError,
    DataError,
    DatasetNotFoundError,
)
from tests.cli.conftest import Run
from tests.factories import COLOURS, LEAVES, make_bundle, write_manifest

SCHEMA = Path(robustzs.__file__).parent / "schemas" / "calibration.schema.json"
N = 180


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of pictures whose colours stray far enough to be mistaken now and then."""
    folder = tmp_path_factory.mktemp("calibration") / "photos"
    rng = np.random.default_rng(0)
    for number in range(N):
        word = LEAVES[number % len(LEAVES)]
        colour = np.clip(np.asarray(COLOURS[word]) + rng.normal(0.0, 0.25, 3), 0.0, 1.0)
        (folder / word).mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), colour * 255.0).astype(np.uint8)
        pixels[0, 0] = number  # no two alike
        Image.fromarray(pixels).save(folder / word / f"{number}.png")
    return folder


@pytest.fixture
def options(tiny_bundle: Path, tree_file: Path) -> list[str]:
    return ["--model", str(tiny_bundle), "--hierarchy", str(tree_file), "--templates", "name"]


@pytest.fixture
def calibration(run: Run, photos: Path, options: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    command = ["calibrate", "--data", photos, "-o", path, *options]
    result = run([*command, "--target-accuracy", "0.8", "--target-accuracy", "0.9"])
    assert result.code == 0, result.err
    assert f"photos: {N} images, tiny" in result.out
    assert "target 0.9: theta" in result.out
    return path


def test_the_file_is_of_the_published_schema_and_says_everything(calibration: Path) -> None:
    document = json.loads(calibration.read_text("utf-8"))
    jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
    assert document["data"]["n"] == N
    assert document["temperature"]["source"] == "fitted"
    assert document["temperature"]["nll_after"] < document["temperature"]["nll_before"]
    assert [target["alpha"] for target in document["targets"]] == [0.2, 0.1]
    assert set(document["binding"]["image_encoder"]) == {"image_encoder.onnx"}
    assert "not attacked" in document["guarantee"]
    for target in document["targets"]:
        heldout = target["heldout"]
        assert heldout["low"] <= 1 - target["alpha"] <= heldout["high"]


def test_again_it_is_the_same_file(
    run: Run, photos: Path, options: list[str], calibration: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.json"
    targets = ["--target-accuracy", "0.9", "--target-accuracy", "0.8"]
    assert run(["calibrate", "--data", photos, "-o", again, *options, *targets]).code == 0
    assert again.read_bytes() == calibration.read_bytes()
    seeded = tmp_path / "seeded.json"
    more = [*options, *targets, "--seed", "1"]
    assert run(["calibrate", "--data", photos, "-o", seeded, *more]).code == 0
    assert seeded.read_bytes() != calibration.read_bytes()


def test_classify_backs_off_to_the_target_accuracy(
    run: Run, photos: Path, options: list[str], calibration: Path
) -> None:
    document = read_calibration(calibration)
    image = photos / "labrador" / "0.png"
    command = ["classify", image, *options, "--calibration", calibration, "-f", "json"]
    for target in document.targets:
        result = run([*command, "--target-accuracy", f"{target.accuracy:g}"])
        assert result.code == 0, result.err
        stop = json.loads(result.out)["stop"]
        assert stop["source"] == "calibration"
        assert stop["theta"] == target.theta
        assert stop["alpha"] == target.alpha
        assert stop["calibration"] == document.digest
    several = run(command)
    assert several.code == 1
    assert "several target accuracies: 0.8, 0.9" in several.err
    other = run([*command, "--target-accuracy", "0.95"])
    assert other.code == 1
    assert "no target accuracy 0.95; it has 0.8, 0.9" in other.err


def test_all_answers_together_are_about_as_right_as_promised(
    photos: Path, tiny_bundle: Path, tree_file: Path, calibration: Path
) -> None:
    with Classifier.load(
        tiny_bundle,
        hierarchy=tree_file,
        templates="name",
        calibration=calibration,
        target_accuracy=0.9,
        threads=1,
    ) as classifier:
        assert classifier.temperature == read_calibration(calibration).binding.temperature
        tree = classifier.hierarchy
        right = [
            tree.is_ancestor_or_self(
                tree.index(answer.prediction.id), tree.find(Path(answer.image).parent.name)
            )
            for answer in classifier.classify_many(sorted(photos.rglob("*.png")))
        ]
    assert np.mean(right) == pytest.approx(0.9, abs=0.07)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--rule", "climb"], ["rule is climb here, greedy in the calibration"]),
        (["--strategy", "topdown"], ["strategy is topdown", "text_features"]),
        (["--templates", "single"], ["templates", "text_features"]),
        (["--hierarchy", "flat", "--labels", "cat,dog"], ["hierarchy", "text_features"]),
        (["--root", "dog"], ["root is"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value[0][0] == "-" else "",
)
def test_anything_else_refuses_it(
    run: Run,
    photos: Path,
    options: list[str],
    calibration: Path,
    changed: list[str],
    named: list[str],
) -> None:
    use = dict(zip(options[::2], options[1::2], strict=True))
    use.update(zip(changed[::2], changed[1::2], strict=True))
    flat = [part for pair in use.items() for part in pair]
    with_file = ["--calibration", calibration, "--target-accuracy", "0.9"]
    result = run(["classify", photos / "jeep" / "5.png", *flat, *with_file])
    assert result.code == 1
    for name in named:
        assert name in result.err
    assert "calibrate again" in result.err


def test_another_image_encoder_refuses_it_and_another_card_does_not(
    photos: Path, tree_file: Path, calibration: Path, tmp_path: Path
) -> None:
    def load(model: Path) -> Classifier:
        return Classifier.load(
            model,
            hierarchy=tree_file,
            templates="name",
            calibration=calibration,
            target_accuracy=0.9,
            threads=1,
        )

    with pytest.raises(CalibrationMismatchError, match=r"image_encoder is image_encoder\.onnx"):
        load(make_bundle(tmp_path / "other", seed=1))
    scaled = make_bundle(tmp_path / "scaled", logit_scale=31.0)
    with pytest.raises(CalibrationMismatchError, match=r"logit_scale is 31.0 here, 30.0"):
        load(scaled)
    geometry = make_bundle(tmp_path / "resize", preprocess={"image_size": (32, 32)})
    write_manifest(geometry, preprocess={"image_size": (32, 32), "interpolation": "bilinear"})
    with pytest.raises(CalibrationMismatchError, match="preprocess"):
        load(geometry)

    # The calibration may travel in the bundle, beside a card: neither is part of the model.
    carrying = make_bundle(tmp_path / "carrying")
    (carrying / "calibration.json").write_bytes(calibration.read_bytes())
    (carrying / "card.json").write_text("{}")
    write_manifest(carrying)
    with Classifier.load(
        carrying, hierarchy=tree_file, templates="name", target_accuracy=0.8, threads=1
    ) as classifier:
        assert classifier.thresholds[0].source == "calibration"
        assert classifier.thresholds[0].alpha == 0.2


def test_a_target_needs_a_calibration(run: Run, photos: Path, options: list[str]) -> None:
    image = photos / "jeep" / "5.png"
    result = run(["classify", image, *options, "--target-accuracy", "0.9"])
    assert result.code == 1
    assert "the model tiny carries none" in result.err
    for wrong in (["--theta", "0.5"], []):
        value = "0.9" if wrong else "1.0"
        result = run(["classify", image, *options, "--target-accuracy", value, *wrong])
        assert result.code == 2


def test_a_service_is_not_asked_for_it(run: Run, photos: Path, calibration: Path) -> None:
    server = ["--server", "http://127.0.0.1:9", "--calibration", calibration]
    result = run(["classify", photos / "jeep" / "5.png", *server])
    assert result.code == 2
    assert "calibrations are read here alone" in result.err


def test_synthetic_images_promise_nothing_else(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "drawn.json"
    command = ["calibrate", "--data", photos, "-o", path, *options, "--synthetic"]
    attacked = ["--attack", "apgd-ce", "--threat", "Linf:1/255", "--keep-temperature"]
    result = run([*command, *attacked])
    assert result.code == 0
    assert SYNTHETIC in result.out
    document = read_calibration(path)
    assert document.threat is not None
    assert document.threat.eps == pytest.approx(1 / 255)
    assert "apgd-ce" in document.guarantee
    assert document.temperature.source == "model"
    answered = run(["classify", photos / "jeep" / "5.png", *options, "--calibration", path])
    assert f"warning: {SYNTHETIC}" in answered.err
    half = run(["calibrate", "--data", photos, "-o", path, *options, "--attack", "apgd-ce"])
    assert half.code == 2


def test_tables_name_truths_at_any_depth_and_broken_images_are_told(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    rows = [(str(path), path.parent.name) for path in sorted(photos.rglob("*.png"))]
    rows = [(path, "DOG" if label in ("labrador", "poodle") else label) for path, label in rows]
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "note"])
        writer.writerows([(*row, "") for row in rows])
        writer.writerow(["broken.png", "jeep", "relative to the table"])
    out = tmp_path / "c.json"
    result = run(["calibrate", "--data", table, "-o", out, *options])
    assert result.code == 0, result.err
    assert "1 images cannot be read and were left out" in result.err
    assert "broken.png" in result.err
    assert read_calibration(out).data.n_unreadable == 1
    assert read_calibration(out).data.n == N


def test_copies_of_an_image_are_told(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "copies.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    table.write_text("\n".join(["path,label", *rows, *rows[:3]]))
    result = run(["calibrate", "--data", table, "-o", tmp_path / "c.json", *options])
    assert result.code == 0
    assert "3 images are copies of others" in result.err


def test_too_few_images_and_strange_labels_are_refused(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    some = tmp_path / "some"
    (some / "jeep").mkdir(parents=True)
    for number in (5, 11, 17):
        path = photos / "jeep" / f"{number}.png"
        (some / "jeep" / path.name).write_bytes(path.read_bytes())
    result = run(["calibrate", "--data", some, "-o", out, *options])
    assert result.code == 1
    assert "too few to promise a hierarchical accuracy of 0.9" in result.err
    (some / "jeep").rename(some / "unicorn")
    result = run(["calibrate", "--data", some, "-o", out, *options])
    assert result.code == 1
    assert "unicorn" in result.err
    assert not out.exists()


def test_data_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError):
        read_labelled(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folders with images"):
        read_labelled(tmp_path)
    wrong = {
        "a.txt": ("x", "neither a folder nor"),
        "b.csv": ("file,class\nx.png,dog\n", "it has file, class"),
        "c.csv": ("path,label\nx.png,\n", "lack a path or a label: rows 2"),
        "d.csv": ("path,label\n", "it has none"),
    }
    for name, (text, message) in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path / name)
    (tmp_path / "e.csv").write_bytes(b"path,label\n\xff,dog\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_labelled(tmp_path / "e.csv")


def test_files_that_are_no_calibration_are_refused(calibration: Path, tmp_path: Path) -> None:
    document = json.loads(calibration.read_text("utf-8"))
    turned = [document["targets"][1], document["targets"][0]]
    other = {**document["hierarchy"], "digest": "0" * 64}
    wrong = {
        "not JSON": "{",
        "schema version 9": json.dumps({**document, "schema_version": 9}),
        "theta": json.dumps({**document, "targets": [{"alpha": 0.1}]}),
        "extra": json.dumps({**document, "extra": 1}),
        "do not ascend": json.dumps({**document, "targets": turned}),
        "differ": json.dumps({**document, "hierarchy": other}),
    }
    path = tmp_path / "wrong.json"
    for message, text in wrong.items():
        path.write_text(text)
        with pytest.raises(CalibrationError, match=message):
            read_calibration(path)
    with pytest.raises(CalibrationError, match=r"nowhere\.json"):
        read_calibration(tmp_path / "nowhere.json")
