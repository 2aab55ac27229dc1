"""Rounding to bytes stays in the ball and is told what it undid."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.base import Proposal, Victim
from robustzs_training.evaluation.deployed import EightBitAttack, from_grid, search_grid, to_grid
from robustzs_training.evaluation.deployed.grid import project

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from tests.training.evaluation.small_victims import SIDE, net_victim, pictures, predicted


def some_pixels(seed: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)


@given(seed=st.integers(0, 10_000), eps=st.floats(1 / 255, 1.0), far=st.floats(0.0, 2.0))
def test_bytes_never_leave_the_ball_around_an_8_bit_image(
    seed: int, eps: float, far: float
) -> None:
    clean = some_pixels(seed)
    draw = np.random.default_rng(seed + 1)
    wanted = from_grid(clean) + far * eps * torch.from_numpy(draw.uniform(-1, 1, clean.shape))
    found = to_grid(wanted.clamp(0.0, 1.0).float(), from_grid(clean), eps)
    moved = np.abs(found.astype(int) - clean.astype(int)).max()
    # one of the floor of eps in 255ths, in exact numbers but for the slack of float32
    assert moved <= int(Fraction(eps) * 255 + Fraction(1, 1000))


@given(seed=st.integers(0, 10_000), eps=st.floats(1 / 255, 0.3))
def test_bytes_stay_in_the_ball_of_an_image_between_bytes(seed: int, eps: float) -> None:
    draw = np.random.default_rng(seed)
    clean = torch.from_numpy(draw.random((2, 3, 4, 4), dtype=np.float32))
    wanted = (clean + 2.0 * eps * torch.from_numpy(draw.uniform(-1, 1, clean.shape))).clamp(0, 1)
    found = from_grid(to_grid(wanted, clean, eps))
    assert float((found - clean).abs().max()) <= eps + 1e-5


@given(seed=st.integers(0, 10_000), eps=st.floats(0.005, 2.0))
def test_l2_balls_are_kept_too(seed: int, eps: float) -> None:
    clean = from_grid(some_pixels(seed)).double()
    delta = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal(clean.shape))
    delta = eps * delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    found = torch.from_numpy(to_grid((clean + delta).clamp(0.0, 1.0), clean, eps, norm="L2"))
    size = (found.double() / 255 - clean).flatten(1).norm(dim=1)
    assert float(size.max()) <= eps + 1e-6


def test_what_is_a_byte_already_stays() -> None:
    clean = some_pixels(3)
    shifted = np.clip(clean.astype(int) + 2, 0, 255).astype(np.uint8)
    found = to_grid(from_grid(shifted), from_grid(clean), 2 / 255)
    assert np.array_equal(found, shifted)


def test_an_empty_ball_is_refused() -> None:
    clean = torch.full((1, 3, 2, 2), 10.5 / 255)
    with pytest.raises(UsageError, match="no whole 255th"):
        to_grid(clean, clean, 0.2 / 255)
    with pytest.raises(UsageError, match="clean ones"):
        to_grid(clean, clean[:, :1], 0.2)


THREAT = ThreatModel(eps=3.0 / 255.0)


@settings(max_examples=5)
@given(seed=st.integers(0, 50))
def test_an_attack_that_sees_rounding_breaks_in_bytes_what_it_broke(seed: int) -> None:
    victim, clean = net_victim(seed), pictures(8, seed=seed + 1)
    right = predicted(victim, clean)
    inner = build_attack("apgd-ce", THREAT, n_steps=10, seed=seed)
    attack = EightBitAttack(attack=inner, threat=THREAT, seed=seed)
    found, report = attack.reported(victim, clean, right, range(8))
    assert report.n_broken == report.n_nearest == int(found.broken.sum())
    steps = (found.adversarial - clean) * 255
    assert float((steps - steps.round()).abs().max()) < 1e-3
    assert float(steps.abs().max()) <= 3.001
    wrong = predicted(victim, found.adversarial).ne(right).any(dim=1)
    assert torch.equal(wrong, found.broken)


def just_broken(
    victim: Victim, clean: torch.Tensor, right: torch.Tensor, found: Proposal
) -> Proposal:
    """The shortest way that still breaks: just behind the boundary, mostly between two bytes."""
    nearest = found.adversarial
    for share in torch.linspace(1.0, 0.05, 20):
        tried = clean + share * (found.adversarial - clean)
        wrong = predicted(victim, tried).ne(right).any(dim=1)
        nearest = torch.where(wrong.view(-1, 1, 1, 1), tried, nearest)
    return dataclasses.replace(found, adversarial=nearest)


def test_searching_among_roundings_breaks_more_than_the_nearest_and_says_how_many() -> None:
    totals = {0: 0, 8: 0}
    n_broken = n_nearest = 0
    for seed in range(6):
        victim, clean = net_victim(seed), pictures(30, seed=seed + 1)
        right = predicted(victim, clean)
        threat = ThreatModel(eps=2.0 / 255.0)
        found = build_attack("apgd-ce", threat, n_steps=20)(victim, clean, right, range(30))
        found = just_broken(victim, clean, right, found)
        for n_repairs in totals:
            again, report = project(
                found, victim, clean, right, range(30), threat, n_repairs=n_repairs
            )
            totals[n_repairs] += report.n_nearest + report.n_repaired
            assert report.n_broken == int(found.broken.sum())
            assert int(again.broken.sum()) >= report.n_nearest
        n_broken, n_nearest = n_broken + report.n_broken, n_nearest + report.n_nearest
    assert 0 < n_nearest < n_broken
    assert totals[0] == n_nearest
    assert totals[0] < totals[8] <= n_broken


def test_roundings_depend_on_seed_and_row_alone() -> None:
    victim, clean = net_victim(1), pictures(10)
    right, rows = predicted(victim, clean), list(range(40, 50))
    threat = ThreatModel(eps=1.0 / 255.0)
    noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(3)) - 0.5
    wanted = (clean + threat.eps * noise).clamp(0, 1)
    whole = search_grid(wanted, clean, right, rows, victim.logits_of, threat)[0]
    part = [3, 7]
    some = search_grid(wanted[part], clean[part], right[part], [43, 47], victim.logits_of, threat)[
        0
    ]
    assert torch.equal(whole[part], some)


def test_pictures_that_no_file_holds_and_radii_below_a_step_are_refused() -> None:
    victim = net_victim()
    attack = EightBitAttack(attack=build_attack("apgd-ce", THREAT, n_steps=2), threat=THREAT)
    between = pictures(2, eight_bit=False)
    assert between.shape[-1] == SIDE
    with pytest.raises(UsageError, match="whole 255ths"):
        attack(victim, between, predicted(victim, between), [0, 1])
    small = ThreatModel(eps=0.5 / 255.0)
    weak = EightBitAttack(attack=build_attack("apgd-ce", small, n_steps=2), threat=small)
    clean = pictures(2)
    with pytest.raises(UsageError, match="less than"):
        weak(victim, clean, predicted(victim, clean), [0, 1])
