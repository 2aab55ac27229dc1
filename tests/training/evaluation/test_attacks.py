"""Attacks by name: exact answers, bounds, independence of batch and order, several right labels."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from robustzs_training.evaluation.attacks import ATTACKS, build_attack
from robustzs_training.evaluation.attacks.view import (
    GAP,
    factors_of,
    judge,
    starting_points,
)

from robustzs.errors import UntrustworthyResultError
from robustzs.threat import ThreatModel
from tests.training.evaluation.small_victims import (
    CLASSES,
    L2,
    LINF,
    exactly_robust,
    linear,
    made,
    net,
    net_victim,
    pictures,
    predicted,
    victim,
)

NAMES = sorted(ATTACKS)
WHITE = ("apgd-ce", "apgd-dlr", "apgd-t", "autoattack")
THREATS = pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
N = 24


# ---- known answers -------------------------------------------------------------------------------


@THREATS
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("name", WHITE)
def test_a_linear_model_has_exactly_its_robust_accuracy(
    name: str, threat: ThreatModel, classes: int
) -> None:
    margin = 2.0 * threat.eps * (1100.0 if threat.norm == "Linf" else 40.0)
    weight, found, pixels = linear(3, classes, margin=margin)
    right = predicted(found, pixels)
    stands, slack = exactly_robust(weight, pixels, right, threat)
    proposal = made(name, threat, n_steps=40)(found, pixels, right, range(len(pixels)))
    clear = slack.abs() > 0.01 * margin
    assert torch.equal(~proposal.broken[clear], stands[clear])
    assert 0.1 < float(stands.double().mean()) < 0.9
    assert int(clear.sum()) >= 35


@pytest.mark.parametrize("name", [*WHITE, "pgd", "cw", "fab-t"])
def test_a_model_that_is_not_robust_reaches_zero(name: str) -> None:
    found, pixels = net_victim(5), pictures(N)
    scaled = victim(lambda x: found.logits_of(0.5 + 8.0 * (x - 0.5)))
    proposal = made(name, LINF, n_steps=20)(
        scaled, pixels, predicted(scaled, pixels), range(len(pixels))
    )
    assert bool(proposal.broken.all())


def test_it_is_the_packages_own_attack_bit_for_bit() -> None:
    model, pixels = net(4), pictures(N)
    found = victim(model)
    right = predicted(found, pixels)
    labels = right.int().argmax(dim=1)
    seen: list[torch.Tensor] = []

    def recorded(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach().clone())
        return model(x)

    threat = ThreatModel(eps=0.1 / 255.0)  # nothing breaks, so no image is left out
    attack = build_attack("apgd-ce", threat, n_steps=10, rescale=False)
    proposal = attack(victim(recorded), pixels, right, range(N))
    assert not bool(proposal.broken.any())
    ours = seen[1:]
    seen.clear()
    plain = APGDAttack(recorded, n_iter=10, norm="Linf", eps=threat.eps, loss="ce")
    plain.init_hyperparam(pixels)
    starts = starting_points(pixels, threat, 0, list(range(N)))
    plain.attack_single_run(pixels, labels, x_init=starts)
    assert len(ours) == len(seen) == 11
    assert all(torch.equal(one, other) for one, other in zip(ours, seen, strict=True))


@pytest.mark.parametrize("name", ["apgd-dlr", "apgd-t"])
def test_ratio_losses_are_the_packages(name: str) -> None:
    from robustzs_training.evaluation.attacks.engine import Apgd

    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9) % 7
    targets = (labels + 3) % 7
    loss = {"apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}[name]
    ours = Apgd(net(), LINF, 5, loss, torch.device("cpu"), targets=targets)
    package = APGDAttack_targeted(net(), eps=LINF.eps)
    package.y_target = targets
    wanted = package.dlr_loss if name == "apgd-dlr" else package.dlr_loss_targeted
    assert torch.equal(ours.ce_loss_targeted(logits, labels), wanted(logits, labels))


# ---- every attack --------------------------------------------------------------------------------


@THREATS
@pytest.mark.parametrize("name", NAMES)
def test_perturbed_images_are_within_reach_and_judged_as_deployed(
    name: str, threat: ThreatModel
) -> None:
    found, pixels = net_victim(0), pictures(N)
    right = predicted(found, pixels)
    proposal = made(name, threat)(found, pixels, right, range(N))
    assert proposal.adversarial.dtype == torch.float32
    delta = (proposal.adversarial.double() - pixels.double()).flatten(1)
    sizes = delta.abs().amax(dim=1) if threat.norm == "Linf" else delta.norm(dim=1)
    assert float(sizes.max()) <= threat.eps + 1e-6
    assert 0.0 <= float(proposal.adversarial.min()) <= float(proposal.adversarial.max()) <= 1.0
    stands = judge(found.logits_of(proposal.adversarial), right)
    assert torch.equal(~stands[proposal.broken], torch.ones(int(proposal.broken.sum())).bool())
    assert [bool(by) for by in proposal.broken_by] == proposal.broken.tolist()


@THREATS
@pytest.mark.parametrize("name", NAMES)
def test_neither_batch_nor_order_decides(name: str, threat: ThreatModel) -> None:
    found, pixels = net_victim(1), pictures(N, seed=2)
    right = predicted(found, pixels)
    right[::3, :2] = True
    attack = made(name, threat)
    state = torch.random.get_rng_state()
    whole = attack(found, pixels, right, range(N)).broken
    assert torch.equal(state, torch.random.get_rng_state())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    parts = torch.zeros(N, dtype=torch.bool)
    for places in order.split(7):
        parts[places] = attack(found, pixels[places], right[places], places.tolist()).broken
    assert torch.equal(whole, parts)


def test_the_seed_and_the_row_decide() -> None:
    pixels = pictures(2)
    first = starting_points(pixels[:1].expand(3, -1, -1, -1), LINF, 0, [0, 0, 1])
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    other = starting_points(pixels[:1], LINF, 1, [0])
    again = starting_points(pixels[:1], LINF, 0, [0], run=1)
    assert not torch.equal(first[:1], other)
    assert not torch.equal(first[:1], again)


def test_broken_images_are_not_shown_again() -> None:
    model, pixels = net(5), pictures(N)
    found = victim(lambda x: model(0.5 + 3.0 * (x - 0.5)))
    right = predicted(found, pixels)
    shown = 0

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal shown
        shown += len(x)
        return found.logits_of(x)

    attack = build_attack("apgd-ce", LINF, n_steps=20)
    proposal = attack(victim(counted), pixels, right, range(N))
    assert int(proposal.broken.sum()) > 0
    assert shown < 0.6 * N * 22


def test_images_that_are_wrong_before_are_left_alone() -> None:
    found, pixels = net_victim(0), pictures(6)
    right = ~predicted(found, pixels)
    proposal = made("autoattack", LINF)(found, pixels, right, range(6))
    assert bool(proposal.broken.all())
    assert torch.equal(proposal.adversarial, pixels)


def test_images_for_which_everything_is_right_stand() -> None:
    found, pixels = net_victim(0), pictures(6)
    right = torch.ones(6, CLASSES, dtype=torch.bool)
    for name in NAMES:
        assert not bool(made(name, LINF)(found, pixels, right, range(6)).broken.any()), name


def test_an_ensemble_is_its_members_in_sequence() -> None:
    found, pixels = net_victim(2), pictures(N, seed=4)
    right = predicted(found, pixels)
    threat = ThreatModel(eps=3.0 / 255.0)
    whole = made("autoattack", threat, ensemble="qt-aft")(found, pixels, right, range(N))
    single = [
        made(name, threat)(found, pixels, right, range(N)) for name in ("apgd-ce", "apgd-dlr")
    ]
    assert torch.equal(whole.broken, single[0].broken | single[1].broken)
    assert 0 < int(whole.broken.sum()) < N
    by_first = [by == "apgd-ce" for by in whole.broken_by]
    assert by_first == single[0].broken.tolist()


def test_what_ensembles_hold() -> None:
    names = {
        ensemble: [
            (member["attack"], member["n_steps"] if "n_steps" in member else member["n_queries"])
            for member in build_attack("autoattack", LINF, ensemble=ensemble).protocol["members"]
        ]
        for ensemble in ("fare", "qt-aft", "standard")
    }
    assert names == {
        "fare": [("apgd-ce", 100), ("apgd-t", 100)],
        "qt-aft": [("apgd-ce", 100), ("apgd-dlr", 100)],
        "standard": [("apgd-ce", 100), ("apgd-t", 100), ("fab-t", 100), ("square", 5000)],
    }
    fare = build_attack("autoattack", LINF, ensemble="fare").protocol
    assert [member["n_restarts"] for member in fare["members"]] == [5, 1]
    assert fare["members"][1]["n_targets"] == 9
    assert fare["with_two_labels"] == ["apgd-ce"]


def test_with_two_labels_published_ensembles_run_apgd_ce_alone() -> None:
    found, pixels = net_victim(0, classes=2), pictures(N)
    right = predicted(found, pixels)
    ensemble = build_attack("autoattack", LINF, n_steps=10, n_restarts=1, ensemble="fare")
    alone = build_attack("apgd-ce", LINF, n_steps=10)
    assert torch.equal(
        ensemble(found, pixels, right, range(N)).broken,
        alone(found, pixels, right, range(N)).broken,
    )


@pytest.mark.parametrize("name", NAMES)
def test_protocols_are_json_and_name_the_attack(name: str) -> None:
    import json

    attack = made(name, LINF)
    protocol = json.loads(json.dumps(dict(attack.protocol)))
    assert protocol["attack"] == attack.name == name
    assert protocol["eps"] == "8/255"
    assert protocol["seed"] == 0


# ---- scales --------------------------------------------------------------------------------------


def test_a_scale_of_the_logits_changes_no_verdict() -> None:
    model, pixels = net(0), pictures(N)
    verdicts = []
    for scale in (1e-3, 1.0, 1e5):
        found = victim(lambda x, scale=scale: scale * model(x))
        right = predicted(found, pixels)
        verdicts.append(made("apgd-ce", L2)(found, pixels, right, range(N)).broken)
    assert 0 < int(verdicts[0].sum()) < N
    assert torch.equal(verdicts[0], verdicts[1])
    assert torch.equal(verdicts[0], verdicts[2])
    assert torch.allclose(factors_of(torch.tensor([[0.0, 4.0]])), torch.tensor([GAP / 4.0]))


def test_a_huge_scale_is_refused_where_attacks_see_it() -> None:
    model, pixels = net(0), pictures(N)
    found = victim(lambda x: 1e6 * model(x))
    attack = made("apgd-ce", ThreatModel(eps=1.0 / 255.0), rescale=False)
    with pytest.raises(UntrustworthyResultError, match="gradient is zero"):
        attack(found, pixels, predicted(found, pixels), range(N))
