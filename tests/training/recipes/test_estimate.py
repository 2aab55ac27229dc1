"""What a plan says of measuring and export is counted as they count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from robustzs_training.assemble import Clock, Place, Workshop, assemble
from robustzs_training.estimate import export_seconds, time_measuring
from robustzs_training.evaluation.apgd import FEWEST_LOOKS, apgd_ce, looks_at_standing
from robustzs_training.recipe_files import load_recipe

from robustzs.threat import ThreatModel
from tests.training.recipes.small_worlds import NAMES, tiny_overrides, write_pictures


@pytest.mark.parametrize("n_iter", [1, 2, 5, 20])
@pytest.mark.parametrize("stands", [True, False])
def test_looks_are_those_that_the_attack_takes(n_iter: int, stands: bool) -> None:
    looks = 0

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal looks
        looks += pixels.requires_grad
        mean = pixels.flatten(1).mean(dim=1)
        return torch.stack([mean, torch.full_like(mean, 0.1 if stands else 0.24)], dim=1)

    pixels = torch.full((3, 3, 8, 8), 0.25)
    labels = torch.zeros(3, dtype=torch.int64)
    outcome = apgd_ce(logits_of, pixels, labels, threat=ThreatModel(eps=8 / 255), n_iter=n_iter)
    assert outcome.clean_correct.all()
    assert bool(outcome.robust_correct.all()) is stands
    if stands:
        assert looks == looks_at_standing(n_iter)
    else:
        assert looks <= FEWEST_LOOKS


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    write_pictures(tmp_path / "photos" / "train")
    write_pictures(tmp_path / "photos" / "val", per_class=2)
    changes = [
        *tiny_overrides(tmp_path),
        f"data.path={tmp_path / 'photos'}",
        "data.source=folder",
        "data.n_workers=0",
        "evaluate.batch_size=6",
        "evaluate.n_images=null",
        "evaluate.n_steps=5",
    ]
    recipe = load_recipe("tecoa", changes)
    return assemble(recipe, Place(device=torch.device("cpu")), clock=Clock())


def test_measuring_is_timed_on_a_batch_and_drawn_out_to_all(shop: Workshop) -> None:
    before = {name: value.clone() for name, value in shop.source.model.state_dict().items()}
    asked = {name: p.requires_grad for name, p in shop.source.model.named_parameters()}
    found = time_measuring(shop)
    assert found is not None
    assert (found.n, found.n_tried) == (2 * len(NAMES), 6)
    assert found.n_looks == looks_at_standing(5) == 3 + 6 + 6
    assert found.look_seconds > 0.0
    least = found.n * found.fraction_right * (3 + 15) * found.look_seconds / found.n_tried
    assert found.seconds >= least
    assert {name: p.requires_grad for name, p in shop.source.model.named_parameters()} == asked
    for name, value in shop.source.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in shop.source.model.parameters())


def test_a_broken_picture_in_the_batch_is_no_reason_to_have_no_plan(shop: Workshop) -> None:
    for path in (Path(str(shop.recipe.data.path)) / "val" / NAMES[0]).iterdir():
        path.write_bytes(b"torn")
    found = time_measuring(shop)
    assert found is not None
    assert found.n_tried < 6


def test_an_export_takes_longer_for_a_larger_model(shop: Workshop) -> None:
    seconds = export_seconds(shop)
    assert seconds is not None
    assert 0.1 < seconds < 60.0
    shop.source.model.extra = torch.nn.Linear(5000, 5000)
    assert (export_seconds(shop) or 0.0) > seconds
