"""One optimiser step: attack, loss, gradients, a look at them, and only then the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import nn

from robustzs_training.data.base import Examples
from robustzs_training.loop.contract import ToBatch, split
from robustzs_training.loop.guard import Guard
from robustzs_training.loop.state import Moving
from robustzs_training.objectives.base import Batch, Objective
from robustzs_training.processes import all_sum, world_size
from robustzs_training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step found; nothing of it is known before its gradients are.

    Attributes:
        loss: Mean over parts and processes.
        grad_norm: L2 norm over all gradients, before clipping.
        learning_rate: Of this step.
        problem: Why the weights were left alone; ``None`` where they were not.
        skipped: Left alone because float16 overflowed, as it may now and then.
        stop: A process was asked to stop.
        terms: Of the loss, mean over this process's parts; on the device.
        accuracies: As the objective reports them; empty where nobody asked.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    problem: str | None
    skipped: bool
    stop: bool
    terms: Mapping[str, torch.Tensor]
    accuracies: Mapping[str, torch.Tensor]


class Stepper:
    """Takes steps.

    Args:
        objective: The objective itself.
        wrapped: The same, as Accelerate made it ready.
        moving: What the steps change; the optimiser is Accelerate's.
        guard: Says whether a step may be taken.
        recipe: Threat, attack, accumulation, clipping.
        to_batch: Makes a batch of examples.
        accelerator: Autocast, gradients, devices.
    """

    def __init__(
        self,
        objective: Objective,
        wrapped: nn.Module,
        moving: Moving,
        guard: Guard,
        recipe: Recipe,
        to_batch: ToBatch,
        accelerator: Accelerator,
    ) -> None:
        self.objective = objective
        self.wrapped = wrapped
        self.moving = moving
        self.guard = guard
        self.accelerator = accelerator
        self._to_batch = to_batch
        self._threat = recipe.threat.build()
        self._attack = recipe.attack.build(recipe.run.seed)
        self._n_parts = recipe.run.accumulation
        self._clip = recipe.optimizer.clip_grad_norm
        self._channels_last = recipe.run.channels_last

    def batch(self, examples: Examples) -> Batch:
        """``examples`` on the device: pixels float32 in [0, 1], in the layout of the tower."""
        device = self.accelerator.device
        batch = self._to_batch(examples, device)
        pixels = as_pixels(batch.pixels, device, channels_last=self._channels_last)
        return replace(batch, pixels=pixels)

    def take(self, examples: Examples, *, measure: bool, stop: bool) -> StepReport:
        """Take one step, or say why not.

        Args:
            examples: This process's share.
            measure: Also ask the objective for accuracies, which costs two forward passes.
            stop: This process was asked to stop; every process is told.
        """
        moving = self.moving
        self.objective.train()
        moving.optimizer.zero_grad(set_to_none=True)
        results = [
            self._part(each, last=place == self._n_parts - 1, measure=measure)
            for place, each in enumerate(split(examples, self._n_parts))
        ]
        self.accelerator.unscale_gradients(moving.optimizer)
        grad_norm = _gradient_norm(moving.parameters.values())
        own_loss = torch.stack([loss for loss, _, _ in results]).mean().double()
        flags = torch.stack([own_loss, own_loss.new_tensor(float(stop))])
        loss, stops = (all_sum(flags) / world_size()).tolist()
        # The last group's is the recipe's: layer_decay scales those before it.
        learning_rate = float(moving.optimizer.param_groups[-1]["lr"])
        problem = self.guard.problem(loss, float(grad_norm))
        finite = math.isfinite(loss) and math.isfinite(float(grad_norm))
        if problem is None:
            self._move(loss, grad_norm, finite=finite)
        else:
            moving.optimizer.zero_grad(set_to_none=True)
        return StepReport(
            loss=loss,
            grad_norm=float(grad_norm),
            learning_rate=learning_rate,
            problem=problem,
            skipped=problem is None and not finite,
            stop=stops > 0.0,
            terms=_mean([terms for _, terms, _ in results]),
            accuracies=_mean([accuracies for _, _, accuracies in results]),
        )

    def _part(
        self, examples: Examples, *, last: bool, measure: bool
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Gradients of one part. Each phase has an autocast of its own.

        A half-precision copy of a weight that one phase makes without gradients is then never
        found by another that needs them.
        """
        objective, accelerator = self.objective, self.accelerator
        with accelerator.autocast():
            batch = objective.prepare(self.batch(examples))
        scaler = self.moving.scaler
        with accelerator.autocast():
            perturbed = objective.perturb(
                batch,
                self._threat,
                self._attack,
                generator=self.moving.generator,
                loss_scale=1.0 if scaler is None else float(scaler.get_scale()),
            )
        if last:
            found = self.wrapped(batch, perturbed)
            accelerator.backward(found.total / self._n_parts)
        else:
            with accelerator.no_sync(self.wrapped):
                found = self.wrapped(batch, perturbed)
                accelerator.backward(found.total / self._n_parts)
        accuracies: Mapping[str, torch.Tensor] = {}
        if measure:
            with accelerator.autocast():
                accuracies = objective.accuracies(batch, perturbed)
        return found.total.detach(), found.terms, accuracies

    def _move(self, loss: float, grad_norm: torch.Tensor, *, finite: bool) -> None:
        moving = self.moving
        if self._clip is not None and finite:
            torch.nn.utils.clip_grads_with_norm_(
                list(moving.parameters.values()), self._clip, grad_norm
            )
        moving.optimizer.step()  # leaves the weights alone if float16 gradients overflowed
        if finite:
            moving.schedule.step()
            self.objective.clamp_()
            if moving.average is not None:
                moving.average.update_parameters(nn.ParameterList(moving.parameters.values()))
            self.guard.passed(loss)


def as_pixels(
    pixels: torch.Tensor, device: torch.device, *, channels_last: bool = False
) -> torch.Tensor:
    """float32 ``[B, 3, H, W]`` in [0, 1] on ``device``; of uint8 from 0 to 255, or as it is."""
    moved = pixels.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:
        moved = moved.float().div_(255.0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return moved.contiguous(memory_format=layout)


def _gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def _mean(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}
