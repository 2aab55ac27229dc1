"""Folders that people point `robustzs train` at: their own images, and what they keep elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from robustzs_training.assemble import Clock, Place, assemble
from robustzs_training.command import run_train
from robustzs_training.evaluation.heldout import heldout_of
from robustzs_training.plan import make_plan
from robustzs_training.request import TrainRequest
from torch import device

from robustzs.errors import TrainingStateError, UsageError
from tests.training.recipes.small_worlds import NAMES, tiny_overrides, write_pictures


@pytest.fixture
def photos(tmp_path):
    write_pictures(tmp_path / "photos" / "train")
    write_pictures(tmp_path / "photos" / "val", per_class=1)
    return tmp_path / "photos"


def quickstart(folder, data, **more):
    changes = (
        *tiny_overrides(folder),
        "data.augment.image_size=null",
        "run.trackers=[]",
        "evaluate.n_steps=2",
        "export.enabled=false",
    )
    return TrainRequest(
        recipe="quickstart", output=folder / "out", data=str(data), changes=changes, steps=1, **more
    )


def test_the_page_s_first_folder_needs_no_caption_table(tmp_path, photos):
    recipe = quickstart(tmp_path, photos).resolve()
    shop = assemble(recipe, Place(device=device("cpu")), clock=Clock())
    captions = {shop.data.caption_of(i) for i in range(len(shop.data))}
    shop.loader.close()
    assert len(captions) == len(NAMES)
    assert any("tabby cat" in str(text) for text in captions)


@pytest.mark.parametrize("given", [".", "train"])
def test_the_split_beside_is_what_is_measured_on(tmp_path, photos, given):
    summary = run_train(quickstart(tmp_path, photos / given), say=lambda line: None).summary
    assert summary is not None
    assert summary["before"]["n"] == len(NAMES)
    assert summary["protocol"]["pictures"].startswith(str(photos / "val"))


def test_without_a_split_nothing_is_held_out(tmp_path, photos):
    recipe = quickstart(tmp_path, photos / "val").resolve()
    assert recipe.evaluate is not None
    from robustzs.images.config import PreprocessConfig

    config = PreprocessConfig(image_size=(32, 32))
    assert heldout_of(recipe.evaluate, recipe.data, config, cache=tmp_path / "cache") is None


def test_a_folder_called_run_that_is_somebody_else_s_stays(tmp_path, photos):
    thesis = tmp_path / "out" / "run" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    for resume in (True, False):
        with pytest.raises(UsageError, match="holds run and no run"):
            run_train(quickstart(tmp_path, photos, resume=resume), say=lambda line: None)
    assert thesis.read_text() == "years of work"


def test_starting_over_leaves_a_run_alone_that_is_under_way(tmp_path, photos):
    def start(*, resume):
        return run_train(quickstart(tmp_path, photos, resume=resume), say=lambda line: None)

    start(resume=True)
    metrics = Path(tmp_path / "out" / "run" / "metrics.jsonl")
    before = metrics.read_text()
    with (
        FileLock(tmp_path / "out" / "run" / ".lock"),
        pytest.raises(TrainingStateError, match="another process"),
    ):
        start(resume=False)
    assert metrics.read_text() == before
    assert not start(resume=False).was_finished


@pytest.mark.parametrize("batch_size", [len(NAMES), 3 * len(NAMES)])
def test_a_plan_tells_when_a_batch_must_repeat_its_captions(tmp_path, photos, batch_size):
    request = quickstart(tmp_path, photos, evaluate=False)
    changes = (*request.changes, f"run.batch_size={batch_size}")
    plan = make_plan(replace(request, changes=changes), say=lambda line: None)
    titles = [title.strip() for title, _ in plan.lines]
    assert ("repeated" in titles) == (batch_size > 2 * len(NAMES))
