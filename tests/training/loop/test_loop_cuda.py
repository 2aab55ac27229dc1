"""On a CUDA device: precisions, compiled towers, and processes over NCCL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.objectives import Batch, Fare, LossTerms

from robustzs.errors import PreflightError, TrainingError
from tests.training.loop.small_runs import (
    MemoryLoader,
    make_objective,
    make_recipe,
    make_trainer,
    metrics,
    run_one,
    weights,
)
from tests.training.tiny_models import make_adapter

REPOSITORY = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("name", ["fare-cnn", "qt_aft", "hierarchical", "qt_aft_hierarchical"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(tmp_path: Path, name: str, precision: str) -> None:
    recipe = make_recipe(run={"precision": precision}, schedule={"steps": 30})
    objective = make_objective(name)
    before = {key: value.cpu() for key, value in weights(objective).items()}
    loader = MemoryLoader(4, size=32 if name == "fare-cnn" else 16)
    result = make_trainer(tmp_path, recipe, objective=objective, loader=loader).run()
    assert result.steps == 30
    lines = metrics(tmp_path)
    # Under float16 the first steps may overflow until the loss scale is found.
    assert sum(line["grad_norm"] is not None for line in lines) >= 15
    assert all(line["loss"] is not None for line in lines)
    after = weights(objective)
    assert any(not torch.equal(after[key].cpu(), value) for key, value in before.items())
    assert all(value.dtype == torch.float32 for value in after.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_stopped_run_goes_on(tmp_path: Path, precision: str) -> None:
    recipe = make_recipe(run={"precision": precision}, schedule={"steps": 12})
    wanted, found = make_objective(), make_objective()
    make_trainer(tmp_path / "whole", recipe, objective=wanted).run()
    stopped = make_trainer(tmp_path / "broken", recipe, loader=MemoryLoader(4, stop_at=5)).run()
    assert (stopped.steps, stopped.interrupted) == (5, True)
    make_trainer(tmp_path / "broken", recipe, objective=found).run()
    for key, value in weights(wanted).items():
        torch.testing.assert_close(weights(found)[key], value, rtol=1e-3, atol=1e-4)


def test_a_compiled_tower_trains_alike(tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        recipe = make_recipe(run={"compile": compiled, "precision": "bf16"}, schedule={"steps": 4})
        make_trainer(tmp_path / str(compiled), recipe, objective=make_objective("qt_aft")).run()
        losses[compiled] = [line["loss"] for line in metrics(tmp_path / str(compiled))]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.05)


def test_the_device_s_memory_is_looked_at_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="of memory on cuda"):
        make_trainer(tmp_path, make_recipe(run={"batch_size": 10**8})).run()


def test_running_out_of_memory_names_the_remedy(tmp_path: Path) -> None:
    class Greedy(Fare):
        def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
            torch.empty(1 << 46, device=batch.pixels.device)
            return super().loss(batch, perturbed)

    with pytest.raises(TrainingError, match="out of memory") as raised:
        make_trainer(tmp_path, objective=Greedy(make_adapter())).run()
    assert "run.accumulation" in raised.value.hint


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices")
def test_two_processes_over_nccl_train_as_one(tmp_path: Path) -> None:
    settings = {"run": {"batch_size": 6, "precision": "fp32", "trackers": [], "log_every": 1}}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
               "-m", "tests.training.loop.small_runs"]  # fmt: skip
    for name in ("qt_aft", "qt_aft_hierarchical"):
        subprocess.run(
            [*command, str(tmp_path / "two" / name), name, json.dumps(settings)],
            cwd=REPOSITORY,
            env=dict(os.environ),
            timeout=300,
            check=True,
        )
        run_one(tmp_path / "one" / name, name, settings)
        losses = [
            [line["loss"] for line in metrics(tmp_path / each / name)] for each in ("two", "one")
        ]
        # The noise is the same; sums are taken in another order.
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2)
