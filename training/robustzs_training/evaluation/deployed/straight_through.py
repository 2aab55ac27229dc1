"""Rounding that gradients pass as if it were not there: the straight-through estimator.

Source: Y. Bengio, N. Léonard, A. Courville, "Estimating or propagating gradients through stochastic
neurons", 2013; for quantised networks B. Jacob et al., "Quantization and training of neural
networks for efficient integer-arithmetic-only inference", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def passing(step: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """``step(values)`` with the gradient of the identity; integers are passed to it as they are."""
    if not values.is_floating_point() or not values.requires_grad:
        return step(values)
    with torch.no_grad():
        away = step(values) - values
    return values + away


def as_precision(values: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Float32 values rounded to those of a shorter float; what is too large becomes infinite."""
    return passing(lambda exact: exact.to(precision).to(exact.dtype), values)


def levels_of(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int
) -> torch.Tensor:
    """Integer levels, as floats: ``clip(round(values / scale) + zero_point, low, high)``.

    Half rounds to even, as in ONNX. Within the range the gradient is that of ``values / scale``,
    beyond it zero: a saturated value does not move.
    """
    return (passing(torch.round, values / scale) + zero_point).clamp(float(low), float(high))
