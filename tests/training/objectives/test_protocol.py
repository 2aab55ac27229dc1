"""What every objective promises to the loop, whatever its equation."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.objectives import Batch, Fare, LossTerms, Objective, PmgAft, TgaZsr
from robustzs_training.objectives.base import need
from torch.nn import functional as F

from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, ThreatModel
from tests.training.objectives.two_processes import LABELS, NAMES, build
from tests.training.tiny_models import make_adapter, make_pixels, make_tokens

THREAT = ThreatModel.parse("4/255")
ATTACK = AttackConfig(n_steps=4, step_size=1 / 255, momentum=0.9)
HIERARCHICAL = ("hierarchical", "hierarchical_images_only", "forest", "qt_aft_hierarchical")


def batch_of(objective: Objective) -> Batch:
    return objective.prepare(
        Batch(
            pixels=make_pixels(len(LABELS)),
            labels=torch.tensor(LABELS),
            caption_ids=make_tokens(len(LABELS), seed=3),
        )
    )


def clean_inputs(batch: Batch, found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: batch.pixels if name == "pixels" else torch.zeros_like(x) for name, x in found.items()
    }


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_attack_raises_its_loss_inside_the_ball_and_leaves_no_trace(name: str) -> None:
    objective = build(name).float()
    before = copy.deepcopy(objective.state_dict())
    batch = batch_of(objective)
    found = objective.perturb(batch, THREAT, ATTACK)
    with torch.no_grad():
        clean = objective.attack_loss(batch, clean_inputs(batch, found))
        attacked = objective.attack_loss(batch, found)
    assert float(attacked) > float(clean)
    assert float((found["pixels"].double() - batch.pixels.double()).abs().max()) <= THREAT.eps
    assert ("prompts" in found) == (name in HIERARCHICAL and name != "hierarchical_images_only")
    assert objective.training
    assert all(p.grad is None for p in objective.parameters())
    after = objective.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(x.requires_grad for x in found.values())


def test_what_trains_is_what_it_says_and_gets_a_gradient(name: str) -> None:
    objective = build(name).float()
    batch = batch_of(objective)
    objective(batch, objective.perturb(batch, THREAT, ATTACK)).total.backward()
    trainable = objective.trainable()
    asked = {id(p) for p in objective.parameters() if p.requires_grad}
    assert asked == {id(p) for p in trainable.values()}
    assert all(p.grad is not None for p in trainable.values())
    names = {key.split(".")[1] for key in trainable if key.startswith("model.")}
    assert names == ({"visual", "text_projection"} if name in HIERARCHICAL else {"visual"})
    scales = [key for key in trainable if not key.startswith("model.")]
    assert bool(scales) == (name == "qt_aft" or name in HIERARCHICAL)
    in_model = dict(objective.model.model.named_parameters())
    assert all(
        in_model[key.removeprefix("model.")] is p
        for key, p in trainable.items()
        if key.startswith("model.")
    )


def test_training_lowers_the_loss_of_what_was_attacked(name: str) -> None:
    objective = build(name).float()
    batch = batch_of(objective)
    found = objective.perturb(batch, THREAT, ATTACK)
    optimizer = torch.optim.AdamW(objective.trainable().values(), lr=2e-4)
    totals = []
    for _ in range(8):
        terms = objective(batch, found)
        totals.append(terms.total.item())
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        objective.clamp_()
    assert totals[-1] < 0.99 * totals[0]
    assert all(not value.requires_grad for value in terms.terms.values())


def test_autocast_changes_little_and_logits_not_at_all(name: str) -> None:
    objective = build(name).float()
    batch = batch_of(objective)
    found = objective.perturb(batch, THREAT, ATTACK)
    with torch.no_grad():
        plain = objective(batch, found).total
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = objective(batch_of(objective), found).total
    assert cast.dtype == torch.float32
    assert float(cast) == pytest.approx(float(plain), rel=0.15, abs=0.05)


def test_a_copy_is_independent(name: str) -> None:
    """As an exponential moving average needs it."""
    objective = build(name).float()
    twin = copy.deepcopy(objective)
    batch = batch_of(objective)
    inputs = {"pixels": batch.pixels}
    with torch.no_grad():
        before = twin(batch, inputs).total
        for parameter in objective.trainable().values():
            parameter.add_(0.1)
        assert torch.equal(twin(batch, inputs).total, before)
    assert set(twin.trainable()) == set(objective.trainable())
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in objective.parameters()}


@pytest.mark.parametrize("kind", ["fare", "pmg", "tga"])
def test_the_frozen_reference_never_moves(kind: str) -> None:
    model = make_adapter("cnn")
    classes = model.class_features(make_tokens(7)[:, None])
    makers = {"fare": lambda: Fare(model), "pmg": lambda: PmgAft(model, classes)}
    objective = (makers.get(kind) or (lambda: TgaZsr(model, classes)))()
    objective.train()
    before = {key: value.clone() for key, value in objective.reference.state_dict().items()}
    statistics = {
        key: value.clone() for key, value in model.state_dict().items() if "running" in key
    }
    batch = objective.prepare(Batch(pixels=make_pixels(3, 96), labels=torch.tensor([0, 1, 2])))
    objective(batch, objective.perturb(batch, THREAT, ATTACK)).total.backward()
    torch.optim.SGD(objective.trainable().values(), lr=0.1).step()
    assert all(torch.equal(before[k], v) for k, v in objective.reference.state_dict().items())
    state = model.state_dict()
    assert statistics
    assert all(torch.equal(value, state[key]) for key, value in statistics.items())
    assert not objective.reference.training


def test_thirty_lines_are_enough_for_a_new_objective() -> None:
    """The example of docs/objectives.md."""

    class LabelSmoothedTecoa(Objective):
        classes: torch.Tensor

        def __init__(self, model: ClipAdapter, classes: torch.Tensor) -> None:
            super().__init__(model)
            self.register_buffer("classes", classes)
            self.select_trainable_()

        def attack_loss(self, batch: Batch, perturbed: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return self.loss(batch, perturbed).total

        def loss(self, batch: Batch, perturbed: Mapping[str, torch.Tensor]) -> LossTerms:
            features = self.model.image_features(perturbed["pixels"], normalize=True)
            logits = self.model.logit_scale * features @ self.classes.T
            labels = need(batch.labels, "labels")
            return LossTerms.of(ce=F.cross_entropy(logits, labels, label_smoothing=0.1))

    model = make_adapter()
    objective = LabelSmoothedTecoa(model, model.class_features(make_tokens(7)[:, None])).train()
    batch = batch_of(objective)
    objective(batch, objective.perturb(batch, THREAT, ATTACK)).total.backward()
    assert set(objective.trainable()) == {f"model.{key}" for key in model.visual_parameters()}
    with pytest.raises(UsageError, match="labels"):
        objective.loss(Batch(pixels=batch.pixels), {"pixels": batch.pixels})
