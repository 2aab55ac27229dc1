"""Attacked images to calibrate on: the highest loss of all steps, every image, and the record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from robustzs_training.evaluation.hierarchical.calibration import highest_loss

from robustzs.calibration.document import read_calibration
from robustzs.cli.main import main
from robustzs.threat import ThreatModel
from tests.cli.conftest import Result, Run
from tests.factories import make_bundle
from tests.hierarchy.trees import animals
from tests.training.evaluation.depth_worlds import linear_victim, make_pictures

THREAT = ThreatModel(eps=4.0 / 255.0)


def test_every_image_is_taken_to_its_highest_loss() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 30, inner=["dog"])
    victim, right = linear_victim(tree.labels), torch.from_numpy(pictures.right)
    found = highest_loss(victim, pictures.images, right, range(30), threat=THREAT, n_steps=20)
    assert float((found - pictures.images).abs().max()) <= THREAT.eps + 1e-6

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        logits = victim.logits_of(pixels)
        own = logits.masked_fill(~right, -torch.inf).logsumexp(dim=1)
        return logits.logsumexp(dim=1) - own

    before, after = loss(pictures.images), loss(found)
    assert bool((after > before).all())  # also of those that were wrong before
    wrong = ~right[torch.arange(30), victim.logits_of(pictures.images).argmax(dim=1)]
    assert bool(wrong.any())
    # the loss is convex in pixels: its largest value is at a corner, and APGD finds most of it
    corners = (
        pictures.images
        + THREAT.eps
        * torch.randn(
            200, *pictures.images.shape, generator=torch.Generator().manual_seed(0)
        ).sign()
    )
    best = torch.stack([loss(corner) for corner in corners]).amax(dim=0)
    assert bool((after >= best).all())


def test_it_depends_on_seed_and_place_alone() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 12)
    victim, right = linear_victim(tree.labels), torch.from_numpy(pictures.right)
    whole = highest_loss(victim, pictures.images, right, range(12), threat=THREAT, n_steps=5)
    part = highest_loss(
        victim, pictures.images[5:8], right[5:8], [5, 6, 7], threat=THREAT, n_steps=5
    )
    torch.testing.assert_close(part, whole[5:8], rtol=0.0, atol=1e-6)


def test_where_everything_is_right_there_is_nothing_to_attack() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 4)
    right = torch.from_numpy(pictures.right)
    right[2] = True
    victim = linear_victim(tree.labels)
    found = highest_loss(victim, pictures.images, right, range(4), threat=THREAT, n_steps=3)
    changed = (found != pictures.images).flatten(1).any(dim=1)
    assert changed.tolist() == [True, True, False, True]
    same = highest_loss(victim, pictures.images[2:3], right[2:3], [2], threat=THREAT, n_steps=3)
    assert torch.equal(same, pictures.images[2:3])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(arguments: Sequence[object]) -> Result:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "pictures" / ("red thing", "blue thing")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (40, 40, 3)).astype(np.uint8)
        pixels[..., 0 if number % 2 == 0 else 2] += 130
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_calibrate_attacks_and_says_with_what(
    run: Run,
    pictures: Path,
    tmp_path: Path,
) -> None:
    paths = [tmp_path / "clean.json", tmp_path / "attacked.json"]
    options = ["--labels", "red thing,blue thing,green thing", "--keep-temperature"]
    command = ["calibrate", "--data", pictures, *options, "--target-accuracy", "0.5", "-o"]
    assert run([*command, paths[0]]).code == 0
    attack = ["--attack", "apgd-ce", "--eps", "2/255", "--n-steps", "2"]
    result = run([*command, paths[1], *attack])
    assert result.code == 0, result.err
    assert "attacked alike (apgd-ce, Linf, eps 0.00784" in result.out
    clean, attacked = (read_calibration(path) for path in paths)
    assert clean.threat is None
    assert attacked.threat is not None
    assert attacked.threat.eps == pytest.approx(2.0 / 255.0)
    assert attacked.threat.n_steps == 2
    assert "highest loss" in str(attacked.threat.how)
    assert "pyautoattack" in str(attacked.threat.how)
    assert clean.binding == attacked.binding
    assert clean.data.digest == attacked.data.digest  # of the files, which nobody changed
    # surer of wrong things, so more is asked before an answer
    assert attacked.targets[0].theta > clean.targets[0].theta
    assert json.loads(paths[1].read_text("utf-8"))["guarantee"] == attacked.guarantee


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--attack", "apgd-ce"], "--attack goes with --eps"),
        (["--eps", "1/255"], "--attack goes with --eps"),
        (["--attack", "apgd-ce", "--eps", "1/255", "--threat", "1/255"], "--attack goes with"),
        (["--attack", "square", "--eps", "1/255"], "'square' is not made here"),
        (["--attack", "apgd-ce", "--eps", "0"], "radius of 0"),
        (["--n-steps", "3"], "--attack goes with"),
    ],
)
def test_wrong_options_are_refused(
    run: Run,
    pictures: Path,
    tmp_path: Path,
    options: list[str],
    text: str,
) -> None:
    command = ["calibrate", "--data", pictures, "-o", tmp_path / "c.json"]
    result = run([*command, "--labels", "red thing,blue thing", *options])
    assert result.code == 2
    assert text in result.err


def test_a_bundle_without_weights_cannot_be_attacked(
    run: Run,
    pictures: Path,
    tmp_path: Path,
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    options = ["--model", bundle, "--labels", "red thing,blue thing", "--templates", "name"]
    command = ["calibrate", "--data", pictures, "-o", tmp_path / "c.json", *options]
    result = run([*command, "--attack", "apgd-ce", "--eps", "1/255"])
    assert result.code == 1
    assert "carries no weights" in result.err
