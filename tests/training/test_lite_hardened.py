"""What is done to a finished run before it is embedded."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.lite.bundle import trained_tensors
from robustzs_training.lite.hardened import round_to_half

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


def test_the_embedded_image_tower_is_stored_in_half_the_bytes() -> None:
    """Rounding what is rounded already changes nothing, so nothing is lost in the bundle."""
    model = load_source(SourceRequest(model="robustzs-lite-clean")).model
    before = trained_tensors(model)
    round_to_half(model)
    after = trained_tensors(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
