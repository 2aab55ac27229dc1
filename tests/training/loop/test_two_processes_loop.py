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

from tests.training.loop.small_runs import metrics
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


def together(folder: Path, names: list[str], settings: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--master-addr", "127.0.0.1", "--master-port", "0",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
               "-m", "tests.training.loop.small_runs"]  # fmt: skip
    for name in names:
        done = subprocess.run(
            [*command, str(folder / name), name, json.dumps(settings)],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def alone(folder: Path, name: str, settings: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.loop.small_runs", str(folder), name,
         json.dumps(settings)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path, name: str) -> None:
    together(tmp_path / "two", [name], SETTINGS)
    alone(tmp_path / "one", name, SETTINGS)
    found, wanted = metrics(tmp_path / "two" / name), metrics(tmp_path / "one")
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - HIDDEN:
            np.testing.assert_allclose(
                ours[key], theirs[key], rtol=1e-6, atol=1e-8, err_msg=f"{name}: {key}"
            )
    of_two, of_one = (
        load_file(path / "checkpoints" / "step-00000004" / "tensors.safetensors")
        for path in (tmp_path / "two" / name, tmp_path / "one")
    )
    assert of_two.keys() == of_one.keys()
    for key, values in of_one.items():
        if not key.startswith("random/"):
            np.testing.assert_allclose(of_two[key], values, rtol=1e-5, atol=1e-8, err_msg=key)
    np.testing.assert_array_equal(of_two["random/attack"], of_one["random/attack"])
    assert len(of_two["random/cpu"]) == 2
    assert len(of_one["random/cpu"]) == 1


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(tmp_path: Path) -> None:
    """Killed after the checkpoint of step 2: both processes go on from there."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    together(whole, ["qt_aft"], {**SETTINGS, "run": {**SETTINGS["run"], "checkpoint_every": 2}})
    settings = {**SETTINGS, "run": {**SETTINGS["run"], "checkpoint_every": 2}}
    together(broken, ["qt_aft"], {**settings, "options": {"double": True, "stop_at": 3}})
    assert metrics(broken / "qt_aft")[-1]["step"] == 3
    together(broken, ["qt_aft"], settings)
    last = Path("qt_aft/checkpoints/step-00000004/tensors.safetensors")
    assert (broken / last).read_bytes() == (whole / last).read_bytes()
