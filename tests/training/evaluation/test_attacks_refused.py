"""Attacks guided by other texts, and what attacks refuse."""

from __future__ import annotations

import pytest
import torch
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.attacks.view import check_bounds
from robustzs_training.evaluation.base import Victim

from robustzs.errors import EvaluationError, UntrustworthyResultError, UsageError
from robustzs.threat import ThreatModel
from tests.training.evaluation.small_victims import (
    L2,
    LINF,
    made,
    net,
    net_victim,
    pictures,
    predicted,
    victim,
)

N = 24


# ---- other texts ---------------------------------------------------------------------------------


def test_images_without_a_caption_are_not_attacked() -> None:
    found, pixels = net_victim(0), pictures(4)
    right = predicted(found, pixels)
    captions = ["a cat", "", "a dog", ""]
    attack = build_attack("captions", LINF, n_steps=5, captions=captions)
    proposal = attack(found, pixels, right, range(4))
    changed = (proposal.adversarial != pixels).flatten(1).any(dim=1)
    assert changed.tolist() == [True, False, True, False]


def test_captions_move_an_image_away_from_its_own() -> None:
    found, pixels = net_victim(0), pictures(8)
    captions = [f"picture number {i}" for i in range(8)]
    attack = build_attack("captions", LINF, n_steps=10, captions=captions)
    proposal = attack(found, pixels, predicted(found, pixels), range(8))
    logits = found.logits_for(captions)
    places = torch.arange(8)
    before = logits(pixels).log_softmax(dim=1)[places, places]
    after = logits(proposal.adversarial).log_softmax(dim=1)[places, places]
    assert bool((after < before).all())


def test_features_move_away_from_the_clean_ones() -> None:
    found, pixels = net_victim(0), pictures(8)
    right = predicted(found, pixels)
    sizes = []
    for n_steps in (1, 20):
        proposal = made("features", LINF, n_steps=n_steps)(found, pixels, right, range(8))
        moved = found.image_features_of(proposal.adversarial) - found.image_features_of(pixels)
        sizes.append(moved.square().sum(dim=1))
    assert bool((sizes[1] > sizes[0]).all())


# ---- refusals ------------------------------------------------------------------------------------


def _refused(found: Victim, name: str, text: str) -> None:
    pixels = pictures(6)
    with pytest.raises(UntrustworthyResultError, match=text):
        made(name, LINF)(found, pixels, predicted(found, pixels), range(6))


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "pgd", "cw"])
def test_masked_gradients_are_refused(name: str) -> None:
    model = net(0)
    _refused(victim(lambda x: model((x * 32.0).round() / 32.0)), name, "gradient is zero")


@pytest.mark.parametrize("name", ["apgd-ce", "pgd", "cw"])
def test_logits_without_gradients_are_refused(name: str) -> None:
    model = net(0)
    _refused(victim(lambda x: model(x.detach())), name, "differentiably")


def test_square_needs_no_gradients() -> None:
    model, pixels = net(0), pictures(N)
    found = victim(lambda x: model((x * 255.0).round() / 255.0).detach())
    right = predicted(found, pixels)
    threat = ThreatModel(eps=24.0 / 255.0)
    proposal = made("square", threat)(found, pixels, right, range(N))
    assert int(proposal.broken.sum()) > 0


def test_infinite_and_half_logits_are_refused() -> None:
    model = net(0)
    _refused(victim(lambda x: model(x) / 0.0), "apgd-ce", "not finite")
    _refused(victim(lambda x: model(x).bfloat16()), "apgd-ce", "bfloat16")
    _refused(victim(lambda x: 0.0 * model(x)), "apgd-ce", "all logits are equal")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"name": "deepfool"}, "unknown attack 'deepfool'"),
        ({"n_steps": 0}, "n_steps is 0"),
        ({"n_restarts": 0}, "n_restarts is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"n_queries": 0}, "n_queries is 0"),
        ({"threat": ThreatModel(eps=0.0)}, "radius of 0"),
        ({"name": "autoattack", "ensemble": "rand"}, "unknown ensemble 'rand'"),
        ({"name": "captions"}, "robustzs caption"),
        ({"name": "prompts"}, "another prompt for each label"),
    ],
)
def test_wrong_options_are_refused(more: dict[str, object], text: str) -> None:
    options: dict[str, object] = {"name": "apgd-ce", "threat": LINF, **more}
    with pytest.raises(UsageError, match=text):
        build_attack(**options)  # type: ignore[arg-type]


def test_wrong_inputs_are_refused() -> None:
    found, pixels = net_victim(0), pictures(3)
    right = predicted(found, pixels)
    attack = made("apgd-ce", LINF)
    with pytest.raises(UsageError, match="right is"):
        attack(found, pixels, right[:, :2], range(3))
    with pytest.raises(UsageError, match="right is"):
        attack(found, pixels, right, range(2))
    with pytest.raises(UsageError, match="1 images without a right label"):
        attack(found, pixels, right & torch.tensor([[True], [True], [False]]), range(3))
    with pytest.raises(UsageError, match="span"):
        attack(found, pixels * 255.0, right, range(3))
    with pytest.raises(UsageError, match="row 500 has no caption"):
        made("captions", LINF)(found, pixels, right, [0, 1, 500])
    with pytest.raises(UsageError, match="Square in L2"):
        made("square", L2)(found, pixels[..., :8, :8], right, range(3))


def test_a_perturbation_out_of_bounds_is_refused() -> None:
    pixels = pictures(2)
    with pytest.raises(EvaluationError, match=r"allowed 0\.0313725"):
        check_bounds(pixels, pixels + 0.04, LINF)
    with pytest.raises(EvaluationError, match="outside"):
        check_bounds(pixels, pixels - pixels.amin() - 0.001, ThreatModel(eps=1.0))
