"""Several right labels as one: the mass of exactly these, and what attacks see of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.evaluation.attacks.view import (
    GAP,
    Watch,
    factors_of,
    fold,
    fold_scaled,
    judge,
)

from robustzs.threat import ThreatModel
from tests.training.evaluation.small_victims import CLASSES, made, net_victim, pictures, predicted

N = 24


@st.composite
def folded_inputs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    n, classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    logits = (4.0 * torch.randn(n, classes, generator=generator)).round() / 2.0  # with ties
    right = torch.rand(n, classes, generator=generator) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    right[torch.arange(n), torch.randint(classes, (n,), generator=generator)] = True
    return logits, right


@settings(max_examples=100, deadline=None)
@given(folded_inputs())
def test_folding(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, right = inputs
    mass, first = fold(logits, right)
    kept = mass.softmax(dim=1).gather(1, first[:, None]).squeeze(1)
    wanted = logits.softmax(dim=1).masked_fill(~right, 0.0).sum(dim=1)
    torch.testing.assert_close(kept, wanted)
    assert torch.equal(mass[~right], logits[~right])
    top, _ = fold(logits, right, "top")
    rival = top.scatter(1, first[:, None], -torch.inf).amax(dim=1)
    assert torch.equal(top.gather(1, first[:, None]).squeeze(1) > rival, judge(logits, right))


def test_the_mass_of_several_labels_is_that_of_the_models_own_logits() -> None:
    """By hand: e^z of the right ones is 2 + 6 = 8, of all together 10; then scaled by 5 and 2."""
    logits = torch.tensor([[2.0, 6.0, 1.0, 1.0], [2.0, 6.0, 1.0, 1.0]]).log()
    right = torch.tensor([[True, True, False, False], [False, True, False, False]])
    folded, first = fold_scaled(logits, right, torch.tensor([5.0, 2.0]))
    nothing = -torch.inf
    wanted = torch.tensor(
        [[5 * math.log(8), nothing, 0.0, 0.0], [2 * math.log(2), 2 * math.log(6), 0.0, 0.0]]
    )
    torch.testing.assert_close(folded, wanted)
    assert first.tolist() == [0, 1]
    scaled_first = 5.0 * math.log((2.0**5 + 6.0**5) ** (1 / 5))
    assert abs(scaled_first - 5 * math.log(8)) > 1.4  # it would have been another question


def test_apgd_sees_the_models_own_mass_and_no_saturation() -> None:
    """Many labels that are nearly alike, and a scale that leaves them so: ln 60 apart by number."""
    logits = torch.cat([torch.linspace(0.0, 0.3, 60), torch.linspace(0.0, 0.2, 4)])[None]
    right = (torch.arange(64) < 60)[None]
    factors = factors_of(logits, right)
    watch = Watch(lambda pixels: logits + 0.0 * pixels.sum(), right, factors)
    seen = watch(torch.zeros(1, 3, 2, 2, requires_grad=True)).detach()
    own = logits.softmax(dim=1)[right].sum()
    among = seen.isfinite()
    assert float(seen[among].max() - seen[among].min()) == pytest.approx(GAP)
    unscaled = (seen / factors[:, None]).softmax(dim=1)
    assert float(unscaled[0, 0]) == pytest.approx(float(own))
    single = (torch.arange(64) == 59)[None]
    assert torch.equal(factors_of(logits, single), factors_of(logits))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_one_right_label_is_left_as_it_is(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, generator=generator)
    labels = torch.randint(4, (5,), generator=generator)
    right = torch.nn.functional.one_hot(labels, 4).bool()
    folded, first = fold(logits, right)
    assert torch.equal(first, labels)
    assert torch.equal(folded, logits)
    # Beside a row with several, too, bit for bit, and so is its gradient.
    mixed = torch.cat([right, torch.tensor([[True, True, False, False]])])
    leaf = torch.cat([logits, logits[:1]]).requires_grad_()
    beside, _ = fold(leaf, mixed)
    assert torch.equal(beside[:5], logits)
    loss = torch.nn.functional.cross_entropy(beside, torch.cat([labels, labels[:1] * 0]))
    plain = logits.clone().requires_grad_()
    single = torch.nn.functional.cross_entropy(plain, labels, reduction="sum") / 6
    (ours,) = torch.autograd.grad(loss, leaf)
    (theirs,) = torch.autograd.grad(single, plain)
    torch.testing.assert_close(ours[:5], theirs, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "cw", "square", "fab-t"])
def test_all_right_labels_must_fall(name: str) -> None:
    found, pixels = net_victim(3), pictures(N, seed=6)
    right = predicted(found, pixels)
    one = made(name, ThreatModel(eps=3.0 / 255.0), n_steps=20)
    second = found.logits_of(pixels).topk(2, dim=1).indices[:, 1]
    both = right.scatter(1, second[:, None], True)
    alone, together = (one(found, pixels, each, range(N)).broken for each in (right, both))
    assert int(together.sum()) < int(alone.sum())


@pytest.mark.parametrize("n_right", [3, 4, 5])
def test_few_classes_left_after_folding_have_a_substitute(n_right: int) -> None:
    found, pixels = net_victim(3), pictures(N, seed=6)
    order = found.logits_of(pixels).argsort(dim=1, descending=True)
    right = torch.zeros(N, CLASSES, dtype=torch.bool).scatter(1, order[:, :n_right], True)
    right[::2] = predicted(found, pixels)[::2]  # other rows have all classes
    threat = ThreatModel(eps=60.0 / 255.0)
    broken = {}
    for name in ("apgd-ce", "apgd-dlr", "apgd-t"):
        attack = made(name, threat, n_steps=20)
        broken[name] = attack(found, pixels, right, range(N)).broken
        assert "margin" in str(attack.protocol["substitute"]) or name == "apgd-ce"
    counts = [int(each[1::2].sum()) for each in broken.values()]
    assert min(counts) > 0
    assert max(counts) - min(counts) <= 2
