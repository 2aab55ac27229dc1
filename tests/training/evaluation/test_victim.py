"""A victim answers as the deployed model does, in both geometries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from robustzs_training.evaluation.attacks import ATTACKS, build_attack
from robustzs_training.evaluation.checks import check_victim
from robustzs_training.evaluation.victim import head_of, victim_of

from robustzs.bundle.manifest import Geometry
from robustzs.errors import UsageError
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet
from robustzs.scoring import class_features, scale_logits, similarities
from robustzs.threat import ThreatModel
from tests.training.tiny_models import make_adapter, make_pixels, tokenize

LABELS = LabelSet.from_names(["labrador", "poodle", "tabby", "jeep", "lamp"])
TEMPLATES = TemplateSet("custom", ("a photo of a {}.", "a {}"))
BALL = Geometry(kind="poincare", curvature=0.7, image_scale=0.3, text_scale=0.2)
GEOMETRIES = pytest.mark.parametrize("geometry", [None, BALL], ids=["cosine", "poincare"])


@pytest.mark.parametrize("vision", ["vit", "cnn"])
@GEOMETRIES
def test_logits_are_those_of_scoring(vision: str, geometry: Geometry | None) -> None:
    model = make_adapter(vision)
    size = 16 if vision == "vit" else 32
    pixels = make_pixels(5, size)
    found = victim_of(model, tokenize, LABELS, TEMPLATES, geometry, logit_scale=30.0)
    compared = geometry or Geometry()
    prompts = [text for label in LABELS for text in TEMPLATES.fill(label.prompt)]
    with torch.no_grad():
        text = model.text_features(tokenize(prompts)).numpy()
        image = model.image_features(pixels).numpy()
    classes = class_features(text.reshape(len(LABELS), 2, -1), compared)
    deployed = scale_logits(similarities(image, classes, compared), logit_scale=30.0)
    logits = found.logits_of(pixels)
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), deployed, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(found.image_features_of(pixels).numpy(), image, atol=1e-5)
    single = class_features(text[:, None], compared)
    expected = scale_logits(similarities(image, single, compared), logit_scale=30.0)
    np.testing.assert_allclose(found.logits_for(prompts)(pixels), expected, atol=2e-4, rtol=1e-4)


def test_labels_are_encoded_once_and_not_before_pictures_come() -> None:
    model, pixels = make_adapter("cnn"), make_pixels(2)
    encoded: list[str] = []

    def counting(texts: Sequence[str]) -> torch.Tensor:
        encoded.extend(texts)
        return tokenize(texts)

    found = victim_of(model, counting, LABELS, TEMPLATES)
    assert encoded == []
    first = found.logits_of(pixels)
    assert torch.equal(found.logits_of(pixels), first)
    assert encoded == [text for label in LABELS for text in TEMPLATES.fill(label.prompt)]


@GEOMETRIES
def test_a_head_is_a_victim_up_to_scale(geometry: Geometry | None) -> None:
    model, pixels = make_adapter(), make_pixels()
    found = victim_of(model, tokenize, LABELS, TEMPLATES, geometry)
    own = head_of(geometry, scale=float(model.logit_scale))(model, tokenize, LABELS, TEMPLATES)
    assert torch.equal(found.logits_of(pixels), own(pixels))
    plain = head_of(geometry)(model, tokenize, LABELS, TEMPLATES)(pixels)
    assert torch.equal(plain.argmax(dim=1), own(pixels).argmax(dim=1))


def test_a_model_in_training_and_half_becomes_a_victim() -> None:
    model = make_adapter("cnn").half().train()
    found = victim_of(model, tokenize, LABELS, TEMPLATES)
    pixels = make_pixels(6, 32)
    assert not any(part.training for part in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found.logits_of(leaf).sum(), leaf)
    assert float(gradient.abs().max()) > 0.0
    assert all(parameter.grad is None for parameter in model.parameters())


@GEOMETRIES
def test_victims_pass_the_checks_and_can_be_attacked(geometry: Geometry | None) -> None:
    model, pixels = make_adapter(seed=1), make_pixels(6)
    found = victim_of(model, tokenize, LABELS, TEMPLATES, geometry)
    right = torch.nn.functional.one_hot(found.logits_of(pixels).argmax(dim=1), 5).bool()
    report = check_victim(found, pixels, right, model=model)
    assert report.passed, report
    broken = {}
    for name in ATTACKS:
        attack = build_attack(
            name,
            ThreatModel(eps=60.0 / 255.0),
            n_steps=10,
            n_queries=50,
            captions=[f"picture {i}" for i in range(6)],
            prompts=[f"some {name}" for name in LABELS.names],
        )
        broken[name] = attack(found, pixels, right, range(6)).broken
    assert bool((broken["autoattack"] >= broken["square"]).all())
    assert int(broken["autoattack"].sum()) > 0


def test_wrong_scales_and_no_texts_are_refused() -> None:
    model = make_adapter()
    with pytest.raises(UsageError, match="logit_scale is 0"):
        victim_of(model, tokenize, LABELS, TEMPLATES, logit_scale=0.0)
    with pytest.raises(UsageError, match="no texts"):
        victim_of(model, tokenize, LABELS, TEMPLATES).logits_for([])
