"""The fused QuickGELU against open_clip's, in values, gradients and inside a tower."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from robustzs_training.adapter import ClipAdapter
from robustzs_training.quick_gelu import FusedQuickGELU

_CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2},
}


def _points(dtype: torch.dtype) -> torch.Tensor:
    x = torch.linspace(-40, 40, 2001, dtype=dtype)
    return x.requires_grad_()


def test_gradient_is_the_derivative() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(FusedQuickGELU(), (x.requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_are_open_clips(dtype: torch.dtype) -> None:
    ours, theirs = _points(dtype), _points(dtype)
    made, wanted = FusedQuickGELU()(ours), QuickGELU()(theirs)
    made.sum().backward()
    wanted.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    close = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 0.04}[dtype]
    torch.testing.assert_close(made, wanted, rtol=close, atol=close)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=close, atol=close)


def test_values_without_gradients_are_bitwise_open_clips() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(FusedQuickGELU()(x), QuickGELU()(x))


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    x = torch.ones(2, requires_grad=True)
    (first,) = torch.autograd.grad(FusedQuickGELU()(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_an_adapter_has_it_in_both_towers_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**_CONFIG).double().eval()
    names = list(model.state_dict())
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    before = model.encode_image(pixels)
    (gradient,) = torch.autograd.grad(before.square().sum(), pixels)

    adapter = ClipAdapter(model, (0.0,) * 3, (1.0,) * 3).double()
    after = adapter.image_features(pixels)
    (fused,) = torch.autograd.grad(after.square().sum(), pixels)

    kinds = [type(part) for part in model.modules()]
    assert QuickGELU not in kinds
    assert kinds.count(FusedQuickGELU) == 4
    assert list(model.state_dict()) == names
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused, gradient, rtol=1e-10, atol=1e-12)
