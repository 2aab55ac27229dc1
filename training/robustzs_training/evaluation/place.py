"""Where a measurement runs: one process, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from robustzs.errors import UsageError
from robustzs_training.evaluation.run import Place

_PATIENCE = timedelta(days=30)  # at a barrier: one process may have much more to do


@contextmanager
def join() -> Iterator[Place]:
    """This process among those of torchrun; alone without it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Place()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Place(rank=dist.get_rank(), world_size=world_size, wait=_wait)
    finally:
        dist.destroy_process_group()


def _wait() -> None:
    dist.barrier()


def find_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto``; each process of a machine gets a GPU of its own.

    Float32 is made to mean float32: no GPU rounds products to fewer bits.

    Raises:
        UsageError: There is no such device.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UsageError(f"--device {name!r}", hint="cpu, cuda, cuda:N or auto")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    place = int(number) if number else int(os.environ.get("LOCAL_RANK", "0")) % max(count, 1)
    if place >= count:
        raise UsageError(
            f"--device {name}: there are {count} CUDA devices here", hint="cpu, or auto"
        )
    return torch.device("cuda", place)
