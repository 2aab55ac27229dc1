"""What is checked before the first step: the folder, the disk, the memory, the batch.

Nothing is estimated that can be known: sizes are those of the tensors at hand, and what a backward
pass keeps is counted on two images and drawn out to all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from robustzs.errors import PreflightError
from robustzs_training.adapter import ClipAdapter
from robustzs_training.loop.optim import slots
from robustzs_training.loop.store import CheckpointStore
from robustzs_training.objectives.base import Objective
from robustzs_training.objectives.hierarchical import Hierarchical
from robustzs_training.processes import world_size
from robustzs_training.recipe import Recipe

CHECKPOINTS = "checkpoints"
_GIB = 2**30
_SMALL_FILES = 64 * 2**20  # metrics, logs, JSON
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What a run needs and what there is; bytes.

    Attributes:
        checkpoint: Of one checkpoint.
        disk_needed: Still to be written at most at one time.
        disk_free: Where the output goes.
        memory_needed: By one process, beyond what it holds already.
        memory_free: Of its device.
        device: Where the memory is.
        n_trained: Numbers that train.
    """

    checkpoint: int
    disk_needed: int
    disk_free: int
    memory_needed: int
    memory_free: int
    device: str
    n_trained: int

    def check(self) -> None:
        """Refuse a run for which there is too little.

        Raises:
            PreflightError: Names what is missing and what to change.
        """
        if self.disk_needed > self.disk_free:
            raise PreflightError(
                f"the run needs {gib(self.disk_needed)} of disk, and {gib(self.disk_free)} are "
                f"free (one checkpoint takes {gib(self.checkpoint)})",
                hint="free some, choose an output on another disk, or lower run.keep_checkpoints",
            )
        if self.memory_needed > self.memory_free:
            raise PreflightError(
                f"a step needs about {gib(self.memory_needed)} of memory on {self.device}, and "
                f"{gib(self.memory_free)} are free",
                hint="lower run.batch_size, or raise run.accumulation (in-batch contrasts then "
                "see fewer images), or set run.precision to bf16",
            )


def preflight(
    objective: Objective,
    recipe: Recipe,
    output: Path,
    *,
    image_size: tuple[int, int],
    device: torch.device | None = None,
) -> PreflightReport:
    """Look at everything that can be looked at without training; the caller calls ``check``.

    Args:
        objective: On the device that it trains on, or on the CPU if nothing is allocated yet.
        recipe: The run.
        output: Its folder; need not exist.
        image_size: ``(H, W)`` of the pixels that the loader gives.
        device: Where the run will be; the objective's own when ``None``.

    Raises:
        PreflightError: The folder cannot be written, nothing trains, or the batch cannot be split.
    """
    check_batch(recipe)
    check_writable(output)
    trained = objective.trainable()
    if not trained:
        raise PreflightError("nothing trains", hint="the objective names no parameters")
    size = sum(p.numel() * p.element_size() for p in trained.values())
    copies = 1 + slots(recipe.optimizer) + (recipe.optimizer.ema_decay is not None)
    checkpoint = copies * size
    everything = sum(t.numel() * t.element_size() for t in objective.model.state_dict().values())
    export = (
        2 * everything if recipe.export.enabled else 0
    )  # weights, and the graphs of both towers
    store = CheckpointStore(output / CHECKPOINTS, keep=recipe.run.keep_checkpoints)
    disk = (recipe.run.keep_checkpoints + 1) * checkpoint + export + _SMALL_FILES
    place = device or next(iter(trained.values())).device
    memory = copies * size  # gradients take the place of the weights, which are there
    memory += size if world_size() > 1 else 0  # buckets of gradients on their way
    memory += 0 if place == next(iter(trained.values())).device else everything
    memory += activation_bytes(objective, recipe, image_size)
    return PreflightReport(
        checkpoint=checkpoint,
        disk_needed=max(0, disk - (store.size() if store.steps() else 0)),
        disk_free=shutil.disk_usage(_existing(output)).free,
        memory_needed=memory,
        memory_free=free_memory(place),
        device=str(place),
        n_trained=sum(p.numel() for p in trained.values()),
    )


def image_size_of(objective: Objective, recipe: Recipe) -> tuple[int, int]:
    """Height and width that a recipe trains at: its own, or the model's."""
    wanted = recipe.data.augment.image_size or objective.model.visual.image_size
    if isinstance(wanted, int):
        return wanted, wanted
    height, width = cast(tuple[int, int], wanted)
    return int(height), int(width)


def check_batch(recipe: Recipe) -> None:
    """Every process, and every part of its share, must get equally many images.

    Raises:
        PreflightError: They would not.
    """
    parts = world_size() * recipe.run.accumulation
    if recipe.run.batch_size % parts:
        raise PreflightError(
            f"run.batch_size {recipe.run.batch_size} cannot be split among {world_size()} "
            f"process(es) and run.accumulation {recipe.run.accumulation}",
            hint=f"choose a multiple of {parts}",
        )


def check_writable(output: Path) -> None:
    """Write and remove a file in ``output``, or in the folder that it would be made in.

    Raises:
        PreflightError: That does not work.
    """
    place = _existing(output)
    probe = place / f".robustzs-{os.getpid()}"
    try:
        if not place.is_dir():
            raise NotADirectoryError(f"{place} is a file")
        probe.write_bytes(b"0" * 4096)
    except OSError as error:
        raise PreflightError(
            f"{output} cannot be written to: {error}", hint="choose another output folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def activation_bytes(objective: Objective, recipe: Recipe, image_size: tuple[int, int]) -> int:
    """What the backward pass of a part of a share keeps.

    Measured on one and on two rows of zeros, for images and for prompts that are attacked, and
    drawn out to all rows.
    """
    model, run = objective.model, recipe.run
    device = next(model.visual.parameters()).device
    n_images = run.batch_size // (world_size() * run.accumulation)

    def images(n: int) -> torch.Tensor:
        return model.image_features(torch.zeros(n, 3, *image_size, device=device))

    found = objective.gradient_passes * _drawn_out(objective, run.precision, images, n_images)
    for part in objective.modules():
        if isinstance(part, Hierarchical) and part.options.text_eps is not None:
            ids = part.prompt_ids
            found += _drawn_out(
                objective, run.precision, functools.partial(_prompts, model, ids), len(ids)
            )
    return found


def _prompts(model: ClipAdapter, ids: torch.Tensor, n: int) -> torch.Tensor:
    shape = (n, ids.shape[1], model.text_width)
    perturbation = torch.zeros(shape, device=ids.device, requires_grad=True)
    return model.pooled_text(ids[:n], perturbation=perturbation)


def _drawn_out(
    objective: Objective, precision: str, forward: Callable[[int], torch.Tensor], n_rows: int
) -> int:
    one, two = (_kept_bytes(objective, precision, forward, n) for n in (1, 2))
    return one + (two - one) * (n_rows - 1)


def _kept_bytes(
    objective: Objective, precision: str, forward: Callable[[int], torch.Tensor], n: int
) -> int:
    """Bytes that the graph of one forward pass holds on to, weights aside."""
    device = next(objective.model.parameters()).device
    dtype = _DTYPES.get(precision)
    if device.type == "cpu" and dtype is torch.float16:
        dtype = torch.bfloat16  # of the same size; the other is not there
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        forward(n)
    return sum(storage.nbytes() for storage in kept.values())


def free_memory(device: torch.device) -> int:
    """Bytes that a new allocation may take: of the GPU, or of the machine or its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    return min(free, max(0, limit - used))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or "max"
        return None


def _existing(path: Path) -> Path:
    found = path.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def gib(size: int) -> str:
    """A size as people read it."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB // 10 else f"{size / 2**20:.0f} MiB"


def describe(report: PreflightReport) -> dict[str, Any]:
    """The report as lines for people."""
    return {
        "trained": f"{report.n_trained / 1e6:.1f} million numbers",
        "memory": f"about {gib(report.memory_needed)} of {gib(report.memory_free)} "
        f"on {report.device}",
        "disk": f"{gib(report.disk_needed)} of {gib(report.disk_free)}; "
        f"{gib(report.checkpoint)} a checkpoint",
    }
