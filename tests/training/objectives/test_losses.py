"""Every flat objective's value against its float64 derivation, and its gradients by gradcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.objectives import (
    Agft,
    Batch,
    Fare,
    FareKl,
    Objective,
    PmgAft,
    QtAft,
    SimClip,
    Tecoa,
    TgaZsr,
)
from robustzs_training.objectives.terms import cosine_logits
from robustzs_training.objectives.tga_zsr import attention_maps
from robustzs_training.patches import PatchFeatures
from torch.func import functional_call

from robustzs.errors import UsageError
from tests.training.objectives import derived
from tests.training.objectives.derived import array
from tests.training.tiny_models import EMBED_DIM, make_adapter, make_pixels, make_tokens

N = 5
SIZES = {"vit": 16, "cnn": 96, "resnet": 64}
LABELS = [0, 2, 1, 2, 0]
OBJECTIVES: dict[str, Callable[[ClipAdapter, torch.Tensor], Objective]] = {
    "tecoa": lambda model, classes: Tecoa(model, classes, logit_scale=9.0),
    "fare": lambda model, _: Fare(model),
    "sim_clip": lambda model, _: SimClip(model),
    "pmg_sum": lambda model, classes: PmgAft(model, classes, alpha=0.7, beta=0.3),
    "pmg_batchmean": lambda model, classes: PmgAft(model, classes, kl_reduction="batchmean"),
    "pmg_detached": lambda model, classes: PmgAft(model, classes, detach_clean=True),
    "tga_tokens": lambda model, classes: TgaZsr(model, classes, alpha=2.0, beta=3.0),
    "tga_channels": lambda model, classes: TgaZsr(model, classes, norm_axis="channels"),
    "agft": lambda model, classes: Agft(model, classes, logit_scale=18.0),
    "fare_kl": lambda model, classes: FareKl(model, classes, logit_scale=7.0, kl_weight=3.0),
    "qt_aft": lambda model, _: QtAft(model),
}


@torch.no_grad()
def moved(model: ClipAdapter, by: float = 0.05) -> None:
    """Move the trainable weights away from the frozen reference's."""
    generator = torch.Generator().manual_seed(11)
    for parameter in model.visual.parameters():
        parameter += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def setting(name: str, vision: str = "vit") -> tuple[Objective, Batch, torch.Tensor]:
    """An objective in float64 after some training, its prepared batch, and attacked pixels."""
    model = make_adapter(vision)
    classes = model.class_features(make_tokens(6).reshape(3, 2, -1))
    objective = OBJECTIVES[name](model, classes).double().train()
    moved(model)
    pixels = make_pixels(N, SIZES[vision]).double()
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(5)).double()
    batch = Batch(pixels=pixels, labels=torch.tensor(LABELS), caption_ids=make_tokens(N, seed=3))
    return objective, objective.prepare(batch), (pixels + 0.1 * (noise - 0.5)).clamp(0, 1)


def expected(name: str, objective: Any, batch: Batch, x_adv: torch.Tensor) -> tuple[float, float]:
    """``(attack loss, training loss)`` from raw features alone."""
    model = objective.model
    adversarial, clean = (array(model.image_features(x)) for x in (x_adv, batch.pixels))
    if name == "tecoa":
        ce = derived.tecoa(adversarial, array(objective.classes), LABELS, 9.0)
        return ce, ce
    reference, attacked_reference = (
        array(objective.reference.image_features(x)) for x in (batch.pixels, x_adv)
    )
    if name in ("fare", "sim_clip"):
        attack = derived.fare(adversarial, reference)
        return attack, attack if name == "fare" else derived.sim_clip(adversarial, reference)
    if name == "qt_aft":
        assert batch.caption_ids is not None
        captions = array(model.model.encode_text(batch.caption_ids))
        value = derived.qt_aft(adversarial, reference, captions, 1 / 0.07, 10.0)
        return value, value
    classes = array(objective.classes)
    if name == "agft":
        value = derived.agft(adversarial, reference, classes, 18.0, 0.4)
        return value, value
    if name == "fare_kl":
        value = derived.fare_kl(adversarial, reference, classes, 7.0, 3.0)
        return value, value
    scale = float(model.logit_scale)
    ce = derived.tecoa(adversarial, classes, LABELS, scale)
    if name.startswith("pmg"):
        reduction = "batchmean" if name == "pmg_batchmean" else "sum"
        p_adv, p_ref, p_clean = (
            derived.logits(z, classes, scale) for z in (adversarial, attacked_reference, clean)
        )
        alpha, beta = (0.7, 0.3) if name == "pmg_sum" else (1.0, 1.0)
        return ce, ce + (
            alpha * derived.kl(p_ref, p_adv, reduction)
            + beta * derived.kl(p_clean, p_adv, reduction)
        )
    axis = name.removeprefix("tga_")
    alpha, beta = (2.0, 3.0) if axis == "tokens" else (0.08, 0.05)
    side = x_adv.shape[-1]

    def maps(encoder: Any, x: torch.Tensor) -> list[Any]:
        found = encoder.patch_features(x)
        return [
            derived.attention_map(p, z, classes[y], found.grid, side, axis)
            for p, z, y in zip(
                array(found.patches), array(found.image_features), LABELS, strict=True
            )
        ]

    original = maps(objective.reference, batch.pixels)
    distances = [
        np.mean([np.linalg.norm(a - b) for a, b in zip(maps(model, x), original, strict=True)])
        for x in (x_adv, batch.pixels)
    ]
    return ce, float(ce + alpha * distances[0] + beta * distances[1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_are_the_derived_ones(name: str) -> None:
    objective, batch, x_adv = setting(name)
    attack, loss = expected(name, objective, batch, x_adv)
    with torch.no_grad():
        assert float(objective.attack_loss(batch, {"pixels": x_adv})) == pytest.approx(
            attack, rel=1e-6
        )
        terms = objective(batch, {"pixels": x_adv})
    assert float(terms.total) == pytest.approx(loss, rel=1e-6)
    assert sum(float(term) for term in terms.terms.values()) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("vision", ["cnn", "resnet"])
def test_attention_maps_of_convolutional_towers(vision: str) -> None:
    objective, batch, x_adv = setting("tga_tokens", vision)
    attack, loss = expected("tga_tokens", objective, batch, x_adv)
    with torch.no_grad():
        assert float(objective(batch, {"pixels": x_adv}).total) == pytest.approx(loss, rel=1e-6)
    assert loss > attack + 1e-3


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_a_channel_of_nothing_neither_shows_in_attention_maps_nor_outweighs_their_gradient(
    size: float,
) -> None:
    generator = torch.Generator().manual_seed(4)
    patches, pooled = torch.randn(3, 9, 8, generator=generator), torch.ones(3, 8)
    patches[:, :, 5] *= size
    pooled[:, 5] *= size
    texts = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=1)
    leaf = patches.clone().requires_grad_()
    found = PatchFeatures(patches=leaf, grid=(3, 3), image_features=pooled)
    maps = attention_maps(found, texts, (12, 12), "tokens")
    kept = [0, 1, 2, 3, 4, 6, 7]
    without = PatchFeatures(
        patches=patches[:, :, kept], grid=(3, 3), image_features=pooled[:, kept]
    )
    assert torch.allclose(maps, attention_maps(without, texts[:, kept], (12, 12), "tokens"))
    maps.sum().backward()
    assert leaf.grad is not None
    assert 0.1 < float(leaf.grad.norm()) < 100.0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_with_respect_to_pixels(name: str) -> None:
    objective, batch, x_adv = setting(name)
    x_adv.requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda x: objective.attack_loss(batch, {"pixels": x}), (x_adv,), fast_mode=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_with_respect_to_everything_that_trains(name: str) -> None:
    objective, batch, x_adv = setting(name)
    named = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    assert len(named) == len(objective.trainable())

    def loss(*values: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(named, values, strict=True))
        return functional_call(objective, weights, (batch, {"pixels": x_adv})).total

    values = tuple(p.detach().clone().requires_grad_() for p in named.values())
    if name in ("sim_clip", "pmg_detached"):  # part of the value has no gradient, by design
        gradients = torch.autograd.grad(loss(*values), values)
        assert all(bool(g.isfinite().all()) for g in gradients)
        return
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_the_gradient_of_sim_clip_is_half_of_that_of_the_cosine() -> None:
    objective, batch, x_adv = setting("sim_clip")
    weight = next(objective.model.visual.parameters())
    (found,) = torch.autograd.grad(objective(batch, {"pixels": x_adv}).total, weight)
    features = objective.model.image_features(x_adv)
    cosine = torch.cosine_similarity(features, batch.constant("reference")).mean()
    (full,) = torch.autograd.grad(-cosine, weight)
    torch.testing.assert_close(found, full / 2)


def test_the_gradient_of_pmg_flows_through_the_clean_images_unless_told_not_to() -> None:
    gradients = {}
    for name in ("pmg_detached", "pmg_sum"):
        objective, batch, x_adv = setting(name)
        objective.alpha = objective.beta = 1.0  # type: ignore[assignment]
        weight = next(objective.model.visual.parameters())
        (gradients[name],) = torch.autograd.grad(objective(batch, {"pixels": x_adv}).total, weight)
    assert not torch.allclose(gradients["pmg_detached"], gradients["pmg_sum"])


def test_pmg_adds_what_the_authors_kldivloss_adds() -> None:
    objective, batch, x_adv = setting("pmg_sum")
    with torch.no_grad():
        adversarial, clean = (
            cosine_logits(objective.model.image_features(x), objective.classes, objective.scale)  # type: ignore[arg-type]
            for x in (x_adv, batch.pixels)
        )
        criterion = torch.nn.KLDivLoss(reduction="sum")
        wanted = 0.3 * criterion(adversarial.log_softmax(1), clean.softmax(1))
        found = objective(batch, {"pixels": x_adv}).terms["kl_clean"]
    torch.testing.assert_close(found, wanted)


def test_before_training_fare_asks_for_nothing_on_clean_images() -> None:
    objective = Fare(make_adapter())
    batch = objective.prepare(Batch(pixels=make_pixels(3)))
    with torch.no_grad():
        assert float(objective(batch, {"pixels": batch.pixels}).total) < 1e-9


def test_a_heavier_divergence_adds_that_alone() -> None:
    objective, batch, x_adv = setting("fare_kl")
    with torch.no_grad():
        light = objective(batch, {"pixels": x_adv}).terms
        objective.kl_weight = 30.0  # type: ignore[assignment]
        heavy = objective(batch, {"pixels": x_adv}).terms
    assert float(light["kl"]) > 1e-3
    torch.testing.assert_close(heavy["kl"], 10.0 * light["kl"])
    torch.testing.assert_close(heavy["l2"], light["l2"])


def test_right_for_fare_kl_is_what_the_frozen_encoder_says_of_clean_images() -> None:
    objective, batch, x_adv = setting("fare_kl")
    scores, right = objective.choices(batch, batch.constant("reference"))  # type: ignore[misc]
    assert torch.equal(scores.argmax(dim=1), right)
    assert batch.labels is not None
    unlabelled = objective.prepare(Batch(pixels=batch.pixels))
    told = objective.accuracies(unlabelled, {"pixels": x_adv})
    assert set(told) == {"clean", "adversarial"}


def test_captions_may_come_as_features_and_are_never_the_trained_projections() -> None:
    model = make_adapter()
    objective = QtAft(model)
    tokens = make_tokens(N, seed=3)
    with torch.no_grad():
        kept = model.model.encode_text(tokens)
        for _, parameter in model.text_projection:
            parameter.mul_(-2.0)
    pixels = make_pixels(N)
    by_ids = objective.prepare(Batch(pixels=pixels, caption_ids=tokens))
    by_features = objective.prepare(Batch(pixels=pixels, caption_features=kept))
    torch.testing.assert_close(by_ids.constant("captions"), by_features.constant("captions"))


def test_the_scale_of_qt_aft_starts_trains_and_stops_where_the_authors_say() -> None:
    model = make_adapter()
    own = model.log_logit_scale.detach().clone()
    objective = QtAft(model)
    assert objective.log_logit_scale.detach().exp().item() == pytest.approx(1 / 0.07)
    assert list(objective.extra_parameters()) == ["log_logit_scale"]
    with torch.no_grad():
        objective.log_logit_scale.fill_(9.0)
        objective.clamp_()
        assert float(objective.log_logit_scale.exp()) == pytest.approx(100.0)
        objective.log_logit_scale.fill_(-1.0)
        objective.clamp_()
        assert float(objective.log_logit_scale) == 0.0
    assert torch.equal(model.log_logit_scale, own)


def test_another_image_s_caption_is_right_only_where_it_is_the_same() -> None:
    objective = QtAft(make_adapter())
    directions = torch.eye(3, EMBED_DIM)
    batch = objective.prepare(
        Batch(pixels=make_pixels(4), caption_features=directions[[0, 1, 1, 2]])
    )

    def is_right(image_features: torch.Tensor) -> list[bool]:
        scores, right = objective.choices(batch, image_features)
        return [bool(each) for each in scores.argmax(dim=1) == right]

    assert is_right(directions[[0, 1, 1, 2]]) == [True] * 4
    assert is_right(directions[[1, 1, 2, 0]]) == [False, True, False, False]
    assert is_right(torch.zeros(4, EMBED_DIM)) == [True, False, False, False], "a dead tower"


def test_a_caption_that_is_also_an_image_s_own_may_be_left_out_of_its_contrast() -> None:
    model = make_adapter()
    captions = torch.eye(3, EMBED_DIM)[[0, 1, 1, 2]]
    images = torch.randn(4, EMBED_DIM, generator=torch.Generator().manual_seed(5))
    batch = Batch(pixels=make_pixels(4), caption_features=captions)
    found = {}
    for mask in (False, True):
        objective = QtAft(model, mask_equal_captions=mask)
        found[mask] = objective.terms(objective.prepare(batch), images)["image_to_caption"].item()
    rows = derived.logits(derived.array(images), derived.array(captions), 1 / 0.07)
    kept = [([0, 1, 2, 3], 0), ([0, 1, 3], 1), ([0, 2, 3], 1), ([0, 1, 2, 3], 3)]
    of_each = [
        derived.cross_entropy(rows[i : i + 1, columns], [own])
        for i, (columns, own) in enumerate(kept)
    ]
    assert found[True] == pytest.approx(10.0 * sum(of_each) / 4, rel=1e-5)
    assert found[False] == pytest.approx(10.0 * derived.cross_entropy(rows, [0, 1, 2, 3]), rel=1e-5)
    assert found[True] < found[False]


def test_misuse_is_named() -> None:
    model = make_adapter()
    classes = model.class_features(make_tokens(3)[:, None])
    batch = Batch(pixels=make_pixels(2))
    with pytest.raises(UsageError, match="labels"):
        Tecoa(model, classes).attack_loss(batch, {"pixels": batch.pixels})
    with pytest.raises(UsageError, match="captions"):
        QtAft(model).prepare(batch)
    with pytest.raises(UsageError, match="prepare"):
        Fare(model).attack_loss(batch, {"pixels": batch.pixels})
    with pytest.raises(UsageError, match="two classes"):
        Tecoa(model, classes[:1])
    with pytest.raises(UsageError, match="zero or not finite"):
        Tecoa(model, classes * torch.tensor([[1.0], [0.0], [1.0]]))
    with pytest.raises(UsageError, match="median"):
        PmgAft(model, classes, kl_reduction="median")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="kl_weight is -1"):
        FareKl(model, classes, kl_weight=-1.0)
    with pytest.raises(UsageError, match="pixels"):
        TgaZsr(model, classes, norm_axis="pixels")  # type: ignore[arg-type]
