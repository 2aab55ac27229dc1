"""APGD-CE against models whose exact robust accuracy is known, and against broken ones."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from robustzs_training.evaluation import apgd
from robustzs_training.evaluation.apgd import apgd_ce
from robustzs_training.evaluation.attacks.view import starting_points

from robustzs.errors import UntrustworthyResultError, UsageError
from robustzs.threat import ThreatModel

N, SIDE = 60, 4
LINF = ThreatModel(eps=8.0 / 255.0)
L2 = ThreatModel(norm="L2", eps=0.2)


def _linear(seed: int = 0, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, pixels away from the bounds, and labels that are mostly right."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 3 * SIDE * SIDE, generator=generator)
    pixels = 0.3 + 0.4 * torch.rand(N, 3, SIDE, SIDE, generator=generator)
    labels = (pixels.flatten(1) @ weight.T).argmax(dim=1)
    labels[::7] = 1 - labels[::7]
    return weight, pixels, labels


def _logits_of(weight: torch.Tensor) -> apgd.LogitsOf:
    return lambda pixels: pixels.flatten(1) @ weight.T


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_a_linear_model_has_exactly_its_margin(threat: ThreatModel) -> None:
    weight, pixels, labels = _linear()
    difference = weight[0] - weight[1]
    sign = 1.0 - 2.0 * labels.double()
    margin = sign * (pixels.flatten(1).double() @ difference.double())
    dual = difference.abs().sum() if threat.norm == "Linf" else difference.norm()
    reach = threat.eps * float(dual)
    clear = (margin - reach).abs() > 1e-3 * reach
    outcome = apgd_ce(_logits_of(weight), pixels, labels, threat=threat, batch_size=7)
    assert torch.equal(outcome.clean_correct, margin > 0)
    assert torch.equal(outcome.robust_correct[clear], (margin > reach)[clear])
    assert 0.0 < outcome.robust_accuracy < outcome.clean_accuracy < 1.0


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_perturbed_images_are_within_reach_and_wrong(threat: ThreatModel) -> None:
    weight, pixels, labels = _linear(1)
    outcome = apgd_ce(_logits_of(weight), pixels, labels, threat=threat, keep_adversarial=True)
    assert outcome.adversarial is not None
    delta = (outcome.adversarial - pixels).flatten(1)
    size = delta.abs().amax(dim=1) if threat.norm == "Linf" else delta.norm(dim=1)
    assert float(size.max()) <= threat.eps + 1e-6
    broken = outcome.clean_correct & ~outcome.robust_correct
    right = (outcome.adversarial.flatten(1) @ weight.T).argmax(dim=1) == labels
    assert bool(broken.any())
    assert not bool(right[broken].any())
    assert torch.equal(outcome.adversarial[~broken], pixels[~broken])


def _net(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3),
            torch.nn.Tanh(),
            torch.nn.Flatten(),
            torch.nn.Linear(32, 5),
        )
    return net.eval().requires_grad_(False)


def test_giving_up_broken_images_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _net()
    _, pixels, _ = _linear(2)
    labels = net(pixels).argmax(dim=1)
    threat = ThreatModel(eps=0.05)
    short = apgd_ce(net, pixels, labels, threat=threat)
    monkeypatch.setattr(apgd, "_LOOKS", ())
    full = apgd_ce(net, pixels, labels, threat=threat)
    assert 0.1 < short.robust_accuracy < 0.9
    assert torch.equal(short.robust_correct, full.robust_correct)


def test_verdicts_depend_neither_on_batch_nor_on_neighbours() -> None:
    net = _net()
    _, pixels, _ = _linear(3)
    labels = net(pixels).argmax(dim=1)
    threat = ThreatModel(eps=0.05)
    one = apgd_ce(net, pixels, labels, threat=threat, batch_size=60)
    other = apgd_ce(net, pixels, labels, threat=threat, batch_size=11)
    assert torch.equal(one.robust_correct, other.robust_correct)
    # An image keeps its noise when those after it are left away; the factor is the first ones'.
    before = torch.random.get_rng_state()
    fewer = apgd_ce(net, pixels[:40], labels[:40], threat=threat)
    assert torch.equal(before, torch.random.get_rng_state())
    assert int((fewer.robust_correct != one.robust_correct[:40]).sum()) <= 1


def test_it_is_the_packages_own_attack() -> None:
    """Same start, same scale: the verdicts of ``APGDAttack.attack_single_run`` as it is."""
    net = _net(4)
    _, pixels, _ = _linear(4)
    labels = net(pixels).argmax(dim=1)
    outcome = apgd_ce(net, pixels, labels, threat=LINF, n_iter=20, batch_size=N)
    plain = APGDAttack(
        lambda x: outcome.logit_factor * net(x), n_iter=20, norm="Linf", eps=LINF.eps, loss="ce"
    )
    plain.init_hyperparam(pixels)
    starts = starting_points(pixels, LINF, 0, list(range(N)))
    _, still_right, _, _ = plain.attack_single_run(pixels, labels, x_init=starts)
    assert torch.equal(outcome.robust_correct, still_right.bool())


def test_a_scale_of_the_logits_changes_no_verdict() -> None:
    weight, pixels, labels = _linear(5)
    wide = ThreatModel(eps=32.0 / 255.0)
    small = apgd_ce(lambda x: 1e-4 * x.flatten(1) @ weight.T, pixels, labels, threat=wide)
    large = apgd_ce(lambda x: 1e4 * x.flatten(1) @ weight.T, pixels, labels, threat=wide)
    assert torch.equal(small.robust_correct, large.robust_correct)
    assert large.robust_accuracy < large.clean_accuracy


@pytest.mark.filterwarnings("ignore:.*autocast.*")
def test_autocast_around_it_does_not_reach_the_model() -> None:
    net = _net()
    _, pixels, _ = _linear()
    seen: set[torch.dtype] = set()

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        logits = net(x)
        seen.add(logits.dtype)
        return logits

    with torch.autocast("cpu", dtype=torch.bfloat16):
        apgd_ce(logits_of, pixels, net(pixels).argmax(dim=1), threat=LINF, n_iter=3)
    assert seen == {torch.float32}


def _refused(logits_of: apgd.LogitsOf, text: str) -> None:
    _, pixels, _ = _linear()
    with torch.no_grad():
        labels = logits_of(pixels).argmax(dim=1)
    with pytest.raises(UntrustworthyResultError, match=text):
        apgd_ce(logits_of, pixels, labels, threat=LINF)


def test_masked_gradients_are_refused() -> None:
    weight, _, _ = _linear()
    _refused(lambda x: ((x * 16.0).round() / 16.0).flatten(1) @ weight.T, "gradient is zero")


def test_logits_without_gradients_are_refused() -> None:
    weight, _, _ = _linear()
    _refused(lambda x: x.detach().flatten(1) @ weight.T, "differentiably")


def test_logits_that_are_not_finite_are_refused() -> None:
    weight, _, _ = _linear()
    _refused(lambda x: (x.flatten(1) @ weight.T) / 0.0, "not finite")


def test_equal_logits_are_refused() -> None:
    _refused(lambda x: x.flatten(1)[:, :1].expand(-1, 3), "all logits are equal")


@pytest.mark.parametrize(
    ("pixels", "labels", "text"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), "float6"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64), "at least one"),
        (torch.full((2, 3, 4, 4), 2.0), torch.zeros(2, dtype=torch.int64), "span 2 to 2"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, dtype=torch.int64), "labels"),
    ],
)
def test_wrong_inputs_are_refused(pixels: torch.Tensor, labels: torch.Tensor, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        apgd_ce(lambda x: x.flatten(1), pixels, labels, threat=LINF)
    assert text in f"{caught.value} {caught.value.hint}"
