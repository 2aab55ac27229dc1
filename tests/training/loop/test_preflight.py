"""What is found before the first step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from robustzs_training.loop import preflight
from robustzs_training.loop.preflight import PreflightReport, activation_bytes, describe

from robustzs.errors import PreflightError
from tests.training.loop.small_runs import make_objective, make_recipe, make_trainer

SIZE = (16, 16)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for output in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(PreflightError, match="cannot be written to"):
            make_trainer(output).run()
        with pytest.raises(PreflightError, match="cannot be written to"):
            preflight(make_objective(), make_recipe(), output, image_size=SIZE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PreflightError, match="cannot be written to"):
        make_trainer(tmp_path / "out").run()


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    report = preflight(make_objective(), make_recipe(), tmp_path / "a" / "b", image_size=SIZE)
    report.check()
    assert list(tmp_path.iterdir()) == []
    assert set(describe(report)) == {"trained", "memory", "disk"}


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [({}, 3), ({"ema_decay": 0.9}, 4), ({"name": "sgd"}, 1), ({"name": "sgd", "momentum": 0.9}, 2)],
)
def test_a_checkpoint_takes_what_was_foreseen(
    tmp_path: Path, optimizer: dict[str, Any], copies: int
) -> None:
    recipe = make_recipe(optimizer=optimizer)
    report = preflight(make_objective(), recipe, tmp_path, image_size=SIZE)
    objective = make_objective()
    size = 4 * sum(p.numel() for p in objective.trainable().values())
    assert report.checkpoint == copies * size
    result = make_trainer(tmp_path, recipe, objective=objective).run()
    written = sum(f.stat().st_size for f in result.checkpoint.iterdir())
    assert report.checkpoint < written < report.checkpoint + 40_000


def test_too_little_of_anything_is_told_with_numbers() -> None:
    def report(**changes: int) -> PreflightReport:
        settings = {"disk_needed": 1 << 30, "disk_free": 2 << 30, "memory_needed": 1 << 30,
                    "memory_free": 2 << 30, **changes}  # fmt: skip
        return PreflightReport(checkpoint=1 << 28, device="cpu", n_trained=10, **settings)

    report().check()
    with pytest.raises(PreflightError, match=r"needs 3\.0 GiB of disk, and 2\.0 GiB are free") as e:
        report(disk_needed=3 << 30).check()
    assert "run.keep_checkpoints" in e.value.hint
    with pytest.raises(PreflightError, match=r"about 4\.0 GiB of memory on cpu") as e:
        report(memory_needed=4 << 30).check()
    assert "run.batch_size" in e.value.hint


def test_a_run_that_cannot_fit_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="memory"):
        make_trainer(tmp_path, make_recipe(run={"batch_size": 10**9})).run()
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not (tmp_path / "provenance.json").exists()


def test_a_batch_that_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"run\.batch_size 4 cannot be split"):
        make_trainer(tmp_path, make_recipe(run={"accumulation": 3})).run()


def test_activations_are_drawn_out_to_the_batch() -> None:
    """Against what the graph of the whole batch holds."""
    objective = make_objective("tecoa")
    kept: dict[int, torch.UntypedStorage] = {}
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = objective.model.image_features(torch.zeros(12, 3, *SIZE))
    wanted = sum(storage.nbytes() for storage in kept.values())
    found = activation_bytes(objective, make_recipe(run={"batch_size": 12}), SIZE)
    assert found == pytest.approx(wanted, rel=0.02)
    halved = activation_bytes(
        objective, make_recipe(run={"batch_size": 12, "accumulation": 2}), SIZE
    )
    assert halved == pytest.approx(wanted / 2, rel=0.1)
    del features


def test_prompts_that_are_attacked_count_too() -> None:
    recipe = make_recipe()
    with_prompts = activation_bytes(make_objective("hierarchical"), recipe, SIZE)
    without = activation_bytes(make_objective("hierarchical_images_only"), recipe, SIZE)
    assert with_prompts > 1.2 * without
    twice = activation_bytes(make_objective("tga_zsr"), recipe, SIZE)
    assert twice == pytest.approx(2 * without, rel=0.05)
