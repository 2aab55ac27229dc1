"""A run that was killed, stopped or damaged ends where the uninterrupted one does, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from robustzs_training.loop.store import CheckpointStore
from robustzs_training.recipe import Recipe

from robustzs.errors import PreflightError, TrainingStateError
from tests.training.loop.small_runs import (
    MemoryLoader,
    make_objective,
    make_recipe,
    make_trainer,
    metrics,
    weights,
)

REPOSITORY = Path(__file__).parents[3]


def start(output: Path, name: str, **given: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.loop.small_runs", str(output), name,
         json.dumps(given)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def wait_for_step(running: subprocess.Popen[str], output: Path, step: int) -> None:
    path = output / "metrics.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and running.poll() is None:
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.005)
    running.kill()
    raise AssertionError(f"never came to step {step}: {running.communicate()[1]}")


def checkpoint_bytes(output: Path, step: int) -> bytes:
    return (output / "checkpoints" / f"step-{step:08d}" / "tensors.safetensors").read_bytes()


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hidden = {"seconds", "images_per_second"}
    return [{k: v for k, v in line.items() if k not in hidden} for line in lines]


SETTINGS: dict[str, Any] = {
    "schedule": {"warmup_steps": 3, "steps": 15},
    "optimizer": {"ema_decay": 0.9},
}


def test_killed_with_signal_9_and_resumed_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """The CNN in channels_last, AdamW, an average, checkpoints every two steps."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    slow = {**SETTINGS, "options": {"pause": 0.05}}
    uninterrupted = start(whole, "fare-cnn", **SETTINGS)
    running = start(broken, "fare-cnn", **slow)
    wait_for_step(running, broken, 5)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    n_before = len(metrics(broken))
    assert 5 <= n_before < 15
    again = start(broken, "fare-cnn", **SETTINGS)
    said = [each.communicate(timeout=120) for each in (again, uninterrupted)]
    assert [again.returncode, uninterrupted.returncode] == [0, 0], said
    assert "going on from step" in said[0][1]
    assert json.loads(said[0][0]) == {"steps": 15, "interrupted": False}
    assert checkpoint_bytes(broken, 15) == checkpoint_bytes(whole, 15)
    assert without_times(metrics(broken)) == without_times(metrics(whole))
    assert len(json.loads((broken / "provenance.json").read_text())["starts"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_keeps_it(tmp_path: Path, number: signal.Signals) -> None:
    given = {"schedule": {"steps": 500}, "run": {"checkpoint_every": 400}}
    running = start(tmp_path, "fare", **given, options={"pause": 0.02})
    wait_for_step(running, tmp_path, 3)
    running.send_signal(number)
    said, complained = running.communicate(timeout=60)
    assert running.returncode == 0, complained
    result = json.loads(said)
    assert result["interrupted"]
    assert 3 <= result["steps"] < 500
    assert CheckpointStore(tmp_path / "checkpoints", keep=2).steps() == [result["steps"]]
    assert metrics(tmp_path)[-1]["step"] == result["steps"]
    assert "the same command goes on" in complained


def interrupted_after(step: int, output: Path, recipe: Recipe, name: str = "fare") -> None:
    """A run that this process stops by a signal to itself."""

    loader = MemoryLoader(recipe.run.batch_size, stop_at=step)
    objective = make_objective(name)
    result = make_trainer(output, recipe, objective=objective, loader=loader).run()
    assert result.interrupted
    assert result.steps == step


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fare", {"optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.9}}),
        ("fare", {"optimizer": {"name": "sgd", "lr": 1e-2}, "schedule": {"name": "constant"}}),
        ("qt_aft", {"attack": {"n_restarts": 2}, "run": {"accumulation": 2}}),
        ("hierarchical", {"optimizer": {"ema_decay": 0.5, "clip_grad_norm": 0.1}}),
        ("fare", {"optimizer": {"layer_decay": 1.5, "ema_decay": 0.5}}),  # proj comes first
        ("fare", {"run": {"precision": "bf16"}, "threat": {"norm": "L2", "eps": 0.5}}),
    ],
)
def test_every_kind_of_state_is_kept(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    recipe = make_recipe(**changes)
    wanted = make_objective(name)
    make_trainer(tmp_path / "whole", recipe, objective=wanted).run()
    interrupted_after(3, tmp_path / "broken", recipe, name)
    found = make_objective(name)
    result = make_trainer(tmp_path / "broken", recipe, objective=found).run()
    assert (result.steps, result.interrupted) == (6, False)
    start_from = weights(make_objective(name))
    for key, parameter in weights(wanted).items():
        torch.testing.assert_close(weights(found)[key], parameter, rtol=0, atol=0)
    assert any(not torch.equal(weights(wanted)[key], start_from[key]) for key in start_from)
    assert checkpoint_bytes(tmp_path / "broken", 6) == checkpoint_bytes(tmp_path / "whole", 6)


def test_random_numbers_of_the_loss_go_on(tmp_path: Path) -> None:
    """Patch dropout draws from torch's own generator."""
    from robustzs_training.objectives import Fare

    from tests.training.tiny_models import make_adapter

    def dropping() -> Fare:
        from open_clip.transformer import PatchDropout

        adapter = make_adapter()
        adapter.visual.patch_dropout = PatchDropout(0.5)
        return Fare(adapter)

    recipe = make_recipe()
    wanted, found = dropping(), dropping()
    make_trainer(tmp_path / "whole", recipe, objective=wanted).run()

    class Killed(Exception):
        pass

    class Dying(MemoryLoader):
        def epoch(self, epoch: int, *, skip: int = 0) -> Any:
            for place, examples in enumerate(super().epoch(epoch, skip=skip), start=skip):
                if place == 3:
                    raise Killed
                yield examples

    with pytest.raises(Killed):
        make_trainer(tmp_path / "broken", recipe, objective=dropping(), loader=Dying(4)).run()
    torch.manual_seed(99)
    make_trainer(tmp_path / "broken", recipe, objective=found).run()
    for key, parameter in weights(wanted).items():
        torch.testing.assert_close(weights(found)[key], parameter, rtol=0, atol=0)


def test_a_finished_run_gives_its_weights_again(tmp_path: Path) -> None:
    recipe = make_recipe(optimizer={"ema_decay": 0.9})
    first, second = make_objective(), make_objective()
    done = make_trainer(tmp_path, recipe, objective=first).run()
    before = metrics(tmp_path)
    again = make_trainer(tmp_path, recipe, objective=second).run()
    assert (again.steps, again.images_per_second, again.checkpoint) == (6, 0.0, done.checkpoint)
    assert again.final_terms == done.final_terms
    assert metrics(tmp_path) == before
    for key, parameter in weights(first).items():
        torch.testing.assert_close(weights(second)[key], parameter, rtol=0, atol=0)


def test_a_damaged_checkpoint_is_passed_over_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, found = make_objective(), make_objective()
    make_trainer(tmp_path / "whole", objective=wanted).run()
    interrupted_after(4, tmp_path / "broken", make_recipe())
    damaged = tmp_path / "broken" / "checkpoints" / "step-00000004" / "tensors.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    make_trainer(tmp_path / "broken", objective=found, progress=True).run()
    said = capsys.readouterr().err
    assert "damaged checkpoint, step-00000004" in said
    assert "going on from step 2 of 6" in said
    for key, parameter in weights(wanted).items():
        torch.testing.assert_close(weights(found)[key], parameter, rtol=0, atol=0)
    assert [line["step"] for line in metrics(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]


def test_a_disk_that_fills_up_costs_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(MemoryLoader):
        def epoch(self, epoch: int, *, skip: int = 0) -> Any:
            for place, examples in enumerate(super().epoch(epoch, skip=skip), start=skip):
                if place == 3:  # no file may grow beyond this: as good as full
                    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
                yield examples

    wanted, found = make_objective(), make_objective()
    make_trainer(tmp_path / "whole", objective=wanted).run()
    try:
        with pytest.raises(TrainingStateError, match="step 4 cannot be written") as raised:
            make_trainer(tmp_path / "broken", loader=Filling(4)).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "goes on from step 2" in raised.value.hint
    make_trainer(tmp_path / "broken", objective=found).run()
    assert checkpoint_bytes(tmp_path / "broken", 6) == checkpoint_bytes(tmp_path / "whole", 6)
    for key, parameter in weights(wanted).items():
        torch.testing.assert_close(weights(found)[key], parameter, rtol=0, atol=0)


def test_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    interrupted_after(2, tmp_path, make_recipe())
    other = make_recipe(optimizer={"lr": 5e-4}, run={"seed": 3})
    with pytest.raises(TrainingStateError) as raised:
        make_trainer(tmp_path, other).run()
    assert "optimizer.lr: 0.001 there, 0.0005 here" in raised.value.message
    assert "run.seed: 0 there, 3 here" in raised.value.message
    assert str(tmp_path) in raised.value.message


def test_what_does_not_change_the_result_may_change(tmp_path: Path) -> None:
    interrupted_after(2, tmp_path, make_recipe())
    changed = make_recipe(
        run={"log_every": 3, "checkpoint_every": 100, "keep_checkpoints": 1},
        data={"path": "elsewhere", "n_workers": 2},
    )
    assert make_trainer(tmp_path, changed).run().steps == 6


def test_other_data_or_another_model_are_refused(tmp_path: Path) -> None:
    interrupted_after(2, tmp_path, make_recipe())
    with pytest.raises(TrainingStateError, match="data digest"):
        make_trainer(tmp_path, loader=MemoryLoader(4, seed=6)).run()
    with pytest.raises(TrainingStateError, match="weights before training"):
        make_trainer(tmp_path, objective=make_objective("fare-cnn")).run()


def test_checkpoints_of_nobody_are_not_touched(tmp_path: Path) -> None:
    interrupted_after(2, tmp_path, make_recipe())
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(PreflightError, match=r"no readable provenance\.json"):
        make_trainer(tmp_path).run()


@pytest.mark.slow
def test_two_runs_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    running = start(tmp_path, "fare", schedule={"steps": 500}, options={"pause": 0.05})
    try:
        wait_for_step(running, tmp_path, 1)
        with pytest.raises(PreflightError, match="another process"):
            make_trainer(tmp_path).run()
    finally:
        running.kill()
        running.communicate()
