"""Optimiser, schedule and moving average: torch's, as a recipe asks for them.

The schedule is that of open_clip, FARE and QT-AFT: step ``t`` (from 0) of ``W`` warm-up steps runs
at ``lr (t + 1) / W``, the others at ``lr (1 + cos(pi (t - W) / (N - W))) / 2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustzs_training.loop.layers import layer_depths
from robustzs_training.recipe import OptimizerPart, SchedulePart


def build_optimizer(
    part: OptimizerPart, parameters: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW or SGD over all parameters alike: the sources exclude none from weight decay.

    With ``layer_decay`` the layers learn at different rates, the last at ``lr``. Fused: one pass
    over the numbers instead of about ten, which counts on a CPU.

    Raises:
        UsageError: ``layer_decay`` is given and the parameters have no layers that are known.
    """
    groups = _groups(part, parameters)
    if part.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=part.lr,
            momentum=part.momentum,
            weight_decay=part.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(
        groups, lr=part.lr, betas=part.betas, weight_decay=part.weight_decay, fused=True
    )


def _groups(part: OptimizerPart, parameters: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
    """One group, or one for each layer; the last layer's, which learns at ``lr``, comes last."""
    if part.layer_decay is None:
        return [{"params": list(parameters.values())}]
    depths = layer_depths(parameters)
    deepest = max(depths.values())
    return [
        {
            "params": [parameters[name] for name, found in depths.items() if found == depth],
            "lr": part.lr * part.layer_decay ** (deepest - depth),
        }
        for depth in sorted(set(depths.values()))
    ]


def slots(part: OptimizerPart) -> int:
    """Tensors of a parameter's size that the optimiser keeps for it."""
    if part.name == "sgd":
        return 1 if part.momentum else 0
    return 2


def total_steps(part: SchedulePart, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run; at least 1."""
    if part.steps is not None:
        return part.steps
    epochs = 1.0 if part.epochs is None else part.epochs
    return max(1, round(epochs * steps_per_epoch))


def build_schedule(
    part: SchedulePart, optimizer: torch.optim.Optimizer, n_steps: int
) -> LRScheduler:
    """Linear warm-up, then cosine to zero at ``n_steps``, or a constant rate."""
    warmup = min(part.warmup_steps, n_steps)
    if part.name == "constant":
        after: LRScheduler = ConstantLR(optimizer, factor=1.0, total_iters=0)
    else:
        after = CosineAnnealingLR(optimizer, T_max=max(1, n_steps - warmup))
    if warmup == 0:
        return after
    rise = LinearLR(optimizer, start_factor=1.0 / warmup, total_iters=warmup - 1)
    return SequentialLR(optimizer, [rise, after], milestones=[warmup])


def build_average(decay: float | None, parameters: Iterable[nn.Parameter]) -> AveragedModel | None:
    """The exponential moving average of ``parameters``; ``None`` where nobody asked for it."""
    if decay is None:
        return None
    average = AveragedModel(nn.ParameterList(parameters), multi_avg_fn=get_ema_multi_avg_fn(decay))
    return average.requires_grad_(False)
