"""QuickGELU in fewer passes over memory: the activation of OpenAI's CLIP, ``x * sigmoid(1.702 x)``.

``x * sigmoid(a x)`` is ``silu(a x) / a``, and so its derivative is ``silu'(a x)``: one fused pass
where autograd makes five, and one kept tensor instead of two. An attack goes through every
activation of a tower at every step, so this is seen in training (docs/benchmarks-training.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

_A = 1.702


class _QuickGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        scaled = x * _A
        ctx.save_for_backward(scaled)
        return nn.functional.silu(scaled).mul_(1 / _A)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (scaled,) = ctx.saved_tensors
        found: torch.Tensor = torch.ops.aten.silu_backward(gradient, scaled)
        return found


class FusedQuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, elementwise, of any shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activate."""
        if torch.is_grad_enabled() and x.requires_grad:
            activated: torch.Tensor = _QuickGelu.apply(x)
            return activated
        return x * torch.sigmoid(_A * x)  # as open_clip writes it, so that exports stay the same


def fuse_quick_gelu(model: nn.Module) -> None:
    """Let every QuickGELU of an open_clip model compute its gradient in one pass, in place."""
    from open_clip.transformer import QuickGELU

    for part in model.modules():
        for name, child in part.named_children():
            if type(child) is QuickGELU:
                setattr(part, name, FusedQuickGELU())
