"""What people see of a run: lines, a bar, metrics.jsonl, TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from robustzs_training.loop.provenance import git_revision
from robustzs_training.loop.report import MetricsFile, describe
from robustzs_training.recipe import Recipe

from tests.training.loop.small_runs import make_objective, make_recipe, make_trainer, metrics

REPOSITORY = Path(__file__).parents[3]


def test_lines_where_nobody_watches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(run={"log_every": 4})
    make_trainer(tmp_path, recipe, objective=make_objective("tecoa"), progress=True).run()
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/6", "4/6", "6/6"]
    for name in ("loss", "clean", "adversarial", "lr", "images/s", "left"):
        assert name in lines[-1]
    assert [line["step"] for line in metrics(tmp_path)] == [1, 4, 6]


def test_silence_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, progress=False).run()
    assert capsys.readouterr() == ("", "")
    assert len(metrics(tmp_path)) == 6


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.training.loop.small_runs", str(tmp_path), "tecoa"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "160"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(mine, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
        assert running.wait(60) == 0
    os.close(mine)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert "6/6" in text
    assert re.search(r"loss \d.*clean \d+%.*adversarial \d+%.*images/s", text)


def test_levels_are_told_as_margins_and_not_one_by_one() -> None:
    text = describe({
        "epoch": 1.0, "loss": 2.0, "contrast": 1.5, "ce_level_0": 1.0, "margin_level_0": -0.25,
        "ce_level_1": 1.0, "margin_level_1": 1.5, "clean_accuracy": 0.75, "learning_rate": 1e-5,
        "images_per_second": 3.25, "seconds": 1.0, "grad_norm": 1.0,
    })  # fmt: skip
    assert text == (
        "loss 2  margins from the leaves up -0.25 1.5  contrast 1.5  clean 75%  lr 1e-05  "
        "3.25 images/s"
    )


def test_a_resumed_file_of_numbers_has_no_step_twice(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.resume(0)
    for step in range(1, 6):
        file.append({"step": step, "loss": 0.5, "grad_norm": float("inf")})
    with file.path.open("a") as raw:
        raw.write('{"step": 6, "lo')
    file.resume(3)
    file.append({"step": 4, "loss": 0.25})
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] == 0.25
    assert lines[0]["grad_norm"] is None


def test_tensorboard_has_every_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_recipe(run={"trackers": ["tensorboard"]})
    make_trainer(tmp_path, recipe, objective=make_objective("tecoa")).run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = metrics(tmp_path)
    assert set(events.Tags()["scalars"]) == lines[0].keys() - {"step"}
    found = events.Scalars("loss")
    assert [event.step for event in found] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found] == pytest.approx([line["loss"] for line in lines])


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path) -> None:
    """In a process of its own, without a network."""
    settings = json.dumps({"run": {"batch_size": 4, "precision": "fp32", "trackers": ["wandb"]}})
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.loop.small_runs", str(tmp_path), "fare", settings],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    run_id = json.loads((tmp_path / "provenance.json").read_text())["run_id"]
    assert run_id in file.name
    content = file.read_bytes()
    assert b"grad_norm" in content
    assert b"learning_rate" in content


def test_provenance_tells_what_the_weights_come_from(tmp_path: Path) -> None:
    recipe = make_recipe(optimizer={"ema_decay": 0.9})
    make_trainer(tmp_path, recipe).run()
    document: dict[str, Any] = json.loads((tmp_path / "provenance.json").read_text())
    assert document["note"] == "a test"
    assert document["seed"] == 0
    assert len(document["identity"]["data_digest"]) == 64
    (start,) = document["starts"]
    assert {"python", "torch", "open_clip_torch", "robustzs"} <= start["versions"].keys()
    assert start["hardware"]["memory_gib"] > 0
    assert start["command"] == sys.argv
    assert os.uname().nodename not in json.dumps(start["hardware"])
    again = Recipe.model_validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    assert again == recipe


def test_the_revision_is_that_of_this_code_alone(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:
        import robustzs_training.loop.provenance as module

        found = git_revision(Path(module.__file__).parent)
        assert found is not None
        assert found.removesuffix("-dirty") == head.stdout.strip()
