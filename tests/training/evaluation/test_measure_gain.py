"""Held-out pictures and the comparison of two models on them, with a tiny model."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from robustzs_training.adapter import ClipAdapter
from robustzs_training.data import openmoji
from robustzs_training.evaluation import HeldOut, compare, heldout_of, measure
from robustzs_training.evaluation.heldout import read_pictures
from robustzs_training.recipe import DataPart, EvaluatePart

from robustzs.errors import DataError, EvaluationError
from robustzs.images.config import PreprocessConfig
from robustzs.labels.templates import TemplateSet
from tests.training.tiny_models import make_adapter, tokenize

CONFIG = PreprocessConfig(image_size=(16, 16))
PART = EvaluatePart(n_steps=5, batch_size=8)
BARE = TemplateSet("bare", ("{}",))
FOLDER = DataPart(source="folder", path="/nowhere")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten pictures: dark and bright, with a coloured side each."""
    generator = np.random.default_rng(0)
    for place, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(10):
            values = generator.integers(0, 120, (40, 48, 3)) + 130 * place
            values[:, : 4 * number, number % 3] = 255
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def _heldout(folder: Path, **changes: object) -> HeldOut:
    part = PART.model_copy(update={"path": str(folder), **changes})
    found = heldout_of(part, FOLDER, CONFIG, cache=folder)
    assert found is not None
    return found


def test_a_labelled_folder_is_what_is_measured_on(folder: Path) -> None:
    heldout = _heldout(folder)
    assert len(heldout) == 20
    assert heldout.classes.names == ("cat", "dog")
    assert heldout.labels.tolist() == [0] * 10 + [1] * 10
    assert heldout.pixels.shape == (20, 3, 16, 16)
    assert heldout.pixels[:10].mean() < heldout.pixels[10:].mean()
    assert "trained on is for its owner to know" in heldout.source


def test_a_subset_is_seeded(folder: Path) -> None:
    first, again = _heldout(folder, n_images=6), _heldout(folder, n_images=6)
    assert first.keys == again.keys
    assert first.digest == again.digest != _heldout(folder).digest
    part = PART.model_copy(update={"path": str(folder), "n_images": 6})
    other = heldout_of(part, FOLDER, CONFIG, cache=folder, seed=1)
    assert other is not None
    assert other.keys != first.keys


def test_data_that_hold_nothing_out_are_not_measured(tmp_path: Path) -> None:
    assert heldout_of(PART, FOLDER, CONFIG, cache=tmp_path) is None


def test_openmoji_holds_pictures_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmoji, "HELD_OUT_SIZE", 32)
    found = heldout_of(PART, DataPart(source="openmoji"), CONFIG, cache=tmp_path)
    assert found is not None
    assert len(found) >= 200
    assert "none of these concepts trained on" in found.source
    assert sorted(set(found.labels.tolist())) == list(range(len(found.classes)))


def test_unreadable_pictures_are_told(folder: Path) -> None:
    (folder / "cat" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="1 of 20 pictures cannot be used"):
        _heldout(folder)


def test_pictures_without_classes_are_refused(folder: Path) -> None:
    from robustzs_training.data.folders import open_folder

    with pytest.raises(DataError, match="without classes"):
        read_pictures(open_folder(folder / "cat"), CONFIG, text="")


# ---- before and after ----------------------------------------------------------------------------


@pytest.fixture
def model() -> ClipAdapter:
    return make_adapter()


def test_before_and_after_are_compared_image_by_image(folder: Path, model: ClipAdapter) -> None:
    heldout, templates = _heldout(folder), BARE
    before = measure(model, tokenize, heldout, PART, templates)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.visual_parameters().values():
            parameter.mul_(1.0 + 0.5 * torch.rand_like(parameter))
    after = measure(changed, tokenize, heldout, PART, templates)
    found = compare(before, after)
    for name, outcome in (("before", before.outcome), ("after", after.outcome)):
        for kind in ("clean", "robust"):
            share = float(getattr(outcome, f"{kind}_correct").double().mean())
            assert found[name][f"{kind}_accuracy"] == pytest.approx(share, abs=1e-6)
            low, high = found[name][f"{kind}_interval"]
            assert 0.0 <= low <= found[name][f"{kind}_accuracy"] <= high <= 1.0
    gain = found["gain"]
    difference = found["after"]["robust_accuracy"] - found["before"]["robust_accuracy"]
    assert gain["robust_accuracy"] == pytest.approx(difference, abs=2e-6)
    assert gain["interval"][0] <= gain["robust_accuracy"] <= gain["interval"][1]
    protocol = found["protocol"]
    assert protocol["eps"] == "1/255"
    assert protocol["n_steps"] == 5
    assert protocol["n"] == 20
    assert len(protocol["logit_factors"]) == 2


def test_measuring_leaves_the_model_as_it_was(folder: Path, model: ClipAdapter) -> None:
    model.train()
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = measure(model, tokenize, _heldout(folder), PART, BARE)
    assert model.training
    assert flags == {name: p.requires_grad for name, p in model.named_parameters()}
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    again = measure(model, tokenize, _heldout(folder), PART, BARE)
    assert torch.equal(first.outcome.robust_correct, again.outcome.robust_correct)
    model.eval()


def test_other_pictures_or_settings_are_not_compared(folder: Path, model: ClipAdapter) -> None:
    templates = BARE
    one = measure(model, tokenize, _heldout(folder), PART, templates)
    fewer = measure(model, tokenize, _heldout(folder, n_images=6), PART, templates)
    with pytest.raises(EvaluationError, match="pictures_digest"):
        compare(one, fewer)
    longer = PART.model_copy(update={"n_steps": 6})
    other = measure(model, tokenize, _heldout(folder), longer, templates)
    with pytest.raises(EvaluationError, match="differ in n_steps"):
        compare(one, other)
