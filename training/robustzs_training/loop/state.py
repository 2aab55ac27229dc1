"""Everything that decides how a run goes on, as tensors by name and a JSON document, and back.

Weights and optimiser tensors are copied into ones that have the layout in memory of their
parameter: kernels then take the same path as without the interruption, down to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from robustzs.errors import TrainingStateError
from robustzs_training.processes import gather, rank

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Moving:
    """What changes from step to step.

    Args:
        parameters: What trains, by name.
        optimizer: Over exactly these parameters, in one group or several.
        schedule: Of its learning rate.
        generator: Of the attack's starting points: the same state in every process.
        average: Of the parameters, in this order, or ``None``.
        scaler: Of the loss under float16, or ``None``.
    """

    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    generator: torch.Generator
    average: AveragedModel | None = None
    scaler: torch.amp.GradScaler | None = None


# ---- out -----------------------------------------------------------------------------------------


def capture(moving: Moving) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name and a JSON document; all processes together, for their random states."""
    tensors: Tensors = {f"weights/{name}": p.detach() for name, p in moving.parameters.items()}
    optimizer = moving.optimizer.state_dict()
    for place, name in enumerate(_optimizer_order(moving)):
        for key, value in optimizer["state"].get(place, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{name}/{key}"] = value
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer["param_groups"]]
    document: dict[str, Any] = {"groups": groups, "schedule": moving.schedule.state_dict()}
    if moving.average is not None:
        averages = moving.average.module.parameters()
        tensors |= {f"average/{n}": p for n, p in zip(moving.parameters, averages, strict=True)}
        document["n_averaged"] = int(moving.average.n_averaged)
    if moving.scaler is not None:
        document["scaler"] = moving.scaler.state_dict()
    return {**tensors, **_random_states(moving.generator)}, document


def _optimizer_order(moving: Moving) -> list[str]:
    """The parameters' names in the order in which the optimiser counts them: group by group."""
    names = {id(parameter): name for name, parameter in moving.parameters.items()}
    groups = moving.optimizer.param_groups
    return [names[id(parameter)] for group in groups for parameter in group["params"]]


def _random_states(generator: torch.Generator) -> Tensors:
    device = generator.device
    states = {"random/cpu": gather(torch.get_rng_state()[None].to(device))}
    if device.type == "cuda":
        states["random/cuda"] = gather(torch.cuda.get_rng_state(device)[None].to(device))
    return {**states, "random/attack": generator.get_state()}


# ---- in ------------------------------------------------------------------------------------------


def restore(
    moving: Moving, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Put a captured state back.

    Raises:
        TrainingStateError: It is that of other parameters.
    """
    _check_names(moving, tensors)
    for name, parameter in moving.parameters.items():
        parameter.detach().copy_(tensors[f"weights/{name}"])
    _restore_optimizer(moving, tensors, document)
    moving.schedule.load_state_dict(dict(document["schedule"]))
    if moving.average is not None:
        averages = moving.average.module.parameters()
        for name, average in zip(moving.parameters, averages, strict=True):
            average.detach().copy_(tensors[f"average/{name}"])
        moving.average.n_averaged.fill_(document["n_averaged"])
    if moving.scaler is not None and "scaler" in document:
        moving.scaler.load_state_dict(dict(document["scaler"]))
    _restore_random(moving.generator, tensors)


def _check_names(moving: Moving, tensors: Mapping[str, torch.Tensor]) -> None:
    wanted = {f"weights/{name}": parameter for name, parameter in moving.parameters.items()}
    if moving.average is not None:
        wanted |= {f"average/{name}": p for name, p in moving.parameters.items()}
    wrong = [
        name for name, p in wanted.items() if name not in tensors or tensors[name].shape != p.shape
    ]
    wrong += [name for name in tensors if name.startswith("weights/") and name not in wanted]
    if wrong:
        raise TrainingStateError(
            f"the checkpoint holds other parameters: {', '.join(wrong[:5])} (of {len(wrong)})",
            hint="continue with the version of the code that started the run, or start over",
        )


def _restore_optimizer(
    moving: Moving, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    current = moving.optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for place, name in enumerate(_optimizer_order(moving)):
        prefix = f"optimizer/{name}/"
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if found:
            state[place] = {
                key: _laid_out(value, moving.parameters[name]) for key, value in found.items()
            }
    groups = [
        {**saved, "params": group["params"]}
        for saved, group in zip(document["groups"], current["param_groups"], strict=True)
    ]
    moving.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    if value.shape != parameter.shape or value.ndim == 0:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _restore_random(generator: torch.Generator, tensors: Mapping[str, torch.Tensor]) -> None:
    # A process that the interrupted run did not have keeps the state of its own seed.
    own = rank()
    if own < len(tensors["random/cpu"]):
        # A view into the rows of all processes is read from the wrong place: hence the copy.
        torch.set_rng_state(tensors["random/cpu"][own].cpu().clone())
    if generator.device.type == "cuda" and own < len(tensors.get("random/cuda", ())):
        torch.cuda.set_rng_state(tensors["random/cuda"][own].cpu().clone(), generator.device)
    generator.set_state(tensors["random/attack"].cpu())
