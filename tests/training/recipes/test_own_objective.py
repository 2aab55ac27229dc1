"""An objective that a program brings: the example, whole, with a tiny model."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from robustzs_training.assemble import Clock, Place, assemble
from robustzs_training.command import run_train
from robustzs_training.recipe_files import check_recipe
from robustzs_training.request import TrainRequest
from torch import device

from robustzs.errors import RecipeError, TrainingStateError
from tests.training.recipes.small_worlds import tiny_overrides, write_pictures

EXAMPLE = Path(__file__).parents[3] / "examples" / "new_objective.py"


@pytest.fixture
def changes(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    return (
        *tiny_overrides(tmp_path),
        "data.source=folder",
        f"data.path={pictures}",
        "data.augment.image_size=null",
        "run.trackers=[]",
        "schedule.steps=2",
        f"evaluate.path={pictures}",
        "evaluate.n_steps=2",
        "export.enabled=false",
    )


def start(changes, output, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(output), *changes])
    return runpy.run_path(str(EXAMPLE), run_name="__main__")["Trades"]


def test_the_example_trains_and_its_run_says_with_what(tmp_path, changes, monkeypatch, capsys):
    start(changes, tmp_path / "out", monkeypatch)
    assert "robust_accuracy" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["objective"] == {"name": "__main__.Trades"}
    assert {"ce", "kl"} <= set(summary["final"])
    assert summary["steps"] == 2


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), ([], 2)])
def test_asked_how_it_is_used_the_example_says_so_and_makes_nothing(
    arguments, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert stopped.value.code == code
    captured = capsys.readouterr()
    assert "usage: new_objective.py" in captured.out + captured.err
    assert not list(tmp_path.iterdir())


def test_what_it_left_does_not_go_on_without_the_class(tmp_path, changes, monkeypatch):
    start(changes, tmp_path / "out", monkeypatch)
    document = yaml.safe_load((tmp_path / "out" / "run" / "recipe.yaml").read_text())
    assert document["own_objective"] == "__main__.Trades"
    with pytest.raises(RecipeError, match=r"trained with __main__\.Trades"):
        assemble(check_recipe(document), Place(device=device("cpu")), clock=Clock())
    request = TrainRequest(
        recipe="quickstart", output=tmp_path / "out", changes=(*changes, "objective.name=fare")
    )
    with pytest.raises(TrainingStateError, match="own_objective"):
        run_train(request, say=lambda line: None)


def test_the_page_on_training_shows_the_example():
    page = (EXAMPLE.parents[1] / "docs" / "training.md").read_text("utf-8")
    assert EXAMPLE.read_text("utf-8").split('"""', 2)[2].strip() in page
