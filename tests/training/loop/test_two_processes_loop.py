"""Under torchrun over gloo, two processes train as one does with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.loop.small_runs import metrics, run_one
from tests.training.objectives.two_processes import NAMES

REPOSITORY = Path(__file__).parents[3]
# Uniform starts, an average, clipping: whatever could differ between processes.
SETTINGS: dict[str, Any] = {
    "optimizer": {"lr": 1e-4, "ema_decay": 0.5, "clip_grad_norm": 1.0},
    "schedule": {"warmup_steps": 2, "steps": 4},
    "run": {"batch_size": 6, "checkpoint_every": 4},
    "options": {"double": True},
}
HIDDEN = {"seconds", "images_per_second"}


def together(folder: Path, names: str, settings: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
               "-m", "tests.training.loop.small_runs"]  # fmt: skip
    done = subprocess.run(
        [*command, str(folder), names, json.dumps(settings)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    together(folder, ",".join(NAMES), SETTINGS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_with_the_whole_batch(
    of_two: Path, tmp_path: Path, name: str
) -> None:
    run_one(tmp_path, name, SETTINGS)
    found, wanted = metrics(of_two / name), metrics(tmp_path)
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - HIDDEN:
            np.testing.assert_allclose(
                ours[key], theirs[key], rtol=1e-6, atol=1e-8, err_msg=f"{name}: {key}"
            )
    two, one = (
        load_file(path / "checkpoints" / "step-00000004" / "tensors.safetensors")
        for path in (of_two / name, tmp_path)
    )
    assert two.keys() == one.keys()
    for key, values in one.items():
        if not key.startswith("random/"):
            np.testing.assert_allclose(two[key], values, rtol=1e-5, atol=1e-8, err_msg=key)
    np.testing.assert_array_equal(two["random/attack"], one["random/attack"])
    assert len(two["random/cpu"]) == 2
    assert len(one["random/cpu"]) == 1


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    """Killed after the checkpoint of step 2: both processes go on from there."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    together(whole, "qt_aft", {**SETTINGS, "run": {**SETTINGS["run"], "checkpoint_every": 2}})
    settings = {**SETTINGS, "run": {**SETTINGS["run"], "checkpoint_every": 2}}
    together(broken, "qt_aft", {**settings, "options": {"double": True, "stop_at": 3}})
    assert metrics(broken)[-1]["step"] == 3
    together(broken, "qt_aft", settings)
    last = Path("checkpoints/step-00000004/tensors.safetensors")
    assert (broken / last).read_bytes() == (whole / last).read_bytes()
