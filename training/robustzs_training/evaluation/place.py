"""Where a measurement runs: one process, or those that torchrun started."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from robustzs.errors import UsageError
from robustzs_training.allocator import keep_freed_memory
from robustzs_training.evaluation.run import DesertedError, Place

_PATIENCE = timedelta(days=30)  # at a barrier: one process may have much more to do
_LISTENING = 0.02


@contextmanager
def join() -> Iterator[Place]:
    """This process among those of torchrun; alone without it."""
    world_size = _world_size()
    if world_size == 1:
        yield Place()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Place(rank=dist.get_rank(), world_size=world_size, wait=_wait)
    finally:
        dist.destroy_process_group()


def _wait() -> None:
    """Wait in short naps: within the barrier itself no signal would be heard."""
    try:
        work = dist.barrier(async_op=True)
        while work is not None and not work.is_completed():
            time.sleep(_LISTENING)
        if work is not None:
            work.wait()
    except RuntimeError as error:
        raise DesertedError(
            "another process of this measurement has ended",
            hint="see what it said; the same command goes on with what all have found",
        ) from error


@contextmanager
def stoppable() -> Iterator[None]:
    """The first SIGINT or SIGTERM ends a run with what it has: it raises ``KeyboardInterrupt``.

    Later ones are not heard, so that the card is written: torchrun passes on to its processes the
    Ctrl-C that they have had from the terminal, and ends those that are left. Alone, a second
    Ctrl-C ends the process at once.
    """
    alone, heard = _world_size() == 1, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        del frame
        if not heard or (alone and number == signal.SIGINT):
            heard = True
            raise KeyboardInterrupt

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def find_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto``; each process of a machine gets a GPU of its own.

    Float32 is made to mean float32: no GPU rounds products to fewer bits. On a CPU, freed memory
    stays with the process.

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
        keep_freed_memory()
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    place = int(number) if number else int(os.environ.get("LOCAL_RANK", "0")) % max(count, 1)
    if place >= count:
        raise UsageError(
            f"--device {name}: there are {count} CUDA devices here", hint="cpu, or auto"
        )
    return torch.device("cuda", place)
