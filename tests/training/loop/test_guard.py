"""Runs that go wrong stop with a report, and with the weights of the last good step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.loop.guard import MAX_SKIPPED, Guard
from robustzs_training.objectives import Batch, Fare, LossTerms

from robustzs.errors import DivergenceError
from tests.training.loop.small_runs import make_recipe, make_trainer, metrics, weights
from tests.training.tiny_models import make_adapter

NAN, INFINITY = float("nan"), float("inf")


class _BrokenGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * NAN


class Breaking(Fare):
    """FARE until a given step, then as told."""

    def __init__(self, model: ClipAdapter, how: str, at: int) -> None:
        super().__init__(model)
        self.how, self.at, self.step = how, at, 0
        self.before: dict[str, torch.Tensor] = {}

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        terms = super().loss(batch, perturbed)
        self.step += 1
        if self.step < self.at:
            return terms
        self.before = weights(self)
        total = {
            "nan": terms.total * NAN,
            "gradient": _BrokenGradient.apply(terms.total),
            "spike": terms.total * 1e4,
        }[self.how]
        return LossTerms(total=total, terms=terms.terms)


@pytest.mark.parametrize(
    ("how", "at", "reason"),
    [
        ("nan", 4, "the loss is nan"),
        ("gradient", 4, "norm of the gradient is nan"),
        ("spike", 25, "times its running average"),
    ],
)
def test_a_diverged_run_stops_and_reports(tmp_path: Path, how: str, at: int, reason: str) -> None:
    objective = Breaking(make_adapter(), how, at)
    recipe = make_recipe(schedule={"steps": 30}, run={"checkpoint_every": 2})
    trainer = make_trainer(tmp_path, recipe, objective=objective)
    with pytest.raises(DivergenceError, match=reason) as raised:
        trainer.run()
    assert f"at step {at}" in raised.value.message
    assert str(tmp_path / "divergence.json") in raised.value.hint
    report = json.loads((tmp_path / "divergence.json").read_text())
    assert report["step"] == at - 1
    assert reason in report["reason"]
    assert set(report["terms"]) == {"l2"}
    assert len(report["keys"]) == 4
    assert all(key.startswith("image-") for key in report["keys"])
    assert report["learning_rate"] > 0
    assert report["advice"]
    # No optimiser step was taken, and no gradient stands in for the broken one.
    for name, parameter in objective.trainable().items():
        torch.testing.assert_close(parameter, objective.before[name], rtol=0, atol=0)
        assert parameter.grad is None
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, at))


def test_a_run_that_goes_well_leaves_no_report(tmp_path: Path) -> None:
    result = make_trainer(tmp_path).run()
    assert result.steps == 6
    assert not (tmp_path / "divergence.json").exists()


def test_the_average_forgets_and_is_unbiased_from_the_start() -> None:
    guard = Guard(20.0, scaled=False)
    assert guard.average is None
    guard.passed(3.0)
    assert guard.average == pytest.approx(3.0)
    for _ in range(500):
        guard.passed(1.0)
    assert guard.average == pytest.approx(1.0, abs=1e-3)
    assert guard.problem(19.0, 1.0) is None
    assert "20 times" in str(guard.problem(21.0, 1.0))


def test_early_losses_are_not_compared() -> None:
    early = Guard(2.0, scaled=False)
    early.passed(1.0)
    assert early.problem(100.0, 1.0) is None


def cosines(n_steps: int, *, seed: int = 0) -> list[float]:
    """Losses as Sim-CLIP has them: from about 0 down to -0.9, with noise of 0.01."""
    rng = np.random.default_rng(seed)
    falling = -0.9 * (1.0 - np.exp(-np.arange(n_steps) / 20.0))
    return (falling + rng.normal(0.0, 0.01, n_steps)).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_cosine_loss_that_goes_well_is_let_pass(seed: int) -> None:
    guard = Guard(20.0, scaled=False)
    for loss in cosines(600, seed=seed):
        assert guard.problem(loss, 1.0) is None
        guard.passed(loss)
    assert guard.is_signed
    assert guard.average == pytest.approx(-0.9, abs=0.01)
    assert guard.spread == pytest.approx(0.008, abs=0.003)  # of normal noise: 0.8 deviations


def test_a_cosine_loss_that_jumps_is_stopped() -> None:
    guard = Guard(20.0, scaled=False)
    for loss in cosines(600):
        guard.passed(loss)
    assert guard.problem(-0.8, 1.0) is None
    assert "above its running average of -0.9" in str(guard.problem(0.0, 1.0))
    again = Guard(20.0, scaled=False)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again.problem(0.0, 1.0) == guard.problem(0.0, 1.0)
    assert again.problem(-0.8, 1.0) is None


def test_a_loss_that_crosses_zero_is_not_measured_by_it() -> None:
    guard = Guard(20.0, scaled=False)
    for step in range(100):
        guard.passed(0.5 if step % 2 else -0.499)
    assert abs(guard.average or 1.0) < 0.05
    assert guard.problem(5.0, 1.0) is None  # ten times the usual
    assert guard.problem(15.0, 1.0) is not None


def test_equal_losses_are_no_measure_of_spread() -> None:
    constant, zero = Guard(20.0, scaled=False), Guard(20.0, scaled=False)
    for _ in range(50):
        constant.passed(-1.0)
        zero.passed(0.0)
    assert constant.problem(-0.9, 1.0) is None  # a tenth is ten hundredths of the average
    assert constant.problem(0.0, 1.0) is not None
    assert zero.problem(1e9, 1.0) is None  # nothing to compare with


def test_overflows_of_a_scaled_loss_are_normal_up_to_a_limit() -> None:
    guard = Guard(20.0, scaled=True)
    for _ in range(MAX_SKIPPED):
        assert guard.problem(1.0, INFINITY) is None
    again = Guard(20.0, scaled=True)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert "in a row" in str(again.problem(1.0, INFINITY))
    guard.passed(1.0)
    assert guard.problem(1.0, INFINITY) is None
