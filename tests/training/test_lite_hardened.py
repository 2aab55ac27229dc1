"""What is done to a finished run before it is embedded."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.lite.bundle import trained_tensors
from robustzs_training.lite.hardened import match_moments, round_to_half

from tests.training.tiny_models import make_adapter


def test_what_trained_is_rounded_and_statistics_are_not() -> None:
    model = make_adapter("cnn").model
    with torch.no_grad():
        for name, buffer in model.visual.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.pi)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    round_to_half(model)
    after = model.state_dict()
    trained = {f"visual.{name}" for name, _ in model.visual.named_parameters()}
    for name, tensor in after.items():
        if name not in trained:
            assert torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, tensor.half().float()), name
            torch.testing.assert_close(tensor, before[name], rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(after[name], before[name]) for name in trained)


def test_features_get_the_moments_of_the_original() -> None:
    model, original = make_adapter("cnn", seed=1).model, make_adapter("cnn", seed=2).model
    head = model.visual.head
    head.proj = torch.nn.Linear(head.proj.in_features, head.proj.out_features)  # as in lite: bias
    inputs = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.encode_image(inputs)
        factor = match_moments(model, original, inputs)
        after, wanted = model.encode_image(inputs), original.encode_image(inputs)
    torch.testing.assert_close(after.mean(0), wanted.mean(0), rtol=1e-4, atol=1e-4)
    spread = [(f - f.mean(0)).norm(dim=1).mean() for f in (before, after, wanted)]
    torch.testing.assert_close(spread[1], spread[2], rtol=1e-4, atol=0.0)
    assert factor == pytest.approx(float(spread[2] / spread[0]), rel=1e-4)
    centred = factor * (before - before.mean(0))
    torch.testing.assert_close(after - after.mean(0), centred, rtol=1e-3, atol=1e-4)


def test_the_embedded_image_tower_is_stored_in_half_the_bytes() -> None:
    """Rounding what is rounded already changes nothing, so nothing is lost in the bundle."""
    model = load_source(SourceRequest(model="robustzs-lite-clean")).model
    before = trained_tensors(model)
    round_to_half(model)
    after = trained_tensors(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
