"""One step: what goes in, what precision does to it, what is measured on the way."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.loop.contract import split
from robustzs_training.loop.step import as_pixels
from robustzs_training.objectives import Batch, Fare, LossTerms

from robustzs.errors import TrainingError
from tests.training.loop.small_runs import (
    MemoryLoader,
    make_objective,
    make_recipe,
    make_trainer,
    metrics,
    to_batch,
    weights,
)
from tests.training.objectives.two_processes import NAMES
from tests.training.tiny_models import make_adapter


class Watching(Fare):
    """FARE that remembers what it was given."""

    def __init__(self, vision: str = "vit") -> None:
        super().__init__(make_adapter(vision))
        self.seen: list[tuple[Batch, Tensors, bool]] = []
        self.began: list[Batch] = []

    def begin_(self, batch: Batch) -> None:
        self.began.append(batch)

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        self.seen.append((batch, perturbed, self.model.visual.training))
        return super().loss(batch, perturbed)


def test_bytes_become_pixels_between_0_and_1() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    found = as_pixels(values, torch.device("cpu"), channels_last=True)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(
        found.numpy(), values.numpy().astype(np.float32) / np.float32(255)
    )
    ready = torch.rand(2, 3, 4, 4)
    assert torch.equal(as_pixels(ready, torch.device("cpu")), ready)


def test_a_share_is_cut_in_order() -> None:
    (examples,) = list(MemoryLoader(6, n=6).epoch(0))
    parts = split(examples, 3)
    assert [len(part) for part in parts] == [2, 2, 2]
    assert torch.equal(torch.cat([part.pixels for part in parts]), examples.pixels)
    assert torch.equal(torch.cat([p.labels for p in parts]), examples.labels)  # type: ignore[misc,arg-type]
    assert sum((part.keys for part in parts), ()) == examples.keys


def test_the_attack_stays_in_its_ball_and_the_layout_in_channels_last(tmp_path: Path) -> None:
    objective = Watching("cnn")
    recipe = make_recipe(schedule={"steps": 2})
    make_trainer(tmp_path, recipe, objective=objective, loader=MemoryLoader(4, size=32)).run()
    assert len(objective.seen) == 2
    for batch, perturbed, training in objective.seen:
        change = (perturbed["pixels"].double() - batch.pixels.double()).abs()
        assert 0.5 * recipe.threat.eps < float(change.max()) <= recipe.threat.eps
        assert perturbed["pixels"].is_contiguous(memory_format=torch.channels_last)
        assert not perturbed["pixels"].is_contiguous()
        assert training
    # Whoever exports it finds it as it was.
    assert not objective.training
    assert all(p.is_contiguous() for p in objective.parameters())


def test_the_first_batch_is_shown_once(tmp_path: Path) -> None:
    objective = Watching()
    make_trainer(tmp_path, objective=objective).run()
    assert len(objective.began) == 1
    assert torch.equal(objective.began[0].pixels, objective.seen[0][0].pixels)
    again = Watching()
    make_trainer(tmp_path, objective=again).run()
    assert again.began == []


def test_starting_points_change_from_step_to_step_and_with_the_seed(tmp_path: Path) -> None:
    def noise(folder: str, seed: int) -> list[torch.Tensor]:
        objective = Watching()
        recipe = make_recipe(attack={"n_steps": 0}, run={"seed": seed}, schedule={"steps": 2})
        make_trainer(tmp_path / folder, recipe, objective=objective).run()
        return [each["pixels"] - batch.pixels for batch, each, _ in objective.seen]

    first, same, other = noise("a", 0), noise("b", 0), noise("c", 1)
    assert torch.equal(first[0], same[0])
    assert torch.equal(first[1], same[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_accumulation_without_contrast_is_the_same_step(tmp_path: Path) -> None:
    """On the CPU a part's noise is the part of the whole's, for Linf."""
    whole, parts = make_objective().double(), make_objective().double()
    make_trainer(tmp_path / "a", make_recipe(), objective=whole).run()
    make_trainer(tmp_path / "b", make_recipe(run={"accumulation": 2}), objective=parts).run()
    for name, wanted in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], wanted, rtol=1e-6, atol=1e-7)
    losses = [[line["loss"] for line in metrics(tmp_path / each)] for each in "ab"]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_clipping_bounds_the_gradient_but_reports_it_whole(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 1.0, "weight_decay": 0.0}}
    changes["schedule"] = {"name": "constant", "warmup_steps": 0, "steps": 1}
    moved = {}
    for limit in (None, 1e-3):
        objective = make_objective()
        before = weights(objective)
        recipe = make_recipe(**{**changes, "optimizer": {**changes["optimizer"],
                                                         "clip_grad_norm": limit}})  # fmt: skip
        make_trainer(tmp_path / str(limit), recipe, objective=objective).run()
        change = [weights(objective)[name] - old for name, old in before.items()]
        moved[limit] = float(torch.linalg.vector_norm(torch.cat([c.flatten() for c in change])))
    norms = [metrics(tmp_path / str(limit))[0]["grad_norm"] for limit in (None, 1e-3)]
    assert norms[0] == norms[1] == pytest.approx(moved[None], rel=1e-4)
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_bf16_is_near_fp32_and_not_the_same(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = make_recipe(run={"precision": precision}, schedule={"steps": 3})
        objective = make_objective()
        make_trainer(tmp_path / precision, recipe, objective=objective).run()
        losses[precision] = [line["loss"] for line in metrics(tmp_path / precision)]
        assert all(p.dtype == torch.float32 for p in weights(objective).values())
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.1)


WITH_CHOICES = {
    "tecoa", "pmg_sum", "pmg_batchmean", "tga_zsr", "agft", "fare_kl", "qt_aft", "hierarchical",
    "hierarchical_images_only", "forest", "qt_aft_hierarchical",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_and_tells_its_accuracies(tmp_path: Path, name: str) -> None:
    objective = make_objective(name)
    before = weights(objective)
    make_trainer(tmp_path, make_recipe(schedule={"steps": 2}), objective=objective).run()
    lines = metrics(tmp_path)
    told = {"clean_accuracy", "adversarial_accuracy"} & lines[-1].keys()
    assert len(told) == (2 if name in WITH_CHOICES else 0)
    assert all(0.0 <= lines[-1][key] <= 1.0 for key in told)
    assert any(not torch.equal(before[key], value) for key, value in weights(objective).items())
    if "hierarchical" in name or name == "forest":
        assert {"margin_level_0", "feasible_margin_level_2"} <= lines[-1].keys()


def test_accuracies_are_those_of_the_scores() -> None:
    objective = make_objective("tecoa").eval()
    (examples,) = list(MemoryLoader(24).epoch(0))
    batch = to_batch(examples, torch.device("cpu"))
    pixels = as_pixels(batch.pixels, torch.device("cpu"))
    batch = Batch(pixels=pixels, labels=batch.labels)
    flipped = {"pixels": pixels.flip(3)}
    found = objective.accuracies(batch, flipped)
    assert batch.labels is not None
    with torch.no_grad():
        for name, seen in (("clean", pixels), ("adversarial", flipped["pixels"])):
            features = objective.model.image_features(seen, normalize=True)
            best = (features @ objective.classes.T).argmax(1)  # type: ignore[operator]
            assert float(found[name]) == pytest.approx(float((best == batch.labels).float().mean()))
    assert objective.accuracies(Batch(pixels=pixels), flipped) == {}


def test_running_out_of_memory_names_the_remedy(tmp_path: Path) -> None:
    class Greedy(Fare):
        def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
            torch.empty(1 << 50)
            return super().loss(batch, perturbed)

    with pytest.raises(TrainingError, match="out of memory") as raised:
        make_trainer(tmp_path, objective=Greedy(make_adapter())).run()
    assert "run.batch_size" in raised.value.hint
    assert "run.accumulation" in raised.value.hint


def test_a_loader_of_another_size_or_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gave 2 images where 4 were due"):
        make_trainer(tmp_path / "a", loader=MemoryLoader(2)).run()
    with pytest.raises(TrainingError, match="fills no batch of 4 images"):
        make_trainer(tmp_path / "b", loader=MemoryLoader(4, n=3)).run()


@pytest.mark.slow
def test_a_compiled_tower_trains_alike(tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        recipe = make_recipe(run={"compile": compiled}, schedule={"steps": 3})
        objective = make_objective("qt_aft")
        make_trainer(tmp_path / str(compiled), recipe, objective=objective).run()
        losses[compiled] = [line["loss"] for line in metrics(tmp_path / str(compiled))]
        assert objective.model.visual._compiled_call_impl is None
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-3)


def test_a_finished_run_keeps_neither_gradients_nor_optimiser(tmp_path: Path) -> None:
    """They are thrice as large as what trains, and measuring and exporting come next."""
    objective = make_objective("qt_aft")
    trainer = make_trainer(tmp_path, objective=objective)
    trainer.run()
    gc.collect()
    assert all(parameter.grad is None for parameter in objective.parameters())
    own = {id(parameter) for parameter in objective.parameters()}
    kept = [
        each
        for each in gc.get_objects()
        if issubclass(type(each), torch.optim.Optimizer)
        and any(id(p) in own for group in each.param_groups for p in group["params"])
    ]
    assert kept == []
