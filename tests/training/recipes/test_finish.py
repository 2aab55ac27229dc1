"""How a bundle comes to stand beside the files of its run."""

from __future__ import annotations

import os
import shutil

import pytest
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import adapter_of, load_model
from robustzs_training.finish import calibration_note, geometry_of, put_in_place, templates_of
from robustzs_training.objectives import Fare
from robustzs_training.recipe import ModelPart
from robustzs_training.recipe_files import load_recipe

from robustzs.bundle.store import Bundle
from robustzs.errors import BundleManifestError, BundleWriteError
from tests.training.recipes.small_worlds import write_tiny


@pytest.fixture
def run_folder(tmp_path):
    out = tmp_path / "out"
    (out / "run" / "checkpoints").mkdir(parents=True)
    (out / "run" / "metrics.jsonl").write_text("{}\n")
    return out


def aside(bundle, out):
    return shutil.copytree(bundle, out / "run" / "bundle")


def test_a_bundle_stands_beside_the_run(tiny_bundle, run_folder):
    placed = put_in_place(aside(tiny_bundle, run_folder), run_folder)
    assert placed.digest == Bundle.load(tiny_bundle).digest
    assert placed.path == run_folder
    assert (run_folder / "run" / "metrics.jsonl").exists()
    assert not (run_folder / "run" / "bundle").exists()


def test_an_older_bundle_leaves_nothing_behind(tiny_bundle, run_folder):
    put_in_place(aside(tiny_bundle, run_folder), run_folder)
    record = Bundle.load(run_folder).manifest.files
    stray = run_folder / "notes.txt"
    stray.write_text("mine")
    again = put_in_place(aside(tiny_bundle, run_folder), run_folder)
    found = {path.name for path in run_folder.iterdir()}
    assert found == {*record, "bundle.json", "run", "notes.txt"}
    assert again.digest == Bundle.load(tiny_bundle).digest


@pytest.mark.parametrize("fails_at", range(1, 4))
def test_wherever_it_is_interrupted_there_is_a_whole_bundle_or_none(
    tiny_bundle, run_folder, monkeypatch, fails_at
):
    put_in_place(aside(tiny_bundle, run_folder), run_folder)
    folder = aside(tiny_bundle, run_folder)
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(BundleWriteError, match="No space left"):
        put_in_place(folder, run_folder)
    with pytest.raises(BundleManifestError, match=r"no readable bundle\.json"):
        Bundle.load(run_folder)


def test_what_is_no_longer_calibrated_is_said():
    source = load_source(SourceRequest(model="robustzs-lite-clean"))
    note = calibration_note(source, Fare(adapter_of(source)))
    assert "theta, low confidence, rejection no longer hold" in note
    assert f"temperature {source.manifest.temperature:g} is that of robustzs-lite-clean" in note
    recipe = load_recipe("fare", ["model.source=robustzs-lite-clean", "model.pretrained=null"])
    assert templates_of(recipe, source) == source.manifest.templates


def test_a_model_without_a_record_starts_plain(tmp_path):
    source = load_model(ModelPart(source=write_tiny(tmp_path), pretrained="random"))
    objective = Fare(adapter_of(source))
    assert geometry_of(objective) is None
    assert "temperature is 1" in calibration_note(source, objective)
    assert templates_of(load_recipe("fare"), source) == "single"
    assert templates_of(load_recipe("fare", ["export.templates=paper"]), source) == "paper"
