"""Gradients of depthwise convolutions in bfloat16 on a CPU, without PyTorch's slow kernels.

Under autocast, a CPU's depthwise gradients are up to eight times slower in bfloat16 than in
float32: the gradient of the weight always, that of the input where the stride is above one. These
two are taken in float32 here, the rest stays as it is; sums are kept in more bits, not fewer.
Nothing else changes: names, parameters, inference, exports, other devices and precisions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, how: tuple[list[int], list[int], list[int]]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return nn.functional.conv2d(x, weight, None, *how, groups=weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        strided = max(ctx.how[0]) > 1
        of_x, of_weight = ctx.needs_input_grad[:2]

        def gradients(dtype: torch.dtype, *, x_too: bool, weight_too: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                *(each.to(dtype) for each in (gradient, x, weight)),
                None,
                *ctx.how,
                False,
                [0, 0],
                weight.shape[0],
                [x_too, weight_too, False],
            )

        x_gradient = weight_gradient = None
        if of_weight or (of_x and strided):
            x_gradient, weight_gradient, _ = gradients(
                torch.float32, x_too=of_x and strided, weight_too=of_weight
            )
        if of_x and not strided:
            x_gradient = gradients(x.dtype, x_too=True, weight_too=False)[0]
        return (
            None if x_gradient is None else x_gradient.to(x.dtype),
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            None,
        )


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that shares the parameters of another, and is called as that one."""

    def __init__(self, original: nn.Conv2d, *, same: bool) -> None:
        # A tuple of paddings is what nn.Conv2d keeps; timm's "same" pads in its own forward.
        super().__init__(
            original.in_channels,
            original.out_channels,
            (1, 1),
            bias=False,
            groups=original.groups,
            device="meta",
        )
        for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
            setattr(self, name, getattr(original, name))
        self._original_forward = type(original).forward
        self._same = same
        self.weight, self.bias = original.weight, original.bias
        self.train(original.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``[B, C, H, W]``."""
        lowered = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (lowered and torch.is_grad_enabled()):
            found: torch.Tensor = self._original_forward(self, x)
            return found
        if self._same:
            from timm.layers import pad_same

            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        dtype = torch.get_autocast_dtype("cpu")
        padding = [0, 0] if self._same else list(self.padding)
        how = (list(self.stride), padding, list(self.dilation))
        with torch.autocast("cpu", enabled=False):
            convolved: torch.Tensor = _DepthwiseConvolution.apply(
                x.to(dtype), self.weight.to(dtype), how
            )
        return convolved


def quicken_depthwise(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model take their gradients as above, in place."""
    from timm.layers import Conv2dSame

    for part in model.modules():
        for name, child in part.named_children():
            known = type(child) in (nn.Conv2d, Conv2dSame)
            if (
                isinstance(child, nn.Conv2d)
                and known
                and child.groups == child.in_channels == child.out_channels > 1
                and child.bias is None
                and child.padding_mode == "zeros"
                and not isinstance(child.padding, str)
            ):
                setattr(part, name, DepthwiseConv2d(child, same=type(child) is Conv2dSame))
