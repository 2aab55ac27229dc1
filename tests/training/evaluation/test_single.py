"""One image under attack: the file holds the perturbation, and the deployed model judges it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.eight_bit import as_pixels, framed, on_the_grid, rounded
from robustzs_training.evaluation.single import SingleRequest, attack_image
from robustzs_training.export.bundle import BundleFacts, export_open_clip_model
from robustzs_training.export.tokenizers import tokenizer_of

from robustzs.bundle.manifest import LicenceRecord, SourceRecord
from robustzs.classifier import Classifier
from robustzs.cli.main import main
from robustzs.errors import UnknownNodeError, UsageError
from robustzs.images.config import PreprocessConfig
from robustzs.images.preprocess import preprocess
from robustzs.images.sources import ImageSource
from robustzs.labels import LabelSet
from robustzs.threat import ThreatModel
from tests.training.tiny_clip import TINY, make_clip

CHELSEA = Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png"
TREE = "thing:\n  animal:\n    cat: [tabby, siamese]\n    dog: [poodle]\n  vehicle: [jeep]\n"
WIDE = PreprocessConfig(image_size=(32, 32), resize_size=40)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP, which resizes to more than it looks at."""
    output = tmp_path_factory.mktemp("single") / "tiny"
    export_open_clip_model(
        make_clip(TINY),
        config=TINY,
        tokenizer=tokenizer_of(TINY),
        output=output,
        facts=BundleFacts(
            name="tiny",
            source=SourceRecord(description="random numbers"),
            preprocess=WIDE,
            mean=(0.48, 0.46, 0.41),
            std=(0.27, 0.26, 0.28),
            licences=(LicenceRecord(name="CC0-1.0", covers="everything"),),
        ),
        weights="all",
    )
    return output


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree.yaml"
    path.write_text(TREE, encoding="utf-8")
    return path


def request(bundle: Path, tree: Path, **changes: Any) -> SingleRequest:
    values: dict[str, Any] = {
        "image": ImageSource(str(CHELSEA)),
        "model": str(bundle),
        "hierarchy": [str(tree)],
        "threat": ThreatModel.parse("8/255"),
        "n_steps": 30,
        "threads": 1,
    }
    return SingleRequest(**{**values, **changes})


def test_the_file_alone_turns_the_deployed_model(bundle: Path, tree: Path) -> None:
    outcome = attack_image(request(bundle, tree))
    assert outcome.turned
    assert 1 <= outcome.levels <= 8
    picture = Image.open(io.BytesIO(outcome.png))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (40, 40))
    with Classifier.load(bundle, hierarchy=str(tree), threads=1) as classifier:
        before, after = classifier.classify(CHELSEA), classifier.classify(outcome.png)
        change = classifier.preprocess(outcome.png) - classifier.preprocess(CHELSEA)
    assert before.path == outcome.before.path
    assert after.path == outcome.after.path
    assert after.flat_top1.id != before.flat_top1.id == outcome.label
    assert np.abs(change).max() * 255 == pytest.approx(outcome.levels, abs=1e-3)
    first, last = outcome.label_probability
    assert first == pytest.approx(before.flat_top1.probability, abs=1e-6)
    assert last < first
    parting = outcome.parts_at
    assert parting is not None
    ids = [[node.id for node in answer.path] for answer in (before, after)]
    assert ids[0][:parting] == ids[1][:parting]
    assert ids[0][parting] != ids[1][parting]


def test_a_target_is_reached_at_any_depth(bundle: Path, tree: Path) -> None:
    clean = attack_image(request(bundle, tree, n_steps=1)).before
    for name, below in (("vehicle", {"jeep"}), ("cat", {"tabby", "siamese"})):
        if clean.flat_top1.id in below:
            continue
        outcome = attack_image(
            request(bundle, tree, target=name, threat=ThreatModel.parse("32/255"), n_steps=60)
        )
        assert outcome.target == name
        assert outcome.turned == (outcome.after.flat_top1.id in below)
        assert outcome.target_probability is not None
        assert outcome.target_probability[1] > outcome.target_probability[0]


def test_what_is_wrong_already_is_left_alone(bundle: Path, tree: Path) -> None:
    first = attack_image(request(bundle, tree, n_steps=1))
    other = next(name for name in ("tabby", "siamese", "poodle", "jeep") if name != first.label)
    outcome = attack_image(request(bundle, tree, label=other))
    assert outcome.already_wrong
    assert not outcome.turned
    assert outcome.levels == 0
    assert outcome.after.path == outcome.before.path


def test_an_inner_label_is_right_with_all_that_is_below(bundle: Path, tree: Path) -> None:
    top = attack_image(request(bundle, tree, n_steps=1)).before.flat_top1.id
    inner = {"tabby": "cat", "siamese": "cat", "poodle": "animal", "jeep": "vehicle"}[top]
    outcome = attack_image(request(bundle, tree, label=inner))
    below = {"cat": {"tabby", "siamese"}, "animal": {"tabby", "siamese", "poodle"}}
    assert outcome.turned == (outcome.after.flat_top1.id not in below.get(inner, {"jeep"}))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"label": "zebra"}, UnknownNodeError, "zebra"),
        ({"target": "zebra"}, UnknownNodeError, "zebra"),
        ({"label": "thing"}, UsageError, "nothing can be wrong"),
        ({"label": "cat", "target": "tabby"}, UsageError, "is right"),
        ({"attack": "captions"}, UsageError, "not for one image"),
    ],
)
def test_labels_that_cannot_be_meant(
    bundle: Path, tree: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        attack_image(request(bundle, tree, **changes))


def test_command_says_and_writes_the_same(
    bundle: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.png"
    arguments = [
        "attack", str(CHELSEA), "-m", str(bundle), "-H", str(tree), "--eps", "8.9/255",
        "--n-steps", "30", "-o", str(output), "--threads", "1", "--device", "cpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--format", "json"])
    assert not stopped.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["turned"] is True
    assert document["eps"] == "8/255"
    assert document["after"]["image"] == str(output)
    assert document["size"] == [40, 40]
    assert document["model_size"] == [32, 32]
    written = output.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert not stopped.value.code
    text = capsys.readouterr().out
    assert output.read_bytes() == written
    assert "turned: top-1 was" in text
    assert "the model sees the 32 x 32 in the middle" in text


# ---- 8 bits --------------------------------------------------------------------------------------


def test_a_victim_behind_a_file_sees_whole_255ths_and_keeps_its_gradients() -> None:
    weights = torch.arange(12.0).reshape(1, 12)
    victim = Victim(
        logits_of=lambda pixels: pixels.flatten(1) * weights,
        image_features_of=lambda pixels: pixels.flatten(1),
        logits_for=lambda texts: lambda pixels: pixels.flatten(1),
        device=torch.device("cpu"),
    )
    pixels = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = on_the_grid(victim).image_features_of(pixels)
    assert np.array_equal(seen.detach().numpy()[0], as_pixels(rounded(pixels[0])).reshape(-1))
    assert not torch.equal(seen, pixels.flatten(1))
    on_the_grid(victim).logits_of(pixels).sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert torch.equal(pixels.grad.flatten(1), weights)


@pytest.mark.parametrize(
    "config",
    [
        PreprocessConfig(image_size=(8, 8)),
        PreprocessConfig(image_size=(8, 8), resize_size=8),
        PreprocessConfig(image_size=(8, 8), resize_size=11),
        PreprocessConfig(image_size=(8, 6), resize_size=13),
        PreprocessConfig(image_size=(8, 6)),
        PreprocessConfig(image_size=(8, 6), resize_mode="squash"),
        PreprocessConfig(image_size=(8, 6), resize_mode="longest"),
    ],
)
def test_a_framed_image_passes_preprocessing_as_it_is(config: PreprocessConfig) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*config.image_size, 3), np.uint8)
    pixels = preprocess(Image.fromarray(framed(values, config)), config)
    assert np.array_equal(pixels, as_pixels(values))


# ---- the demonstration ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cat_of_the_examples_turns_within_one_step_of_255() -> None:
    outcome = attack_image(
        SingleRequest(image=ImageSource(str(CHELSEA)), threat=ThreatModel.parse("1/255"))
    )
    assert outcome.turned
    assert outcome.levels == 1
    assert outcome.size == outcome.model_size == (224, 224)
    assert outcome.label_probability[1] < outcome.label_probability[0] / 2
    assert LabelSet.imagenet1k().index(outcome.after.flat_top1.id) >= 0
