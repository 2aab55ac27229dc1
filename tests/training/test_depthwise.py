"""Depthwise gradients in bfloat16: against float64, in the adapter, and nowhere else."""

from __future__ import annotations

import copy

import pytest
import torch
from robustzs_training.depthwise import DepthwiseConv2d, quicken_depthwise
from timm.layers import Conv2dSame
from tiny_models import make_adapter
from torch import nn

BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


def _layer(kind: type[nn.Conv2d], *, stride: int, size: int) -> nn.Sequential:
    torch.manual_seed(size + stride)
    padding = 0 if kind is Conv2dSame else size // 2
    layer = kind(6, 6, size, stride=stride, padding=padding, groups=6, bias=False)
    return nn.Sequential(layer)


def _gradients(model: nn.Module, x: torch.Tensor, *, lowered: bool) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    parameters = list(model.parameters())
    with torch.autocast(**BF16, enabled=lowered):
        made = model(x)
    towards = torch.linspace(-1, 1, made.numel(), dtype=made.dtype).reshape(made.shape)
    return [made, *torch.autograd.grad((made * towards).sum(), [x, *parameters])]


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_gradients_are_those_of_float64_up_to_rounding(
    kind: type[nn.Conv2d], stride: int, size: int
) -> None:
    layer = _layer(kind, stride=stride, size=size)
    exact = copy.deepcopy(layer).double()
    quicken_depthwise(layer)
    assert type(layer[0]) is DepthwiseConv2d
    x = torch.rand(4, 6, 15, 15, generator=torch.Generator().manual_seed(1))
    found = _gradients(layer, x, lowered=True)
    wanted = _gradients(exact, x.double(), lowered=False)
    assert found[0].dtype == torch.bfloat16
    assert [each.dtype for each in found[1:]] == [torch.float32, torch.float32]
    for ours, theirs in zip(found, wanted, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 0.01, error


def test_a_gradient_that_nobody_asks_for_is_not_made() -> None:
    layer = _layer(nn.Conv2d, stride=2, size=3)
    quicken_depthwise(layer)
    layer.requires_grad_(False)
    x = torch.rand(1, 6, 15, 15, requires_grad=True)
    with torch.autocast(**BF16):
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer[0].weight.grad is None


@pytest.mark.parametrize("lowered", [False, True])
def test_inference_and_float32_are_bitwise_as_before(lowered: bool) -> None:
    layer = _layer(Conv2dSame, stride=2, size=5)
    quick = copy.deepcopy(layer)
    quicken_depthwise(quick)
    x = torch.rand(2, 6, 15, 15)
    with torch.no_grad(), torch.autocast(**BF16, enabled=lowered):
        assert torch.equal(quick(x), layer(x))
    for ours, theirs in zip(
        _gradients(quick, x, lowered=False), _gradients(layer, x, lowered=False), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_other_convolutions_are_left_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(6, 6, 3),
        nn.Conv2d(6, 12, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, groups=6, bias=True),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding="same"),
        nn.Conv2d(6, 6, 3, groups=6, bias=False, padding=1, padding_mode="reflect"),
    )
    kinds = [type(each) for each in model]
    quicken_depthwise(model)
    assert [type(each) for each in model] == kinds


def test_an_adapter_has_it_and_keeps_names_and_parameters() -> None:
    adapter = make_adapter("cnn")
    made = [part for part in adapter.modules() if isinstance(part, DepthwiseConv2d)]
    assert made
    again = copy.deepcopy(adapter.visual)
    assert set(again.state_dict()) == set(adapter.visual.state_dict())
    named = dict(adapter.visual.named_parameters())
    for name, part in adapter.visual.named_modules():
        if isinstance(part, DepthwiseConv2d):
            assert part.weight is named[f"{name}.weight"]
