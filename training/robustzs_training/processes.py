"""Tensors across the processes of ``torch.distributed``; with a single process, nothing happens.

The convention that every objective follows: the **mean over processes** of the losses, and of
their gradients, is the loss and gradient of one process that holds the whole batch. Averaging
gradients is what ``DistributedDataParallel`` does, so an objective need not know that it runs in
one. Every process must hold equally many rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def world_size() -> int:
    """Processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place in the default group; 0 without one."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """Concatenation over processes, whose backward sums what every process asks of these rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.n_rows = rows.shape[0]
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = rank() * ctx.n_rows
        return total[start : start + ctx.n_rows]


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate ``rows`` ``[B, ...]`` of all processes, in rank order: ``[W * B, ...]``.

    Differentiable: the gradient of a row is the sum of what all processes' losses ask of it, so
    each of them must run the backward pass.
    """
    if world_size() == 1:
        return rows
    gathered: torch.Tensor = _Gather.apply(rows)
    return gathered


def all_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of ``values`` over processes, without gradient."""
    if world_size() == 1:
        return values.detach()
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
