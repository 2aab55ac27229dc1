"""Accelerate, and how a model is laid out on its device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from accelerate.utils.memory import should_reduce_batch_size

from robustzs.errors import PreflightError, TrainingError
from robustzs_training.adapter import FrozenImageEncoder
from robustzs_training.allocator import keep_freed_memory
from robustzs_training.objectives.base import Objective
from robustzs_training.recipe import RunPart

_NAMES = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(run: RunPart) -> Accelerator:
    """Accelerate for a recipe: one process, or those that ``torchrun`` started.

    Buffers are not broadcast: none of them changes. On a CPU, freed memory stays with the process.

    Raises:
        PreflightError: The machine has no such precision.
    """
    precision = _NAMES[run.precision]
    state = AcceleratorState
    if state._shared_state and state().mixed_precision != precision:
        state._reset_state()  # of an earlier run in this process
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        keep_freed_memory()
    try:
        return Accelerator(
            mixed_precision=precision,
            cpu=on_cpu,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:
        raise PreflightError(
            f"precision {run.precision} does not work here: {error}",
            hint="set run.precision to bf16 or fp32; fp16 needs a GPU",
        ) from error


def lay_out(objective: Objective, device: torch.device, *, channels_last: bool) -> None:
    """Move everything to ``device``; convolutions then run on the faster layout if asked for."""
    objective.to(device)
    if channels_last:
        _set_format(objective, torch.channels_last)


def _set_format(objective: Objective, memory_format: torch.memory_format) -> None:
    objective.to(memory_format=memory_format)


def image_towers(objective: Objective) -> list[torch.nn.Module]:
    """The trained image tower, and the frozen ones that it is compared with."""
    frozen = [part.visual for part in objective.modules() if isinstance(part, FrozenImageEncoder)]
    return [objective.model.visual, *frozen]


@contextmanager
def compiled(objective: Objective, *, enabled: bool) -> Iterator[None]:
    """Image towers under ``torch.compile`` inside; plain again after, names unchanged throughout.

    Compiling happens at the first calls, once for each way in which gradients are asked for.
    """
    towers = image_towers(objective) if enabled else []
    for tower in towers:
        tower.compile()
    try:
        with warnings.catch_warnings():
            # Of the compiler's own look at its inputs.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
            yield
    finally:
        for tower in towers:
            tower._compiled_call_impl = None


def wrap(
    objective: Objective, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Both, made ready for processes and precision."""
    with warnings.catch_warnings():
        # Accelerate knows only the old name of this option of DistributedDataParallel.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        wrapped, ready = accelerator.prepare(objective, optimizer)
    return wrapped, ready


@contextmanager
def plain_after(objective: Objective, accelerator: Accelerator) -> Iterator[None]:
    """Whoever exports the objective after the run finds it contiguous, bare, in evaluation mode.

    Gradients and optimiser, thrice as large as what trains, are let go of.
    """
    try:
        yield
    finally:
        accelerator.unwrap_model(objective, keep_fp32_wrapper=False)
        objective.zero_grad(set_to_none=True)
        accelerator.free_memory()
        _set_format(objective, torch.contiguous_format)
        objective.eval()


def explained(error: RuntimeError) -> TrainingError | None:
    """What happened and what to do about it; ``None`` where that is not known."""
    if isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return TrainingError(
            f"out of memory: {str(error).splitlines()[0]}",
            hint="lower run.batch_size, or raise run.accumulation (in-batch contrasts then see "
            "fewer images); bf16 halves what is kept",
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return TrainingError(
            f"torch.compile failed: {str(error).splitlines()[0]}",
            hint="set run.compile to false, or install the compiler that the message names",
        )
    return None
