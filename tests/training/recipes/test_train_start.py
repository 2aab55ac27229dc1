"""A run that goes on from another run's bundle, held to what that one was held to."""

from __future__ import annotations

import pytest
import torch
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import (
    adapter_of,
    build_objective,
    load_model,
    start_from,
    tokenizer_for,
)
from robustzs_training.finish import write_bundle
from robustzs_training.recipe_files import load_recipe

from robustzs.bundle.store import Bundle
from robustzs.cli.main import main
from robustzs.errors import RecipeError, RobustZSError
from tests.training.recipes.small_worlds import tiny_overrides, write_pictures


def world(folder, *changes):
    recipe = load_recipe("fare", [*tiny_overrides(folder), *changes])
    source = load_model(recipe.model)
    model = adapter_of(source)
    objective, _ = build_objective(recipe, model, tokenizer_for(source), None)
    return recipe, source, model, objective


def test_the_tower_goes_on_and_what_is_frozen_stays_the_source_s(tmp_path):
    recipe, source, model, objective = world(tmp_path)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.01)
    trained = {name: tensor.clone() for name, tensor in model.visual.state_dict().items()}
    (tmp_path / "first").mkdir()
    write_bundle(recipe, source, objective, tmp_path / "first", steps=1, training={})

    _, untouched, again, held = world(tmp_path)
    original = {n: t.clone() for n, t in adapter_of(untouched).visual.state_dict().items()}
    start_from(again, str(tmp_path / "first"))
    for name, tensor in again.visual.state_dict().items():
        torch.testing.assert_close(tensor, trained[name])
    for name, tensor in held.reference.visual.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    assert all(parameter.requires_grad for parameter in again.visual_parameters().values())
    stored = load_source(SourceRequest(model=str(tmp_path / "first")))
    assert torch.equal(stored.model.logit_scale, again.model.logit_scale)


def test_a_bundle_says_what_its_run_went_on_from(tmp_path):
    recipe, source, _, objective = world(tmp_path)
    first, out = tmp_path / "first", tmp_path / "out"
    first.mkdir()
    write_bundle(recipe, source, objective, first, steps=1, training={"steps": 1})
    changes = [
        *tiny_overrides(tmp_path),
        f"model.start={first}",
        f"data.path={write_pictures(tmp_path / 'pictures')}",
        "data.source=folder",
        "data.augment.image_size=null",
        "run.trackers=[]",
        "evaluate=null",
    ]
    sets = [part for change in changes for part in ("--set", change)]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--recipe", "fare", "-o", str(out), "--steps", "2", *sets])
    assert not stopped.value.code
    record = Bundle.load(out).manifest.training
    assert record is not None
    assert record["started_from"] == {"name": "fare", "training": {"steps": 1}}
    assert "| Went on from | fare |" in (out / "README.md").read_text("utf-8")


def test_a_start_that_is_no_bundle_is_refused(tmp_path):
    _, _, model, _ = world(tmp_path)
    with pytest.raises(RobustZSError):
        start_from(model, str(tmp_path / "nowhere"))


def test_a_bundle_of_another_tower_is_refused(tmp_path):
    _, _, model, _ = world(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.visual.state_dict().items()}
    with pytest.raises(RecipeError, match="another image tower"):
        start_from(model, "robustzs-lite-clean")
    assert all(torch.equal(before[n], t) for n, t in model.visual.state_dict().items())


def test_a_start_is_a_setting_and_none_is_what_it_was_before_there_were_any(tmp_path):
    plain = load_recipe("fare", tiny_overrides(tmp_path))
    other = load_recipe("fare", [*tiny_overrides(tmp_path), "model.start=mine"])
    assert "start" not in plain.decisive()["model"]
    assert other.decisive()["model"]["start"] == "mine"
    assert plain.digest != other.digest
