"""Checks refuse numbers of models whose gradients are masked, and pass those of plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.checks import (
    CheckReport,
    CheckResult,
    check_limit,
    check_mode,
    check_order,
    check_outcomes,
    check_perturbation,
    check_steps,
    check_victim,
)

from robustzs.cards.schema import Check
from robustzs.errors import EvaluationError, UntrustworthyResultError
from tests.training.evaluation.small_victims import (
    L2,
    LINF,
    linear,
    net,
    net_victim,
    pictures,
    predicted,
    victim,
)

N = 12


def _failed(found: Victim, **more: object) -> list[str]:
    pixels = pictures(N)
    right = predicted(found, pixels)
    report = check_victim(found, pixels, right, **more)  # type: ignore[arg-type]
    return [result.name for result in report.results if not result.passed]


# ---- plain models pass ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_plain_models_pass(scale: float) -> None:
    model = net(0)
    assert _failed(victim(lambda x: scale * model(x)), model=model) == []
    _, found, pixels = linear(2)
    report = check_victim(found, pixels, predicted(found, pixels))
    assert report.passed, report
    report.require()


def test_several_right_labels_pass() -> None:
    found, pixels = net_victim(1), pictures(N)
    right = predicted(found, pixels)
    right[:4, :3] = True
    right[4] = True
    assert check_victim(found, pixels, right).passed


def test_a_relu_network_passes() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 16, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(144, 5),
        )
    assert _failed(victim(model.eval())) == []


# ---- masked ones do not --------------------------------------------------------------------------


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels * 255.0).round() / 255.0

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient


def test_rounded_inputs_are_refused() -> None:
    model = net(0)
    rounded = victim(lambda x: model((x * 255.0).round() / 255.0))
    assert _failed(rounded) == ["gradient-not-zero"]
    straight = victim(lambda x: model(_StraightThrough.apply(x)))
    assert _failed(straight) == ["gradient-followed"]


def test_no_gradient_at_all_is_refused() -> None:
    model = net(0)
    assert _failed(victim(lambda x: model(x.detach()))) == ["gradient-not-zero"]


def test_a_gradient_of_another_model_is_refused() -> None:
    model, other = net(0), net(9)
    found = victim(lambda x: model(x.detach()) + other(x) - other(x).detach())
    assert "gradient-followed" in _failed(found)


def test_random_inputs_are_refused() -> None:
    model = net(0)
    generator = torch.Generator().manual_seed(0)
    found = victim(lambda x: model(x + 0.5 * torch.randn(x.shape, generator=generator)))
    failed = _failed(found)
    assert "repeatable" in failed
    assert "gradient-not-random" in failed


def test_probabilities_are_refused() -> None:
    model = net(0)
    assert "logits-not-probabilities" in _failed(victim(lambda x: model(x).softmax(dim=1)))
    assert "logits-not-probabilities" not in _failed(victim(lambda x: model(x).log_softmax(dim=1)))


def test_a_huge_scale_is_refused_where_attacks_see_it() -> None:
    model = net(0)
    found = victim(lambda x: 1e5 * model(x))
    assert _failed(found, rescale=False) == ["not-saturated"]
    assert _failed(found, rescale=True) == []


def test_a_saturated_model_is_refused() -> None:
    model = net(0)
    found = victim(lambda x: torch.tanh(1e4 * model(x)) + 0.01 * torch.arange(6.0))
    assert "gradient-not-zero" in _failed(found)


def test_modes_and_neighbours_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), net(0)).requires_grad_(False)
    model.train()
    assert not check_mode(model).passed
    assert "evaluation-mode" in _failed(victim(model), model=model)
    assert "independent-of-the-batch" in _failed(victim(model))
    with torch.no_grad():
        model.eval()(pictures(2))
    assert check_mode(model).passed
    assert "independent-of-the-batch" not in _failed(victim(model))


# ---- limits --------------------------------------------------------------------------------------


def test_the_limit_breaks_a_plain_model_and_not_a_blind_one() -> None:
    pixels = pictures(N)
    plain = net_victim(0)
    sharp = victim(lambda x: plain.logits_of(0.5 + 8.0 * (x - 0.5)))
    for found, claims in ((sharp, False), (plain, True)):
        right = predicted(found, pixels)
        result = check_limit(found, pixels, right, range(N), claims_robustness=claims)
        assert result.passed, result
        assert result.value == 0.0
    blind = victim(lambda x: plain.logits_of(pictures(1).expand_as(x) + 1e-4 * (x - 0.5)))
    for claims in (False, True):
        right = predicted(blind, pixels)
        result = check_limit(blind, pixels, right, range(N), claims_robustness=claims)
        assert not result.passed
        assert "8/255" in result.finding


def test_images_that_were_wrong_do_not_count_for_the_limit() -> None:
    found, pixels = net_victim(0), pictures(4)
    right = ~predicted(found, pixels)
    result = check_limit(found, pixels, right, range(4), claims_robustness=True)
    assert result.passed
    assert "0 of 0" in result.finding


# ---- outcomes ------------------------------------------------------------------------------------


def test_perturbations() -> None:
    pixels = pictures(3)
    for threat in (LINF, L2):
        assert check_perturbation(pixels, pixels, threat).value == 0.0
    assert check_perturbation(pixels, pixels + 8.0 / 255.0, LINF).passed
    too_far = check_perturbation(pixels, pixels + 9.0 / 255.0, LINF)
    assert not too_far.passed
    assert "allowed 0.0313725" in too_far.finding
    assert not check_perturbation(pixels, pixels + 8.0 / 255.0, L2).passed


def _verdicts(broken: range, n: int = 200) -> np.ndarray:
    stands = np.ones(n, dtype=bool)
    stands[list(broken)] = False
    return stands


def test_who_may_break_more() -> None:
    white = _verdicts(range(100))
    passing = {"square": _verdicts(range(40)), "features": _verdicts(range(97, 102))}
    report = check_outcomes({"apgd-ce": white, "pgd": _verdicts(range(200)), **passing})
    assert report.passed, report
    assert [result.name for result in report.results] == [
        "black-box-not-stronger",
        "transfer-not-stronger",
    ]
    # 6 images beyond the white-box attack are 3%, though it breaks far more in all.
    assert not check_outcomes({"apgd-t": white, "square": _verdicts(range(94, 106))}).passed
    # Nobody else broke anything: 8 against 0 is no noise.
    nothing = _verdicts(range(0), n=1000)
    few = _verdicts(range(8), n=1000)
    assert not check_outcomes({"apgd-ce": nothing, "square": few}).passed
    assert check_outcomes({"apgd-ce": few, "square": nothing}).passed
    # Two white-box attacks count together.
    both = {"apgd-ce": _verdicts(range(50)), "apgd-t": _verdicts(range(50, 100))}
    assert check_outcomes({**both, "square": _verdicts(range(40, 70))}).passed


def test_transfer_must_not_beat_the_direct_attack() -> None:
    direct, other = _verdicts(range(20)), _verdicts(range(60))
    report = check_outcomes(
        {"autoattack": direct, "fp32 -> int8": other}, transfers=["fp32 -> int8"]
    )
    assert [result.name for result in report.results] == ["transfer-not-stronger"]
    assert not report.passed
    with pytest.raises(UntrustworthyResultError, match="breaks 40 of 200 images"):
        report.require()
    assert check_outcomes({"square": direct}).results == ()


def test_more_steps_must_not_be_weaker() -> None:
    few, many = _verdicts(range(30)), _verdicts(range(80))
    assert check_steps(few, many, steps=(10, 100)).passed
    assert not check_steps(many, few, steps=(10, 100)).passed
    assert check_steps(many, many, steps=(10, 100)).passed


def test_verdicts_of_other_images_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="verdicts"):
        check_order(
            "x", _verdicts(range(1)), _verdicts(range(1), n=7), names=("a", "b"), remedy="c"
        )


def test_a_report_goes_onto_a_card_and_names_all_that_failed() -> None:
    good = CheckResult(
        name="good", passed=True, value=0.0, allowed="0", finding="0 found", reason="r", remedy="m"
    )
    bad = CheckResult(
        name="bad",
        passed=False,
        value=7.0,
        allowed="0",
        finding="7 found",
        reason="Why",
        remedy="do",
    )
    report = CheckReport((good,)) + CheckReport((bad, bad))
    cards = report.for_card()
    assert all(isinstance(card, Check) for card in cards)
    assert [card.passed for card in cards] == [True, False, False]
    assert cards[1].message == "7 found; allowed: 0. Why: do"
    with pytest.raises(
        UntrustworthyResultError, match=r"'bad' refuses: 7 found\. Why\. Also"
    ) as caught:
        report.require()
    assert caught.value.hint == "do"
