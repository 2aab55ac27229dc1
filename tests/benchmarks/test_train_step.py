"""The benchmarks of a training step, at a size of seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

import torch
from robustzs_training.objectives.levels import build_levels

from benchmarks.train_step import growth
from benchmarks.train_step.ours import Ours
from benchmarks.train_step.setting import EPS, Setting, write_weights
from benchmarks.train_step.theirs import import_loop

SETTING = Setting(batch_size=2, n_steps=2, seed=0)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_weights("tiny", path, seed=0)
    return path


def test_kept_and_encoded_captions_are_the_same_mathematics(weights: Path) -> None:
    kept = Ours("tiny", weights, SETTING, bf16=False)
    encoded = Ours("tiny", weights, SETTING, bf16=False, cache=False)
    start, end, images = kept.check()
    assert end > start > 0.0
    assert float((images - SETTING.pixels()).abs().max()) <= EPS + 1e-7
    other_start, other_end, _ = encoded.check()
    assert other_start == pytest.approx(start, rel=1e-5)
    assert other_end == pytest.approx(end, rel=1e-3)
    half = Ours("tiny", weights, SETTING, bf16=True).check()
    assert half[0] == pytest.approx(start, rel=0.02)


def test_a_step_lowers_the_loss_of_the_next(weights: Path) -> None:
    side = Ours("tiny", weights, SETTING, bf16=False)
    losses = [side.step() for _ in range(4)]
    assert losses[-1] < losses[0]


def test_what_is_no_checkout_is_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(SystemExit, match="is no checkout"):
        import_loop(tmp_path, weights)


def test_leaves_only_keeps_no_other_level_and_no_other_prompt() -> None:
    table = build_levels(growth.trees(12, 2), n_levels=3)
    leaves = growth.leaves_only(table)
    assert leaves.prompts == table.prompts[:12]
    ((level,),) = (tree.levels for tree in leaves.trees)
    assert torch.equal(level.columns.sort().values, torch.arange(12))
    assert len(leaves.trees[0].edges) == 0


def test_growth_prints_every_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--architecture", "tiny", "--classes", "6", "--batch-size", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["growth", *arguments, "--n-steps", "1"])
    threads = torch.get_num_threads()
    try:
        growth.main()
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for name in ("leaf only", "L = 5, 3 trees", "8 attack steps", "4 images"):
        assert name in printed


@pytest.mark.slow
def test_sides_are_compared_in_turn() -> None:
    command = [sys.executable, "-m", "benchmarks.train_step.compare", "--architecture", "tiny"]
    command += ["--batch-size", "2", "--n-steps", "1", "--rounds", "2", "--threads", "1"]
    done = subprocess.run(
        [*command, "--sides", "ours-fp32", "ours-bf16"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ours-fp32 / ours-bf16, cpu:" in done.stdout
    assert "peak MB" in done.stdout
